//! Texts as vectors: the mean of the tokens' hidden states after the last norm, brought to length one.

use std::sync::Arc;

use engine::scheduler::{Job, Task};

use crate::collect::collect;
use crate::engine_thread::Handle;
use crate::error::ApiError;
use crate::generation::submit;
use crate::limits;
use crate::prompt::fits;

/// Vectors of several texts, and the tokens of all of them.
pub(crate) struct Embedded {
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) tokens: usize,
}

/// The vectors of prompts, which a request calls `param`.
///
/// # Errors
/// 400 for an empty or too long one, or too many.
pub(crate) async fn embed(
    handle: Arc<Handle>,
    prompts: Vec<Vec<u32>>,
    user: u64,
    param: &str,
) -> Result<Embedded, ApiError> {
    if prompts.is_empty() || prompts.len() > limits::PROMPTS {
        return Err(ApiError::param(param, format!("1 to {} inputs", limits::PROMPTS)));
    }
    let mut embedded = Embedded { vectors: Vec::with_capacity(prompts.len()), tokens: 0 };
    let mut jobs = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        if let Some(id) = prompt.iter().find(|id| **id as usize >= handle.card.vocab_size) {
            return Err(ApiError::param(param, format!("token {id} is not in the vocabulary")));
        }
        let prompt = fits(&handle.card, prompt, param)?;
        jobs.push(Job { user, task: Task::Embed, prompt, max_tokens: Some(0), ..Job::default() });
    }
    for answer in collect(submit(handle, jobs).await?).await? {
        embedded.tokens += answer.usage.prompt_tokens;
        embedded.vectors.push(unit(answer.vector));
    }
    Ok(embedded)
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    vector
}
