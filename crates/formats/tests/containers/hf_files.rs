//! Hugging Face directories: real `config.json` and safetensors files, and what must be refused.

use crate::data;

use formats::hf::{HfConfig, ShardIndex, generation_eos_ids};
use formats::{FormatError, Layout, TensorType, safetensors_file};

#[test]
fn reads_the_golden_models() {
    for (model, model_type, n_tensors) in [
        ("golden/bitnet-tiny64/packed-autobitlinear", "bitnet", 38),
        ("golden/bitnet-tiny64/online-f32", "bitnet", 24),
        ("golden/llama-tiny64", "llama", 21),
        ("golden/stories260K-hf", "llama", 47),
        ("bitllama/hf-1M", "bitnet", 146),
    ] {
        let Some(path) = data::path(model) else { return };
        let config = HfConfig::parse(&std::fs::read(path.join("config.json")).unwrap()).unwrap();
        assert_eq!(config.model_type, model_type, "{model}");
        assert_eq!((config.bos_token_id, config.eos_token_id), (Some(1), vec![2]), "{model}");
        assert_eq!(config.rope.rope_type.as_deref(), Some("default"), "{model}");
        let bytes = std::fs::read(path.join("model.safetensors")).unwrap();
        let tensors = safetensors_file::parse(&bytes).unwrap();
        assert_eq!(tensors.len(), n_tensors, "{model}");
        let embedding = tensors.iter().find(|t| t.name == "model.embed_tokens.weight").unwrap();
        assert_eq!(embedding.shape, [config.vocab_size.unwrap(), config.hidden_size.unwrap()], "{model}");
        assert_eq!(embedding.layout, Layout::Rows(TensorType::F32), "{model}");
        let last = tensors.last().unwrap();
        assert_eq!(last.offset + last.bytes, bytes.len() as u64, "{model}");
    }
}

#[test]
fn reads_the_quantization_of_bitnet() {
    let Some(path) = data::path("golden/bitnet-tiny64/packed-bitlinear") else { return };
    let config = HfConfig::parse(&std::fs::read(path.join("config.json")).unwrap()).unwrap();
    let quantization = config.quantization_config.unwrap();
    assert_eq!(quantization.quant_method, "bitnet");
    assert_eq!(quantization.linear_class.as_deref(), Some("bitlinear"));
    assert_eq!(quantization.quantization_mode.as_deref(), Some("offline"));
    assert_eq!(config.rope.rope_theta, Some(500_000.0));
    assert_eq!(config.hidden_act.as_deref(), Some("relu2"));
    let eos = generation_eos_ids(&std::fs::read(path.join("generation_config.json")).unwrap()).unwrap();
    assert_eq!(eos, [2]);
    let bytes = std::fs::read(path.join("model.safetensors")).unwrap();
    let tensors = safetensors_file::parse(&bytes).unwrap();
    let q = tensors.iter().find(|t| t.name == "model.layers.0.self_attn.q_proj.weight").unwrap();
    assert_eq!((q.shape.as_slice(), q.layout), ([16, 64].as_slice(), Layout::Rows(TensorType::U8)));
}

#[test]
fn reads_rope_of_every_generation_of_transformers() {
    let llama31 = br#"{"model_type": "llama", "rope_theta": 500000.0, "rope_scaling": {"factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        "rope_type": "llama3"}, "eos_token_id": [128001, 128008, 128009], "torch_dtype": "bfloat16"}"#;
    let config = HfConfig::parse(llama31).unwrap();
    assert_eq!(config.rope.rope_theta, Some(500_000.0));
    assert_eq!(config.rope.rope_type.as_deref(), Some("llama3"));
    assert_eq!((config.rope.factor, config.rope.original_max_position_embeddings), (Some(8.0), Some(8192)));
    assert_eq!(config.eos_token_id, [128_001, 128_008, 128_009]);
    assert_eq!(config.dtype.as_deref(), Some("bfloat16"));

    let gemma = br#"{"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
        "eos_token_id": [1, 106], "text_config": {"model_type": "gemma3_text", "hidden_size": 2560,
        "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 1024, "layer_types": ["sliding_attention",
        "full_attention"], "rope_parameters": {"full_attention": {"rope_theta": 1e6, "factor": 8.0,
        "rope_type": "linear"}, "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}}}}"#;
    let config = HfConfig::parse(gemma).unwrap();
    assert_eq!(config.model_type, "gemma3_text");
    assert_eq!(config.architectures, ["Gemma3ForConditionalGeneration"]);
    assert_eq!(config.hidden_act.as_deref(), Some("gelu_pytorch_tanh"));
    assert_eq!((config.rope.rope_theta, config.rope.factor), (Some(1e6), Some(8.0)));
    assert_eq!(config.local_rope.unwrap().rope_theta, Some(10_000.0));
    assert_eq!(config.eos_token_id, [1, 106]);

    let older = br#"{"model_type": "gemma3_text", "rope_theta": 1e6, "rope_local_base_freq": 10000.0,
        "sliding_window_pattern": 6, "sliding_window": 512, "use_sliding_window": false}"#;
    let config = HfConfig::parse(older).unwrap();
    assert_eq!(config.local_rope.unwrap().rope_theta, Some(10_000.0));
    assert_eq!((config.sliding_window_pattern, config.sliding_window), (Some(6), None));
}

#[test]
fn refuses_wrong_json_by_field() {
    let cases: [(&[u8], &str); 9] = [
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b"[]", "invalid type: sequence, expected a map at line 1 column 0"),
        (b"{}", "model_type is missing"),
        (br#"{"model_type": 3}"#, "model_type is not a string"),
        (br#"{"model_type": "llama", "hidden_size": -1}"#, "hidden_size is not a non-negative integer"),
        (br#"{"model_type": "llama", "rms_norm_eps": "x"}"#, "rms_norm_eps is not a finite number"),
        (
            br#"{"model_type": "llama", "eos_token_id": [1, -2]}"#,
            "eos_token_id is not a token id or a list of them",
        ),
        (
            br#"{"model_type": "llama", "rope_scaling": {"factor": []}}"#,
            "rope_scaling.factor is not a finite number",
        ),
        (
            br#"{"model_type": "llama", "quantization_config": {}}"#,
            "quantization_config.quant_method is missing",
        ),
    ];
    for (json, problem) in cases {
        let expected = FormatError::Json { what: "config.json".into(), problem: problem.into() };
        assert_eq!(HfConfig::parse(json), Err(expected));
    }
}

#[test]
fn keeps_shards_in_their_folder() {
    let index = |file: &str| {
        let json = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": {"b": "x.safetensors", "a": file}});
        ShardIndex::parse(json.to_string().as_bytes())
    };
    assert_eq!(index("y.safetensors").unwrap().files(), ["x.safetensors", "y.safetensors"]);
    assert_eq!(index("x.safetensors").unwrap().files(), ["x.safetensors"]);
    for file in ["", ".", "..", "../x", "/etc/passwd", "a/b", r"a\b", "C:x", "a\0"] {
        let problem = format!("weight_map.a {file:?} is not the name of a file in the same folder");
        let what = "model.safetensors.index.json".to_owned();
        assert_eq!(index(file), Err(FormatError::Json { what, problem }));
    }
}
