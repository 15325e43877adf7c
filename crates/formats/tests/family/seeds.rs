//! The fuzzers' seeds: small valid files, made here. `EDGELLM_WRITE_SEEDS=1 cargo test -p formats seeds` writes
//! them anew; otherwise the committed ones must be these.

use std::fs;
use std::path::Path;

use formats::detect::FileKind;
use formats::trailer;

use crate::sample::{self, KINDS, tiny};

/// Fuzz target, name of the seed, contents.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (kind, bitnet) in KINDS {
        let target = match kind {
            FileKind::Llama2cV0 => "llama2c_v0",
            FileKind::Llama2cV1 | FileKind::Llama2cV2 => "llama2c_versioned",
            FileKind::TmacV1 => "tmac_v1",
            FileKind::TmacV2 => "tmac_v2",
            FileKind::Int4 => "int4",
            _ => "bitllama",
        };
        let shared = kind == FileKind::Bitllama;
        let mut header = tiny(shared);
        header.n_layers = 1;
        header.hidden_dim = 4;
        let name = format!("{kind}{}", if bitnet { " bitnet" } else { "" })
            .replace('.', "")
            .replace(' ', "-")
            .to_lowercase();
        let file = sample::file((kind, bitnet), &header, &|stem| stem == "wo", true, 11);
        seeds.push(("detect", name.clone(), file.clone()));
        seeds.push((target, name, file));
    }
    let mut metadata = Vec::new();
    let json =
        serde_json::json!({"architecture": "bitnet", "rope_theta": 500000.0, "special_ids": {"eos": [2]}});
    trailer::write(&mut metadata, &json).unwrap();
    seeds.push(("trailer", "metadata".into(), metadata));
    let vocabulary = sample::tokenizer()[..600].to_vec();
    let cut =
        (0..vocabulary.len()).rev().find(|&end| formats::tokenizer_file::parse(&vocabulary[..end]).is_ok());
    seeds.push(("tokenizer_file", "bytes".into(), vocabulary[..cut.unwrap()].to_vec()));
    for (version, nested) in [(2, false), (3, true)] {
        seeds.push(("gguf", format!("v{version}"), gguf(version, nested)));
    }
    let header =
        br#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"#;
    let rest = br#""b.weight":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}}"#;
    let length = (header.len() + rest.len()) as u64;
    seeds.push(("safetensors", "two".into(), [&length.to_le_bytes(), &header[..], rest, &[0; 22]].concat()));
    for (name, config) in CONFIGS {
        seeds.push(("hf_config", name.into(), config.into()));
    }
    let index =
        r#"{"metadata":{"total_size":22},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"x"}}"#;
    seeds.push(("shard_index", "two".into(), index.into()));
    for (name, vocab_size) in [("narrow", 300), ("wide", 1 << 17)] {
        let mut shard = Vec::new();
        formats::token_shard::write(&mut shard, vocab_size, 20, &[2, 2, 5], &[7, 299, 0, 1, 2]).unwrap();
        seeds.push(("token_shard", name.into(), shard));
    }
    let adapter = r#"{"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":["q_proj","v_proj"],"bias":"none","rank_pattern":{},"use_rslora":true}"#;
    seeds.push(("peft_config", "lora".into(), adapter.into()));
    let parquet = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/parquet");
    for name in ["plain", "dictionary", "nested"] {
        let file = fs::read(parquet.join(format!("{name}.parquet"))).unwrap();
        seeds.push(("parquet", name.into(), file));
    }
    seeds
}

/// What configurations look like: a plain one, a quantized one, a nested one, a generation_config.json.
const CONFIGS: [(&str, &str); 4] = [
    (
        "llama",
        r#"{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":128,"max_position_embeddings":256,"rms_norm_eps":1e-05,"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":64},"tie_word_embeddings":true,"hidden_act":"silu","torch_dtype":"bfloat16","eos_token_id":[1,2],"bos_token_id":0}"#,
    ),
    (
        "bitnet",
        r#"{"model_type":"bitnet","hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":128,"hidden_act":"relu2","quantization_config":{"quant_method":"bitnet","linear_class":"autobitlinear","quantization_mode":"offline"}}"#,
    ),
    (
        "gemma3",
        r#"{"model_type":"gemma3","text_config":{"model_type":"gemma3_text","hidden_size":64,"head_dim":16,"intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":128,"hidden_activation":"gelu_pytorch_tanh","sliding_window":32,"sliding_window_pattern":6,"layer_types":["sliding_attention","full_attention"],"rope_parameters":{"full_attention":{"rope_theta":1000000.0},"sliding_attention":{"rope_theta":10000.0}},"query_pre_attn_scalar":256,"final_logit_softcapping":null}}"#,
    ),
    ("generation", r#"{"eos_token_id":[128001,128009],"do_sample":true,"temperature":0.6}"#),
];

/// A small GGUF file: a value of several types, arrays, two tensors.
fn gguf(version: u32, nested: bool) -> Vec<u8> {
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    };
    let mut out = b"GGUF".to_vec();
    out.extend(version.to_le_bytes());
    out.extend(2u64.to_le_bytes()); // tensors
    out.extend((4 + u64::from(nested)).to_le_bytes()); // metadata entries
    text(&mut out, "general.architecture");
    out.extend(8u32.to_le_bytes());
    text(&mut out, "llama");
    text(&mut out, "general.alignment");
    out.extend(4u32.to_le_bytes());
    out.extend(32u32.to_le_bytes());
    text(&mut out, "tokenizer.ggml.tokens");
    out.extend(9u32.to_le_bytes());
    out.extend(8u32.to_le_bytes());
    out.extend(2u64.to_le_bytes());
    text(&mut out, "<s>");
    text(&mut out, "a");
    text(&mut out, "tokenizer.ggml.scores");
    out.extend(9u32.to_le_bytes());
    out.extend(6u32.to_le_bytes());
    out.extend(2u64.to_le_bytes());
    out.extend([0; 8]);
    if nested {
        text(&mut out, "nested");
        out.extend(9u32.to_le_bytes());
        out.extend(9u32.to_le_bytes());
        out.extend(1u64.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        out.extend(3u64.to_le_bytes());
        out.extend([1, 2, 3]);
    }
    for (name, cols, kind, offset) in [("output_norm.weight", 4u64, 0u32, 0u64), ("output.weight", 32, 2, 32)]
    {
        text(&mut out, name);
        out.extend(1u32.to_le_bytes());
        out.extend(cols.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(32) + 32 + 18, 0);
    out
}

#[test]
fn seeds_are_accepted() {
    for (target, name, bytes) in seeds() {
        let problem = match target {
            "gguf" => formats::gguf::Gguf::parse(&bytes).err(),
            "safetensors" => formats::safetensors_file::parse(&bytes).err(),
            "token_shard" => formats::token_shard::TokenShard::parse(&bytes).err(),
            "peft_config" => formats::peft::PeftConfig::parse(&bytes).err(),
            "parquet" => formats::parquet::Parquet::parse(&bytes).err(),
            "shard_index" => formats::hf::ShardIndex::parse(&bytes).err(),
            "hf_config" if name == "generation" => formats::hf::generation_eos_ids(&bytes).err(),
            "hf_config" => formats::hf::HfConfig::parse(&bytes).err(),
            "tokenizer_file" => formats::tokenizer_file::parse(&bytes).err(),
            "trailer" => trailer::parse(&bytes, 0).err(),
            _ if name == "bitllama" => None, // whose bit order random weights do not tell
            _ => formats::checkpoint::Checkpoint::parse(&bytes).err(),
        };
        assert_eq!(problem, None, "{target}/{name}");
    }
}

#[test]
fn seeds_are_committed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (target, name, bytes) in seeds() {
        assert!(bytes.len() <= 4096, "{target}/{name} has {} bytes", bytes.len());
        let path = folder.join(target).join(&name);
        if std::env::var_os("EDGELLM_WRITE_SEEDS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert!(
            fs::read(&path).is_ok_and(|found| found == bytes),
            "{target}/{name} is not the seed that is made here"
        );
    }
}
