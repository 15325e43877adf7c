//! Models of a true shape with random weights, made in memory: speed does not depend on what the weights are, so
//! nothing need be downloaded to measure it.
//!
//! The weights are normally distributed with a variance of one over the row's length, so that every activation
//! keeps about its size and the logits stay finite. They are drawn block by block from a pool of blocks made
//! beforehand, which is as fast as copying.

use std::path::PathBuf;

use kernels::codec::quantize_row;
use kernels::row::RowType;

use crate::config::{Activation, Architecture, ModelConfig, Pairing, Rope};
use crate::error::EngineError;
use crate::loader::Loaded;
use crate::model::{LoadOptions, Model, ModelInfo, TensorSummary};
use crate::stored::StoredType;
use crate::weights::{Layer, Linear, WeightMatrix, Weights};

/// Longest context: more than any of the models was made for, so that growth with the context can be measured.
const SEQ_LEN: usize = 1 << 15;

/// Blocks in a pool: few enough to stay in the second-level cache.
const POOL: usize = 1024;

/// Weights of a block in a pool, save where the type has larger blocks of its own.
const POOL_WEIGHTS: usize = 64;

/// A shape that models are measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// BitNet b1.58 2B-4T.
    Bitnet2b,
    /// Llama 3.2 1B.
    Llama1b,
    /// llama2.c's stories110M.
    Stories110m,
    /// SmolLM2-135M.
    Smollm135m,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bitnet2b, Self::Llama1b, Self::Stories110m, Self::Smollm135m];

    /// The name that the command line takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bitnet2b => "bitnet-2b",
            Self::Llama1b => "llama-1b",
            Self::Stories110m => "stories110m",
            Self::Smollm135m => "smollm-135m",
        }
    }

    /// What the shape is. `int8_linear` as in [`ModelConfig`].
    fn config(self, int8_linear: bool) -> ModelConfig {
        let llama = |dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, theta| ModelConfig {
            architecture: Architecture::Llama,
            dim,
            hidden_dim,
            n_layers,
            n_heads,
            n_kv_heads,
            head_dim: dim / n_heads,
            vocab_size,
            seq_len: SEQ_LEN,
            norm_eps: 1e-5,
            activation: Activation::Silu,
            pairing: Pairing::Adjacent,
            rope: Rope::new(theta),
            sliding_window: None,
            embedding_scale: 1.0,
            attention_scale: ((dim / n_heads) as f32).sqrt().recip(),
            int8_linear,
            norm_weight_offset: 0.0,
        };
        match self {
            Self::Bitnet2b => ModelConfig {
                architecture: Architecture::BitNet,
                activation: Activation::Relu2,
                pairing: Pairing::Half,
                ..llama(2560, 6912, 30, 20, 5, 128_256, 500_000.0)
            },
            Self::Llama1b => llama(2048, 8192, 16, 32, 8, 128_256, 500_000.0),
            Self::Stories110m => llama(768, 2048, 12, 12, 12, 32_000, 10_000.0),
            Self::Smollm135m => llama(576, 1536, 30, 9, 3, 49_152, 100_000.0),
        }
    }

    /// The type of the embedding, which is also the classifier in all these models, beside layers of a type:
    /// what other engines' tools choose for it.
    pub fn default_head(self, layers: StoredType) -> StoredType {
        match layers {
            StoredType::F32 | StoredType::F16 | StoredType::Int8 => layers,
            // A row of 576 is not whole blocks of 256.
            _ if self == Self::Smollm135m => StoredType::Int8,
            _ => StoredType::Q6K,
        }
    }
}

/// A model to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synthetic {
    /// Its shape.
    pub shape: Shape,
    /// Type of the matrices of its layers.
    pub layers: StoredType,
    /// Type of its embedding, which is also its classifier.
    pub head: StoredType,
}

impl Model {
    /// Makes a model with random weights. The same call makes the same weights.
    ///
    /// Errors: a type whose blocks do not fit the shape, or that random rows cannot be made of (T-MAC v1).
    pub fn synthetic(what: Synthetic, options: &LoadOptions) -> Result<Self, EngineError> {
        let config =
            what.shape.config(what.shape == Shape::Bitnet2b && matches!(what.layers, StoredType::Ternary));
        let path = PathBuf::from(format!("{}-{}", what.shape.name(), what.layers.name()));
        Self::new(made(config, what.layers, what.head, path)?, options)
    }
}

/// A model of this configuration with random weights.
fn made(
    config: ModelConfig,
    layers: StoredType,
    head: StoredType,
    path: PathBuf,
) -> Result<Loaded, EngineError> {
    let mut maker = Maker { random: Random(0x0E1D_6E11_3141_5926), tensors: Vec::new() };
    let c = &config;
    let sub_norm = |len| c.architecture.has_sub_norms().then(|| vec![1.0; len]);
    let token_embedding = maker.matrix("token_embedding".to_owned(), head, c.vocab_size, c.dim)?;
    let mut blocks = Vec::with_capacity(c.n_layers);
    for l in 0..c.n_layers {
        let mut linear = |name, rows, cols| -> Result<Linear, EngineError> {
            let weight = maker.matrix(format!("layers.{l}.{name}"), layers, rows, cols)?;
            Ok(Linear { weight, bias: None })
        };
        blocks.push(Layer {
            rms_att: vec![1.0; c.dim],
            wq: linear("wq", c.q_dim(), c.dim)?,
            wk: linear("wk", c.kv_dim(), c.dim)?,
            wv: linear("wv", c.kv_dim(), c.dim)?,
            wo: linear("wo", c.dim, c.q_dim())?,
            q_norm: None,
            k_norm: None,
            attn_sub_norm: sub_norm(c.q_dim()),
            post_att_norm: None,
            rms_ffn: vec![1.0; c.dim],
            w1: linear("w1", c.hidden_dim, c.dim)?,
            w2: linear("w2", c.dim, c.hidden_dim)?,
            w3: linear("w3", c.hidden_dim, c.dim)?,
            ffn_sub_norm: sub_norm(c.hidden_dim),
            post_ffn_norm: None,
        });
    }
    let weights =
        Weights { token_embedding, layers: blocks, rms_final: vec![1.0; c.dim], wcls: None, scan: None };
    let tensors = maker.tensors;
    let info = ModelInfo {
        path,
        format: "random weights in memory".to_owned(),
        file_bytes: tensors.iter().map(|t| t.bytes).sum(),
        parameters: tensors.iter().map(|t| t.shape.iter().product::<u64>()).sum(),
        tensors,
    };
    Ok(Loaded { config, weights, tokenizer: None, chat_template: None, eos: Vec::new(), info })
}

struct Maker {
    random: Random,
    tensors: Vec<TensorSummary>,
}

impl Maker {
    fn matrix(
        &mut self,
        name: String,
        stored: StoredType,
        rows: usize,
        cols: usize,
    ) -> Result<WeightMatrix, EngineError> {
        let bytes = random_rows(&mut self.random, stored, rows, cols)?;
        let (matrix, summary) = stored.matrix(name, (rows, cols), bytes);
        self.tensors.push(summary);
        Ok(matrix)
    }
}

/// `rows` rows of `cols` random weights.
fn random_rows(
    random: &mut Random,
    stored: StoredType,
    rows: usize,
    cols: usize,
) -> Result<Vec<u8>, EngineError> {
    let row_bytes = stored.row_bytes(cols)?;
    let (header, blocks) = pool(random, stored, cols)?;
    let mut out = vec![0; rows * row_bytes];
    for row in out.chunks_exact_mut(row_bytes) {
        let (start, rest) = row.split_at_mut(header.len());
        start.copy_from_slice(&header);
        for part in rest.chunks_mut(blocks[0].len()) {
            let block = &blocks[random.below(POOL)];
            part.copy_from_slice(&block[..part.len()]);
        }
    }
    Ok(out)
}

/// What a row begins with, and the blocks that the rest of it is made of.
fn pool(
    random: &mut Random,
    stored: StoredType,
    cols: usize,
) -> Result<(Vec<u8>, Vec<Vec<u8>>), EngineError> {
    if stored == StoredType::TmacV1 {
        // Without a scale, weights have no size that could be chosen.
        return Err(EngineError::Request(format!("no random weights of type {}", stored.name())));
    }
    let row_type = stored.row_type();
    let deviation = (cols as f32).sqrt().recip();
    if row_type == RowType::Q6_K {
        return Ok((Vec::new(), (0..POOL).map(|_| random.q6_k(deviation)).collect()));
    }
    let header = row_type.header_bytes();
    let bytes = stored.row_bytes(POOL_WEIGHTS)?;
    let block = |random: &mut Random| {
        let weights: Vec<f32> = (0..POOL_WEIGHTS).map(|_| random.normal() * deviation).collect();
        let mut block = vec![0; bytes];
        quantize_row(row_type, &weights, &mut block).map(|()| block)
    };
    let made: Result<Vec<Vec<u8>>, _> = (0..POOL).map(|_| block(random)).collect();
    let mut blocks = made.map_err(|err| EngineError::Request(err.to_string()))?;
    // All rows share the first block's header, and with it its scale.
    let first = blocks[0][..header].to_vec();
    for block in &mut blocks {
        block.drain(..header);
    }
    Ok((first, blocks))
}

/// Random numbers good enough for weights: SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Mean 0, variance 1, nearly normal: the sum of twelve uniform numbers less its mean.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
    }

    /// A block of Q6_K: random codes and scales, and the factor that gives the weights their deviation.
    fn q6_k(&mut self, deviation: f32) -> Vec<u8> {
        // `ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16`
        let mut block: Vec<u8> = (0..192).map(|_| self.next() as u8).collect();
        block.extend((0..16).map(|_| 32 + self.below(32) as u8));
        // Codes of -32..32 deviate by 18.5, scales are 47.5 on average.
        block.extend(half::f16::from_f32(deviation / (18.5 * 47.5)).to_le_bytes());
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Sequence;

    fn tiny(architecture: Architecture) -> ModelConfig {
        ModelConfig {
            architecture,
            dim: 256,
            hidden_dim: 512,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 64,
            vocab_size: 300,
            ..Shape::Bitnet2b.config(architecture == Architecture::BitNet)
        }
    }

    #[test]
    fn logits_are_finite_and_of_the_size_of_one() {
        for layers in
            [StoredType::F32, StoredType::F16, StoredType::Int8, StoredType::Int4, StoredType::Ternary]
        {
            for head in [layers, StoredType::Q6K] {
                for architecture in [Architecture::BitNet, Architecture::Llama] {
                    let loaded = made(tiny(architecture), layers, head, PathBuf::from("tiny")).unwrap();
                    let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
                    let model = Model::new(loaded, &options).unwrap();
                    let mut sequence = Sequence::new(&model, 8).unwrap();
                    let logits = sequence.forward(&[1, 2, 3, 4]).unwrap();
                    let mean_square = logits.iter().map(|x| x * x).sum::<f32>() / logits.len() as f32;
                    assert!((0.25..4.0).contains(&mean_square), "{layers:?} {head:?}: {mean_square}");
                }
            }
        }
    }

    #[test]
    fn memory_is_foreseen() {
        for layers in [StoredType::F32, StoredType::Int8, StoredType::Int4, StoredType::Ternary] {
            for (head, vocab_size) in [(StoredType::Q6K, 300), (layers, 17_000), (StoredType::F16, 300)] {
                let memory = |only_described| {
                    let config = ModelConfig { vocab_size, ..tiny(Architecture::Llama) };
                    let loaded = made(config, layers, head, PathBuf::from("tiny")).unwrap();
                    let options = LoadOptions { only_described, threads: Some(2), ..LoadOptions::default() };
                    Model::new(loaded, &options).unwrap().memory(64)
                };
                assert_eq!(memory(true), memory(false), "{layers:?} {head:?} {vocab_size}");
            }
        }
    }

    #[test]
    fn shapes_have_the_published_numbers_of_parameters() {
        // Norms apart, which are a few thousandths.
        for (shape, parameters) in [
            (Shape::Bitnet2b, 2_412_820_480u64),
            (Shape::Llama1b, 1_235_814_400),
            (Shape::Stories110m, 109_529_856),
            (Shape::Smollm135m, 134_515_008),
        ] {
            let c = shape.config(false);
            assert!(c.check().is_ok());
            let layer = 2 * c.dim * (c.q_dim() + c.kv_dim()) + 3 * c.dim * c.hidden_dim;
            let all = (c.vocab_size * c.dim + c.n_layers * layer) as u64;
            assert!(all.abs_diff(parameters) * 1000 < parameters, "{shape:?}: {all}");
        }
    }

    #[test]
    fn weights_are_the_same_each_time_and_rows_differ() {
        let rows = || random_rows(&mut Random(7), StoredType::Ternary, 4, 200).unwrap();
        let bytes = rows();
        assert_eq!(bytes, rows());
        assert_eq!(bytes.len(), 4 * 52);
        assert_eq!(bytes[..2], bytes[52..54]);
        assert_ne!(bytes[2..52], bytes[54..104]);
    }

    #[test]
    fn types_that_do_not_fit_are_refused() {
        let refused = |stored, cols| random_rows(&mut Random(7), stored, 1, cols).unwrap_err().to_string();
        assert!(refused(StoredType::Q6K, 576).contains("q6_k"));
        assert!(refused(StoredType::TmacV1, 576).contains("tmac1"));
    }
}
