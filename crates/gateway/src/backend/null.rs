//! A backend that costs nothing: what remains of a request's time is the server's own.

use std::collections::VecDeque;

use engine::chat_template::ChatTemplate;
use engine::scheduler::{Event, Job, Load, Reason, Refused, Stepped, Task, Usage};
use engine::tokenizer::{SpecialTokens, Token, TokenType, Tokenizer, TokenizerKind};

use super::{Backend, Card};

/// Tokens of an answer whose length the request does not say.
const DEFAULT_TOKENS: usize = 16;

/// Answers every request with the letter `a` again and again, as many tokens as were asked for.
#[derive(Debug, Default)]
pub struct NullBackend {
    jobs: VecDeque<(Job, usize)>,
    waiting: usize,
}

impl NullBackend {
    /// A backend that takes `waiting` jobs at most at a time.
    pub fn new(waiting: usize) -> Self {
        Self { jobs: VecDeque::new(), waiting }
    }
}

impl Backend for NullBackend {
    fn submit(&mut self, job: Job) -> Result<(), Refused> {
        if self.jobs.len() >= self.waiting && !job.follows {
            return Err(Refused::QueueFull { waiting: self.jobs.len() });
        }
        self.jobs.push_back((job, 0));
        Ok(())
    }

    fn cancel(&mut self, gone: &mut dyn FnMut(u64) -> bool) -> usize {
        let before = self.jobs.len();
        self.jobs.retain(|(job, _)| !gone(job.id));
        before - self.jobs.len()
    }

    fn step(&mut self, sink: &mut dyn FnMut(u64, Event)) -> Option<Stepped> {
        if self.jobs.is_empty() {
            return None;
        }
        let answers = self.jobs.len();
        self.jobs.retain_mut(|(job, produced)| {
            let usage = Usage {
                prompt_tokens: job.prompt.len(),
                completion_tokens: *produced + 1,
                ..Usage::default()
            };
            if job.task == Task::Embed {
                sink(job.id, Event::Embedded { vector: vec![1.0; 4], usage });
                return false;
            }
            *produced += 1;
            sink(job.id, Event::Token { id: u32::from(b'a'), text: "a".to_owned(), logprob: None });
            let goes_on = *produced < job.max_tokens.unwrap_or(DEFAULT_TOKENS);
            if !goes_on {
                sink(job.id, Event::Finished { text: String::new(), reason: Reason::Length, usage });
            }
            goes_on
        });
        Some(Stepped { answers, prompt_tokens: 0 })
    }

    fn load(&self) -> Load {
        Load { running: self.jobs.len(), ..Load::default() }
    }
}

/// A vocabulary of the 256 bytes and as many words as there are ids beside them, and a plain chat template: for models that
/// have no language.
pub(crate) fn placeholders(vocab_size: usize) -> (Option<Tokenizer>, Option<ChatTemplate>) {
    let text = |id: usize| if id < 256 { format!("<0x{id:02X}>") } else { format!(" w{id}") };
    let texts: Vec<String> = (0..vocab_size).map(text).collect();
    let tokens = texts.iter().enumerate().map(|(id, text)| Token {
        text: text.as_bytes(),
        score: 0.0,
        kind: if id < 256 { TokenType::Byte } else { TokenType::Normal },
    });
    let tokenizer = Tokenizer::sentencepiece(TokenizerKind::SentencePiece, tokens, SpecialTokens::default());
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    (tokenizer.ok(), ChatTemplate::from_source(template, "", "").ok())
}

/// The card of a [`NullBackend`].
pub fn null_card(name: &str) -> Card {
    let (tokenizer, template) = placeholders(256);
    Card {
        name: name.to_owned(),
        created: 0,
        tokenizer,
        template,
        context: 1 << 20,
        trained_context: 1 << 20,
        vocab_size: 256,
        eos: Vec::new(),
        dim: 4,
        architecture: "null".to_owned(),
        format: "none".to_owned(),
        quantization: "none".to_owned(),
        parameters: 0,
        file_bytes: 0,
        memory_bytes: 0,
    }
}
