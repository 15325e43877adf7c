//! Guessing what comes next from the text so far, to check several tokens in one pass over the weights.
//!
//! Prompt lookup (Saxena, "Prompt Lookup Decoding", 2023): where the last few tokens have stood before, what followed them
//! there is the guess. The model runs the guess as one batch, and the sampler chooses at every position as it would have
//! alone: a guess that differs from the choice is forgotten with all behind it. So the text is the same, and takes fewer
//! passes where it repeats itself or its prompt.

use crate::batch::LogitsOf;
use crate::error::EngineError;
use crate::sequence::Sequence;

/// Tokens that have to have stood before in the same order; tried from the largest number down.
const MATCHED: [usize; 3] = [4, 3, 2];

/// A sequence that goes on by one token at a time, and runs guesses with it.
pub(crate) struct Lookahead<'s, 'm> {
    sequence: &'s mut Sequence<'m>,
    wanted: LogitsOf,
    /// Tokens of a guess at most.
    most: usize,
    /// All tokens so far.
    history: Vec<u32>,
    /// The tokens that were run behind the last wrong guess: the one that was chosen, then a guess.
    run: Vec<u32>,
    /// How many of `run` are the choice.
    agreed: usize,
    /// Tokens guessed, and how many of them were right.
    pub(crate) guessed: usize,
    pub(crate) right: usize,
}

impl<'s, 'm> Lookahead<'s, 'm> {
    /// Runs `prompt`, and guesses at most `most` tokens at once from then on; room is made for `max_tokens` more.
    pub(crate) fn new(
        sequence: &'s mut Sequence<'m>,
        prompt: &[u32],
        wanted: LogitsOf,
        most: usize,
        max_tokens: usize,
    ) -> Result<Self, EngineError> {
        sequence.forward_for(prompt, wanted)?;
        let mut history = Vec::new();
        if most > 0 {
            history.reserve(prompt.len() + max_tokens);
            history.extend_from_slice(prompt);
        }
        let run = Vec::with_capacity(most + 1);
        Ok(Self { sequence, wanted, most, history, run, agreed: 0, guessed: 0, right: 0 })
    }

    /// The logits behind the last token, `[vocab_size]`.
    pub(crate) fn logits(&self) -> &[f32] {
        self.sequence.logits_of_row(self.agreed.saturating_sub(1))
    }

    /// Goes on with `id`. At most `left` tokens will follow it.
    pub(crate) fn push(&mut self, id: u32, left: usize) -> Result<(), EngineError> {
        if self.most == 0 {
            self.sequence.forward_for(&[id], self.wanted)?;
            return Ok(());
        }
        self.history.push(id);
        if self.run.get(self.agreed) == Some(&id) {
            self.agreed += 1;
            self.right += 1;
            return Ok(());
        }
        let wrong = self.run.len() - self.agreed;
        self.sequence.truncate(self.sequence.position() - wrong);
        self.run.clear();
        self.run.push(id);
        let room = self.sequence.context().saturating_sub(self.sequence.position() + 1);
        if let Some(guess) = following(&self.history) {
            let guess = &guess[..guess.len().min(self.most).min(room).min(left)];
            self.guessed += guess.len();
            self.run.extend_from_slice(guess);
        }
        self.agreed = 1;
        let wanted = if self.run.len() > 1 { LogitsOf::All } else { self.wanted };
        self.sequence.forward_for(&self.run, wanted)?;
        Ok(())
    }
}

impl Drop for Lookahead<'_, '_> {
    /// What was guessed and not chosen is no part of the text.
    fn drop(&mut self) {
        let wrong = self.run.len() - self.agreed;
        self.sequence.truncate(self.sequence.position() - wrong);
    }
}

/// What followed the last tokens where they stood before, the last time that they did.
fn following(history: &[u32]) -> Option<&[u32]> {
    MATCHED.into_iter().find_map(|n| {
        let (before, last) = history.split_at_checked(history.len().checked_sub(n)?)?;
        // The place itself is not meant, but one that overlaps it may be: a text that repeats one word.
        let at = (0..before.len()).rev().find(|&at| &history[at..at + n] == last)?;
        Some(&history[at + n..])
    })
}

#[cfg(test)]
mod tests {
    use super::following;

    #[test]
    fn the_longest_and_latest_match_tells_what_follows() {
        assert_eq!(following(&[1, 2, 3, 9, 9]), None);
        assert_eq!(following(&[1, 2, 5, 6, 1, 2]), Some(&[5, 6, 1, 2][..]));
        assert_eq!(following(&[1, 2, 5, 1, 2, 6, 1, 2]), Some(&[6, 1, 2][..]));
        assert_eq!(following(&[0, 1, 2, 5, 7, 1, 2, 6, 0, 1, 2]), Some(&[5, 7, 1, 2, 6, 0, 1, 2][..]));
        assert_eq!(following(&[4, 4, 4]), Some(&[4][..]));
        assert_eq!(following(&[]), None);
        assert_eq!(following(&[7]), None);
    }
}
