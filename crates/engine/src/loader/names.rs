//! What each container calls a tensor.

use crate::config::Architecture;

/// Where the names come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The llama2.c family: our own names.
    Llama2c,
    /// GGUF: ggml's names.
    Gguf,
    /// Hugging Face: the modules' names.
    HuggingFace,
}

/// A tensor of the whole model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// Embedding.
    TokenEmbedding,
    /// Last norm.
    RmsFinal,
    /// Classifier.
    Wcls,
}

/// A tensor of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of `weights::Layer`, which says what they are")]
pub enum Part {
    RmsAtt,
    Wq,
    Wk,
    Wv,
    Wo,
    QNorm,
    KNorm,
    AttnSubNorm,
    PostAttNorm,
    RmsFfn,
    W1,
    W2,
    W3,
    FfnSubNorm,
    PostFfnNorm,
}

impl Naming {
    /// Name of a tensor of the whole model.
    pub fn global(self, global: Global) -> &'static str {
        match (self, global) {
            (Self::Llama2c, Global::TokenEmbedding) => "token_embedding",
            (Self::Llama2c, Global::RmsFinal) => "rms_final",
            (Self::Llama2c, Global::Wcls) => "wcls",
            (Self::Gguf, Global::TokenEmbedding) => "token_embd.weight",
            (Self::Gguf, Global::RmsFinal) => "output_norm.weight",
            (Self::Gguf, Global::Wcls) => "output.weight",
            (Self::HuggingFace, Global::TokenEmbedding) => "model.embed_tokens.weight",
            (Self::HuggingFace, Global::RmsFinal) => "model.norm.weight",
            (Self::HuggingFace, Global::Wcls) => "lm_head.weight",
        }
    }

    /// Name of a layer's tensor without `.weight` or `.bias`.
    pub fn part(self, architecture: Architecture, layer: usize, part: Part) -> String {
        match self {
            Self::Llama2c => format!("layers.{layer}.{}", llama2c(part)),
            Self::Gguf => format!("blk.{layer}.{}", gguf(part)),
            Self::HuggingFace => format!("model.layers.{layer}.{}", hugging_face(architecture, part)),
        }
    }

    /// Name of the tensor that holds the part's weights.
    pub fn weight(self, architecture: Architecture, layer: usize, part: Part) -> String {
        let name = self.part(architecture, layer, part);
        if self == Self::Llama2c { name } else { name + ".weight" }
    }
}

fn llama2c(part: Part) -> &'static str {
    match part {
        Part::RmsAtt => "rms_att",
        Part::Wq => "wq",
        Part::Wk => "wk",
        Part::Wv => "wv",
        Part::Wo => "wo",
        Part::QNorm => "q_norm",
        Part::KNorm => "k_norm",
        Part::AttnSubNorm => "attn_sub_norm",
        Part::PostAttNorm => "post_att_norm",
        Part::RmsFfn => "rms_ffn",
        Part::W1 => "w1",
        Part::W2 => "w2",
        Part::W3 => "w3",
        Part::FfnSubNorm => "ffn_sub_norm",
        Part::PostFfnNorm => "post_ffn_norm",
    }
}

fn gguf(part: Part) -> &'static str {
    match part {
        Part::RmsAtt => "attn_norm",
        Part::Wq => "attn_q",
        Part::Wk => "attn_k",
        Part::Wv => "attn_v",
        Part::Wo => "attn_output",
        Part::QNorm => "attn_q_norm",
        Part::KNorm => "attn_k_norm",
        Part::AttnSubNorm => "attn_sub_norm",
        Part::PostAttNorm => "post_attention_norm",
        Part::RmsFfn => "ffn_norm",
        Part::W1 => "ffn_gate",
        Part::W2 => "ffn_down",
        Part::W3 => "ffn_up",
        Part::FfnSubNorm => "ffn_sub_norm",
        Part::PostFfnNorm => "post_ffw_norm",
    }
}

fn hugging_face(architecture: Architecture, part: Part) -> &'static str {
    match part {
        Part::RmsAtt => "input_layernorm",
        Part::Wq => "self_attn.q_proj",
        Part::Wk => "self_attn.k_proj",
        Part::Wv => "self_attn.v_proj",
        Part::Wo => "self_attn.o_proj",
        Part::QNorm => "self_attn.q_norm",
        Part::KNorm => "self_attn.k_norm",
        Part::AttnSubNorm => "self_attn.attn_sub_norm",
        Part::PostAttNorm => "post_attention_layernorm",
        // Llama names the norm before the feed-forward after what precedes it.
        Part::RmsFfn if architecture.has_post_norms() => "pre_feedforward_layernorm",
        Part::RmsFfn => "post_attention_layernorm",
        Part::W1 => "mlp.gate_proj",
        Part::W2 => "mlp.down_proj",
        Part::W3 => "mlp.up_proj",
        Part::FfnSubNorm => "mlp.ffn_sub_norm",
        Part::PostFfnNorm => "post_feedforward_layernorm",
    }
}
