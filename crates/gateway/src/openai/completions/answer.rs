//! The answer of `/v1/completions` when it is sent whole.

use std::collections::BTreeMap;

use engine::scheduler::TokenLogprob;
use serde::Serialize;
use utoipa::ToSchema;

use crate::card::Card;
use crate::collect::Answer;
use crate::ids;
use crate::openai::types::{TokenUsage, finish_reason};

/// What of the answers is wanted.
pub(crate) struct Shape {
    /// Choices of each prompt.
    pub(crate) n: usize,
    /// Jobs of each prompt.
    pub(crate) best_of: usize,
    /// Log-probabilities, with so many of the likeliest.
    pub(crate) logprobs: Option<usize>,
    /// The prompts, if they are to be given back.
    pub(crate) echo: Vec<Vec<u32>>,
}

impl Shape {
    /// The text of the prompt of job `index`, if it is to be given back.
    pub(crate) fn echoed(&self, card: &Card, index: usize) -> Option<String> {
        let ids = self.echo.get(index / self.best_of)?;
        card.tokenizer.as_ref()?.decode(ids).ok()
    }
}

/// A text that went on.
#[derive(Serialize, ToSchema)]
pub(crate) struct TextCompletion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<TextChoice>,
    usage: TokenUsage,
    system_fingerprint: &'static str,
}

/// One of the answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct TextChoice {
    pub(crate) text: String,
    pub(crate) index: usize,
    pub(crate) logprobs: Option<TextLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// Log-probabilities of an answer's tokens.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct TextLogprobs {
    tokens: Vec<String>,
    /// Null for a token that nothing comes before.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where each token begins in the text, in characters.
    text_offset: Vec<usize>,
    #[serde(skip)]
    length: usize,
}

impl TextLogprobs {
    /// Begins at a character of the text.
    pub(crate) fn at(length: usize) -> Self {
        Self { length, ..Self::default() }
    }

    /// Where the next token begins.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn push(&mut self, card: &Card, id: u32, logprob: Option<&TokenLogprob>) {
        let text = card.token_text(id);
        self.text_offset.push(self.length);
        self.length += text.chars().count();
        self.tokens.push(text);
        self.token_logprobs.push(logprob.map(|l| l.logprob));
        let top = |l: &TokenLogprob| l.top.iter().map(|&(id, p)| (card.token_text(id), p)).collect();
        self.top_logprobs.push(logprob.map(top));
    }
}

impl TextCompletion {
    /// The best answers of each prompt.
    pub(crate) fn new(card: &Card, answers: Vec<Answer>, shape: &Shape) -> Self {
        let usages: Vec<_> = answers.iter().map(|answer| answer.usage).collect();
        let mut choices = Vec::new();
        for (prompt, answers) in answers.chunks(shape.best_of).enumerate() {
            let mut best: Vec<&Answer> = answers.iter().collect();
            if shape.best_of > shape.n {
                best.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
            }
            for answer in best.into_iter().take(shape.n) {
                choices.push(choice(card, answer, shape, prompt, choices.len()));
            }
        }
        Self {
            id: ids::new("cmpl-"),
            object: "text_completion",
            created: ids::now(),
            model: card.name.clone(),
            choices,
            usage: TokenUsage::of(&usages, shape.best_of),
            system_fingerprint: crate::openai::chat::FINGERPRINT,
        }
    }
}

/// The mean log-probability of an answer's tokens, by which OpenAI ranks them.
fn mean(answer: &Answer) -> f32 {
    let sum: f32 = answer.logprobs.iter().map(|l| l.logprob).sum();
    sum / answer.logprobs.len().max(1) as f32
}

fn choice(card: &Card, answer: &Answer, shape: &Shape, prompt: usize, index: usize) -> TextChoice {
    let echoed = shape.echoed(card, prompt * shape.best_of).unwrap_or_default();
    let logprobs = shape.logprobs.map(|_| {
        let mut logprobs = TextLogprobs::default();
        if let Some(ids) = shape.echo.get(prompt) {
            for (i, &id) in ids.iter().enumerate() {
                logprobs.push(card, id, i.checked_sub(1).and_then(|i| answer.prompt.get(i)));
            }
        }
        answer.logprobs.iter().for_each(|l| logprobs.push(card, l.id, Some(l)));
        logprobs
    });
    TextChoice {
        text: echoed + &answer.text,
        index,
        logprobs,
        finish_reason: answer.reason.map(finish_reason),
    }
}
