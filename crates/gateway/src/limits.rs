//! Every bound on what comes in, on one page.

use std::time::Duration;

/// Bytes of a request's body.
pub const BODY: usize = 16 << 20;
/// Bytes of an uploaded file.
pub const FILE: usize = 256 << 20;
/// Bytes of a request's head.
pub const HEAD: usize = 64 << 10;
/// From the first byte of a connection, or the end of the request before, to the end of the next request's head.
pub const HEAD_TIME: Duration = Duration::from_secs(15);
/// From the end of the head to the end of the body.
pub const BODY_TIME: Duration = Duration::from_secs(60);
/// How long a client may take none of what it is sent.
pub const WRITE_TIME: Duration = Duration::from_secs(60);
/// Between two pings of a connection of HTTP/2, and how long its answer may take.
pub const PING: Duration = Duration::from_secs(20);
/// Connections at a time.
pub const CONNECTIONS: usize = 4096;
/// Choices of one request.
pub const CHOICES: usize = 16;
/// Prompts of one request for completions, and inputs of one for embeddings.
pub const PROMPTS: usize = 256;
/// Stop strings of a request.
pub const STOPS: usize = 16;
/// Bytes of a stop string.
pub const STOP_BYTES: usize = 1024;
/// Likeliest tokens told for each place.
pub const TOP_LOGPROBS: usize = 20;
/// Entries of a logit_bias.
pub const LOGIT_BIAS: usize = 1024;
/// Messages of a conversation.
pub const MESSAGES: usize = 4096;
/// Tools of a conversation.
pub const TOOLS: usize = 128;
/// Bytes of a JSON schema or grammar.
pub const GRAMMAR: usize = 256 << 10;
/// Between two signs of life of a stream in which nothing happens.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Commands on their way to a model's thread.
pub const COMMANDS: usize = 256;
/// What clients are told to wait when the queue is full.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Requests of a batch.
pub const BATCH: usize = 50_000;
/// Uploaded files, and batches, at a time.
pub const FILES: usize = 10_000;
/// From the end of the head to the end of an uploaded file.
pub const UPLOAD_TIME: Duration = Duration::from_secs(600);
