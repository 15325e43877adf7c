//! The tokenizer goes with the model.

use std::ops::ControlFlow;
use std::path::Path;

use engine::generate::{GenerateOptions, generate};
use engine::sampler::Sampling;
use engine::tokenizer::EncodeOptions;
use engine::{LoadOptions, Model, Sequence};
use quantize::convert::Options;
use safetensors::tensor::{Dtype, TensorView};

use crate::helpers::{Folder, downloaded, shared, with_tokenizer};

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

/// 256 positions from BOS, as `run -t 0 -n 256`.
fn greedy(path: &Path) -> String {
    let model = Model::load(path, &LoadOptions::default()).unwrap();
    let options = GenerateOptions {
        max_tokens: Some(256),
        sampling: Sampling::greedy(),
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let prompt = [model.tokenizer.as_ref().unwrap().bos().unwrap()];
    let mut sequence = Sequence::new(&model, 256).unwrap();
    generate(&model, &mut sequence, &prompt, &options, &mut |_| ControlFlow::Continue(())).unwrap().text
}

#[test]
fn tokenizer_bin_goes_into_gguf_and_tmac2() {
    let Some(stories) = shared("llama2c/stories260K.bin") else { return };
    let (Some(tok512), Some(expected)) =
        (shared("llama2c/tok512.bin"), shared("golden/stories260K-hf/runc_t0_n256.txt"))
    else {
        return;
    };
    let expected = std::fs::read_to_string(expected).unwrap();
    let folder = Folder::new();
    let (gguf, report) = folder.convert(&stories, "a.gguf", &with_tokenizer(tok512.clone()));
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert_eq!(greedy(&gguf).trim_end(), expected.trim_end());

    let Some(tmac) = shared("golden/stories260K-quantized/stories260K.tmac2.bin") else { return };
    let (tmac2, report) = folder.convert(&tmac, "a.tmac2.bin", &with_tokenizer(tok512.clone()));
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    let with = LoadOptions { tokenizer: Some(tok512), ..LoadOptions::default() };
    let (a, b) = (Model::load(&tmac, &with).unwrap(), Model::load(&tmac2, &LoadOptions::default()).unwrap());
    assert_eq!(a.eos, b.eos);
    let (a, b) = (a.tokenizer.unwrap(), b.tokenizer.unwrap());
    for text in ["Once upon a time", " two  spaces\nand ünïcödé 🦀", ""] {
        for add_special in [false, true] {
            let options = EncodeOptions { add_special, parse_special: false };
            let ids = a.encode(text, options).unwrap();
            assert_eq!(ids, b.encode(text, options).unwrap(), "{text:?}");
            assert_eq!(a.decode(&ids).unwrap(), b.decode(&ids).unwrap());
        }
    }
}

/// A Llama of nothing with the vocabulary of a `tokenizer.json`.
fn llama_with(folder: &Folder, tokenizer_json: &Path, vocab_size: usize) -> std::path::PathBuf {
    let model = folder.path("hf");
    std::fs::create_dir(&model).unwrap();
    std::fs::copy(tokenizer_json, model.join("tokenizer.json")).unwrap();
    let config = format!(
        r#"{{"model_type": "llama", "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
            "num_attention_heads": 1, "vocab_size": {vocab_size}, "tie_word_embeddings": true,
            "rms_norm_eps": 1e-5, "eos_token_id": [128001, 128009, 7, 8, 9]}}"#
    );
    std::fs::write(model.join("config.json"), config).unwrap();
    let zeros = vec![0u8; vocab_size * 4 * 4];
    let layer = "model.layers.0";
    let mut shapes =
        vec![("model.embed_tokens".to_owned(), vec![vocab_size, 4]), ("model.norm".to_owned(), vec![4])];
    for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
        shapes.push((format!("{layer}.self_attn.{part}"), vec![4, 4]));
    }
    for part in ["gate_proj", "up_proj", "down_proj"] {
        shapes.push((format!("{layer}.mlp.{part}"), vec![4, 4]));
    }
    for part in ["input_layernorm", "post_attention_layernorm"] {
        shapes.push((format!("{layer}.{part}"), vec![4]));
    }
    let views = shapes.iter().map(|(name, shape)| {
        let bytes = &zeros[..shape.iter().product::<usize>() * 4];
        (format!("{name}.weight"), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(model.join("model.safetensors"), bytes).unwrap();
    model
}

#[test]
fn tokenizer_json_goes_into_gguf() {
    let Some(json) = shared("tokenizers/llama3_1_tokenizer.json") else { return };
    let Some(inputs) = shared("vocab/ggml-vocab-llama-bpe.gguf.inp") else { return };
    let folder = Folder::new();
    // More embeddings than tokens, as models often have.
    let hf = llama_with(&folder, &json, 128_256 + 64);
    let (gguf, report) = folder.convert(&hf, "a.gguf", &Options::default());
    assert_eq!(report.notes, ["end tokens [9]: not in the output, which has keys for three"]);
    let model = Model::load(&gguf, &LoadOptions::default()).unwrap();
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let outputs = read(&inputs.with_extension("out"));
    let texts = read(&inputs);
    let mut checked = 0;
    for (text, ids) in texts.split("\n__ggml_vocab_test__\n").zip(outputs.lines()) {
        let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text, PLAIN).unwrap(), ids, "{text:?}");
        checked += 1;
    }
    assert_eq!(checked, outputs.lines().count());
    assert!([7, 8, 128_001, 128_009].iter().all(|id| model.eos.contains(id)), "{:?}", model.eos);
}

#[test]
fn a_tokenizer_inside_gguf_stays() {
    let Some(path) = downloaded("smollm2.gguf") else { return };
    let folder = Folder::new();
    let (gguf, _) = folder.convert(&path, "a.gguf", &Options::default());
    let load = |path: &Path| Model::load(path, &LoadOptions::default()).unwrap();
    let (a, b) = (load(&path), load(&gguf));
    assert_eq!((&a.config, &a.eos), (&b.config, &b.eos));
    assert_eq!(a.chat_template.unwrap().source(), b.chat_template.unwrap().source());
    let text = "Hello, world! 12345\n\n  x = y;";
    let [a, b] = [a.tokenizer, b.tokenizer].map(|t| t.unwrap().encode(text, PLAIN).unwrap());
    assert_eq!(a, b);
}
