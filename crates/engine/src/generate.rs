//! Prompt in, text out: the loop of sampling, stopping and streaming.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::draft::Lookahead;
use crate::error::EngineError;
use crate::model::Model;
use crate::sampler::{Sampler, Sampling};
use crate::sequence::Sequence;
use crate::stop::StopStrings;

/// What to generate.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerateOptions {
    /// Tokens at most; `None` until the context is full.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Whether the model's end tokens are generated through like any other.
    pub ignore_eos: bool,
    /// Tokens that are guessed at once from the text so far and checked together; 0 for none. The text is the same.
    pub draft: usize,
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model's end token, or a stop string.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
    /// The caller asked for it.
    Cancelled,
}

impl FinishReason {
    /// OpenAI's words, and `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A step of the answer, as it becomes certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<'a> {
    /// The token that was chosen.
    pub id: u32,
    /// Text that is certain now: whole characters, and nothing that may still become a stop string. Often the
    /// token's own text, sometimes empty, sometimes that of several tokens.
    pub text: &'a str,
}

/// How long it took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timings {
    /// From the start to the first chosen token.
    pub ttft: Duration,
    /// The prompt's forward passes.
    pub prefill: Duration,
    /// Tokens of the prompt that were run.
    pub prefill_tokens: usize,
    /// All forward passes and choices after the first token.
    pub decode: Duration,
    /// Tokens of which `decode` is the time.
    pub decode_tokens: usize,
    /// Tokens that were guessed ([`GenerateOptions::draft`]).
    pub drafted: usize,
    /// Those of them that were right.
    pub accepted: usize,
}

impl Timings {
    /// Prompt tokens a second.
    pub fn prefill_tok_s(&self) -> f64 {
        per_second(self.prefill_tokens, self.prefill)
    }

    /// Generated tokens a second, the first (which the prefill pays for) apart.
    pub fn decode_tok_s(&self) -> f64 {
        per_second(self.decode_tokens, self.decode)
    }
}

fn per_second(n: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { n as f64 / time.as_secs_f64() }
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Chosen tokens; an end token is the last of them.
    pub ids: Vec<u32>,
    /// Their text, without a stop string.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// How long it took.
    pub timings: Timings,
}

/// Bytes of text that a token has on average, rather more than less: room for the answer is made beforehand, and
/// the loop allocates nothing.
const TOKEN_TEXT: usize = 8;

/// Bytes of text that become certain at once without an allocation.
const TOKEN_ROOM: usize = 1024;

/// Runs `prompt` through `sequence` (which may hold earlier tokens) and generates. `each` sees every step and
/// may end the run. Without a tokenizer the texts are empty.
///
/// Errors: an empty prompt, ids outside the vocabulary, a prompt that does not fit the context (nothing is
/// cut off silently), parameters out of range, logits that are not finite.
pub fn generate(
    model: &Model,
    sequence: &mut Sequence<'_>,
    prompt: &[u32],
    options: &GenerateOptions,
    each: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Generated, EngineError> {
    options.sampling.check(model.config.vocab_size)?;
    let started = Instant::now();
    let mut sampler = Sampler::new(options.sampling.clone());
    let mut decoder = model.tokenizer.as_ref().map(|t| t.decoder_after(prompt)).transpose()?;
    let mut stop = StopStrings::new(&options.stop);
    let room = sequence.context().saturating_sub(sequence.position()).saturating_sub(prompt.len());
    // The last token of an answer need not be run, so one more fits than there are positions.
    let max_tokens = options.max_tokens.unwrap_or(usize::MAX).min(room + 1);
    sampler.reserve(prompt.len() + max_tokens, model.config.vocab_size);
    prompt.iter().for_each(|&id| sampler.accept(id));

    let mut timings = Timings { prefill_tokens: prompt.len(), ..Timings::default() };
    let wanted = options.sampling.logits();
    let mut ahead = Lookahead::new(sequence, prompt, wanted, options.draft, max_tokens)?;
    timings.prefill = started.elapsed();
    let mut answer = Generated {
        ids: Vec::with_capacity(max_tokens),
        text: String::with_capacity(max_tokens.saturating_mul(TOKEN_TEXT)),
        finish_reason: FinishReason::Length,
        timings,
    };
    let mut text = String::with_capacity(TOKEN_ROOM);
    let decode_started = Instant::now();
    while answer.ids.len() < max_tokens {
        let id = sampler.sample(ahead.logits());
        sampler.accept(id);
        answer.ids.push(id);
        if answer.ids.len() == 1 {
            answer.timings.ttft = started.elapsed();
        }
        let ends = !options.ignore_eos && model.eos.binary_search(&id).is_ok();
        // A model may have more embeddings than its tokenizer has tokens: the padding has no text.
        let has_text = model.tokenizer.as_ref().is_some_and(|t| (id as usize) < t.vocab_size());
        if has_text
            && !ends
            && let Some(decoder) = &mut decoder
        {
            text.clear();
            decoder.push_to(id, &mut text)?;
            stop.push(&text);
        }
        text.clear();
        stop.take_certain(&mut text);
        answer.text.push_str(&text);
        let flow = each(Step { id, text: &text });
        if ends || stop.found().is_some() {
            answer.finish_reason = FinishReason::Stop;
            break;
        }
        if flow.is_break() {
            answer.finish_reason = FinishReason::Cancelled;
            break;
        }
        if answer.ids.len() < max_tokens {
            ahead.push(id, max_tokens - answer.ids.len())?;
            answer.timings.decode_tokens += 1;
        }
    }
    answer.timings.decode = decode_started.elapsed();
    answer.timings.drafted = ahead.guessed;
    answer.timings.accepted = ahead.right;
    // What was held back as the possible start of a stop string or of a character is text after all.
    if let Some(decoder) = decoder
        && stop.found().is_none()
    {
        stop.push(&decoder.finish());
        let rest = stop.finish();
        answer.text.push_str(&rest);
        if let (false, Some(&id)) = (rest.is_empty(), answer.ids.last()) {
            // The answer has ended, so there is nothing left for the caller to stop.
            let _ = each(Step { id, text: &rest });
        }
    }
    Ok(answer)
}
