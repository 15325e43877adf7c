//! What the events of chats and completions have in common.

use std::sync::Arc;

use engine::EngineError;
use engine::scheduler::Usage;
use serde::Serialize;
use serde_json::json;

use super::types::{StreamOptions, TokenUsage};
use crate::engine_thread::Handle;
use crate::error::ApiError;
use crate::ids;
use crate::openai::chat::FINGERPRINT;
use crate::stream::data;

/// Whether a stream ends with its usage.
///
/// # Errors
/// 400 for options of a stream that is none, and those that cannot be honoured.
pub(crate) fn include_usage(options: Option<&StreamOptions>, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = options else { return Ok(false) };
    if !stream {
        return Err(ApiError::param("stream_options", "only allowed when 'stream' is true"));
    }
    if options.include_obfuscation == Some(true) {
        let name = "stream_options.include_obfuscation";
        return Err(ApiError::unsupported(name, "nothing is added to hide lengths"));
    }
    Ok(options.include_usage.unwrap_or(false))
}

/// One event of the stream.
#[derive(Serialize)]
struct Chunk<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: &'a [C],
    /// Left out unless it was asked for; then null in all events but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<TokenUsage>>,
}

/// The events of one answer.
pub(crate) struct Chunks {
    pub(crate) handle: Arc<Handle>,
    object: &'static str,
    id: String,
    created: u64,
    include_usage: bool,
    usages: Vec<(usize, Usage)>,
    failed: bool,
}

impl Chunks {
    /// Events of this `object`, with an id that begins so.
    pub(crate) fn new(handle: Arc<Handle>, object: &'static str, id: &str, include_usage: bool) -> Self {
        Self {
            handle,
            object,
            id: ids::new(id),
            created: ids::now(),
            include_usage,
            usages: Vec::new(),
            failed: false,
        }
    }

    /// Writes an event with these choices.
    pub(crate) fn write(&self, choices: &[impl Serialize], out: &mut Vec<u8>) {
        self.chunk(choices, None, out);
    }

    fn chunk(&self, choices: &[impl Serialize], usage: Option<TokenUsage>, out: &mut Vec<u8>) {
        let chunk = Chunk {
            id: &self.id,
            object: self.object,
            created: self.created,
            model: &self.handle.card.name,
            system_fingerprint: FINGERPRINT,
            choices,
            usage: self.include_usage.then_some(usage),
        };
        data(&chunk, out);
    }

    /// Job `index` has ended and used this.
    pub(crate) fn finished(&mut self, index: usize, usage: Usage) {
        self.usages.push((index, usage));
    }

    /// A job cannot go on.
    pub(crate) fn failed(&mut self, error: EngineError, out: &mut Vec<u8>) {
        self.failed = true;
        data(&json!({ "error": ApiError::from(error).object() }), out);
    }

    /// All jobs have ended, of which so many after each other shared a prompt.
    pub(crate) fn end(&mut self, jobs_per_prompt: usize, out: &mut Vec<u8>) {
        if self.include_usage && !self.failed {
            self.usages.sort_unstable_by_key(|(index, _)| *index);
            let usages: Vec<Usage> = self.usages.iter().map(|(_, usage)| *usage).collect();
            self.chunk(&[(); 0], Some(TokenUsage::of(&usages, jobs_per_prompt)), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}
