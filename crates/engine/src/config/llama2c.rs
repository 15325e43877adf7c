//! Configuration of files of the llama2.c family: their headers and the defaults of their variants.

use formats::checkpoint::Checkpoint;
use formats::detect::FileKind;

use super::{Activation, Architecture, ModelConfig, Pairing, Rope};

impl ModelConfig {
    /// From a checkpoint's header; what it does not say has the default of its variant, unless the metadata
    /// trailer says it.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Self {
        let header = &checkpoint.header;
        let architecture = match checkpoint.kind {
            FileKind::Bitllama => Architecture::Bitllama,
            _ if checkpoint.bitnet => Architecture::BitNet,
            _ => Architecture::Llama,
        };
        let head_dim = header.head_dim();
        let bitnet = architecture == Architecture::BitNet;
        let mut config = Self {
            architecture,
            dim: header.dim,
            hidden_dim: header.hidden_dim,
            n_layers: header.n_layers,
            n_heads: header.n_heads,
            n_kv_heads: header.n_kv_heads,
            head_dim,
            vocab_size: header.vocab_size,
            seq_len: header.seq_len,
            // bitllama's norms have no epsilon; this one keeps a zero vector finite.
            norm_eps: if architecture == Architecture::Bitllama { 1e-30 } else { 1e-5 },
            activation: if bitnet { Activation::Relu2 } else { Activation::Silu },
            pairing: if bitnet { Pairing::Half } else { Pairing::Adjacent },
            rope: Rope::new(if bitnet { 500_000.0 } else { 10_000.0 }),
            sliding_window: None,
            embedding_scale: 1.0,
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            int8_linear: architecture != Architecture::Llama,
            norm_weight_offset: 0.0,
        };
        if let Some(trailer) = &checkpoint.trailer {
            config.read_trailer(trailer);
        }
        config
    }

    /// The fields of a metadata trailer that change the configuration; those of other types are ignored, and
    /// impossible values are refused later by [`ModelConfig::check`].
    fn read_trailer(&mut self, trailer: &serde_json::Value) {
        let number = |key: &str| trailer.get(key).and_then(serde_json::Value::as_f64).map(|x| x as f32);
        let text = |key: &str| trailer.get(key).and_then(serde_json::Value::as_str);
        self.rope.theta = number("rope_theta").unwrap_or(self.rope.theta);
        self.norm_eps = number("norm_eps").unwrap_or(self.norm_eps);
        match text("activation") {
            Some("silu") => self.activation = Activation::Silu,
            Some("relu2") => self.activation = Activation::Relu2,
            Some("gelu_tanh") => self.activation = Activation::GeluTanh,
            _ => {}
        }
        match text("rope_pairing") {
            Some("adjacent") => self.pairing = Pairing::Adjacent,
            Some("half") => self.pairing = Pairing::Half,
            _ => {}
        }
        if let Some(seq_len) = trailer.get("seq_len").and_then(serde_json::Value::as_u64) {
            self.seq_len = usize::try_from(seq_len).unwrap_or(0);
        }
    }
}
