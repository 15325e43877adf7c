//! How long a piece of a prompt may be, so that those who wait for their next token do not notice.

use std::time::Duration;

/// A step with a piece of a prompt takes at most this many times what one without takes.
const STRETCH: f64 = 2.0;

/// Part of a new measurement in the running means.
const WEIGHT: f64 = 0.2;

/// What steps cost, learned from those that were run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Seconds of a step in which every sequence answers.
    decode: Option<f64>,
    /// Seconds that one more token of a prompt costs.
    prompt_token: Option<f64>,
}

impl Pace {
    /// A step with `answers` and `prompt` tokens of either kind took `time`.
    pub fn measured(&mut self, answers: usize, prompt: usize, time: Duration) {
        let time = time.as_secs_f64();
        match (answers, prompt) {
            (0, 0) => {}
            (_, 0) => learn(&mut self.decode, time),
            (0, _) => learn(&mut self.prompt_token, time / prompt as f64),
            _ => {
                // More than the decoding alone: at least a little, or pieces would grow without bound.
                let alone = self.decode.unwrap_or(time / 2.0).min(time * 0.9);
                learn(&mut self.prompt_token, (time - alone) / prompt as f64);
            }
        }
    }

    /// Tokens of prompts that the next step may take: all of `capacity` while nobody answers.
    pub fn chunk(&self, answers: usize, capacity: usize) -> usize {
        if answers == 0 {
            return capacity;
        }
        let (Some(decode), Some(token)) = (self.decode, self.prompt_token) else {
            return (capacity / 4).max(1);
        };
        let tokens = (STRETCH - 1.0) * decode / token.max(1e-9);
        (tokens as usize).clamp(1, capacity.max(1))
    }
}

fn learn(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |mean| mean + WEIGHT * (value - mean)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_shrink_until_the_step_is_short_enough() {
        let mut pace = Pace::default();
        assert_eq!(pace.chunk(0, 64), 64);
        assert_eq!(pace.chunk(3, 64), 16);
        // 10 ms for the answers, 1 ms for each token of a prompt: ten of them double the step.
        for _ in 0..50 {
            pace.measured(3, 0, Duration::from_millis(10));
            let chunk = pace.chunk(3, 64);
            pace.measured(3, chunk, Duration::from_millis(10 + chunk as u64));
        }
        assert!((9..=10).contains(&pace.chunk(3, 64)), "{}", pace.chunk(3, 64));
        // The further the prompt, the dearer its tokens.
        for _ in 0..50 {
            pace.measured(3, 10, Duration::from_millis(60));
        }
        assert_eq!(pace.chunk(3, 64), 2);
        // However dear they are, the prompt moves on.
        (0..50).for_each(|_| pace.measured(3, 1, Duration::from_secs(1)));
        assert_eq!(pace.chunk(3, 64), 1);
    }
}
