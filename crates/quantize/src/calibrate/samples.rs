//! The text that a model is calibrated on, as runs of tokens.

use engine::Model;
use engine::tokenizer::EncodeOptions;

use crate::quantize::QuantizeError;

/// Tokens of a sample by default.
pub const SAMPLE_TOKENS: usize = 256;
/// Samples by default.
const SAMPLES: usize = 128;
/// Fewer tokens than this say too little about any model.
const MIN_TOKENS: usize = 512;

/// A calibration text and how much of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Samples; as many of 128 as the text has by default.
    pub samples: Option<usize>,
    /// Tokens of a sample; at most what the model was made for.
    pub tokens: usize,
}

impl Text {
    /// The sample that ships with the project: public-domain prose.
    pub fn shipped() -> Self {
        Self { text: include_str!("../../data/sample.txt").to_owned(), samples: None, tokens: SAMPLE_TOKENS }
    }

    /// The samples, spread evenly over the text, each with the model's first token where it has one.
    ///
    /// # Errors
    /// No tokenizer; a text that is shorter than asked, or too short to say anything.
    pub(crate) fn samples(&self, model: &Model) -> Result<Vec<Vec<u32>>, QuantizeError> {
        let tokenizer = model.need_tokenizer()?;
        let options = EncodeOptions { add_special: false, parse_special: true };
        let ids = tokenizer.encode(&self.text, options).map_err(engine::EngineError::from)?;
        let vocab_size = model.config.vocab_size;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            let problem =
                format!("the tokenizer gives id {id}, the model has {vocab_size} embeddings: take its own");
            return Err(QuantizeError::option("--tokenizer", problem));
        }
        let length = self.tokens.min(model.config.seq_len);
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        let own = length.saturating_sub(bos.iter().count()).max(1);
        let there = ids.len() / own;
        let wanted = self.samples.unwrap_or(SAMPLES.min(there));
        if ids.len() < MIN_TOKENS || wanted > there || wanted == 0 {
            let problem = format!(
                "the text has {} tokens, {there} samples of {own}: {} are asked for, and at least {MIN_TOKENS} tokens: \
                 give a longer text or a smaller --num-samples",
                ids.len(),
                wanted.max(1)
            );
            return Err(QuantizeError::option("--calibration-data", problem));
        }
        let last = ids.len() - own;
        let sample = |i: usize| {
            let start = if wanted == 1 { 0 } else { last * i / (wanted - 1) };
            bos.into_iter().chain(ids[start..start + own].iter().copied()).collect()
        };
        Ok((0..wanted).map(sample).collect())
    }
}
