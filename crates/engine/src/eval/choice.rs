//! Multiple-choice questions, answered by likelihood: the choice is taken that the model finds most likely behind the
//! question.

use thiserror::Error;

use super::log_softmax_at;
use super::questions::{Question, RowError};
use crate::error::EngineError;
use crate::model::Model;
use crate::sequence::Sequence;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Why questions could not be answered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChoiceError {
    /// A question that this model cannot take.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The model.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A share of the questions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// From 0 to 1.
    pub mean: f64,
    /// Standard error of the mean, sqrt(p (1 - p) / (n - 1)); `None` of a single question.
    pub standard_error: Option<f64>,
}

/// Result of [`choice`].
#[derive(Debug, Clone, PartialEq)]
pub struct Choices {
    /// Questions whose right choice has the largest log likelihood.
    pub accuracy: Share,
    /// Questions whose right choice has the largest log likelihood a byte: longer choices are not less likely for being
    /// longer.
    pub accuracy_per_byte: Share,
    /// What guessing would give.
    pub chance: f64,
    /// The log likelihoods of each question's choices, in nats.
    pub log_likelihoods: Vec<Vec<f64>>,
}

/// A question as tokens.
struct Encoded {
    /// What all choices begin with: at least one token.
    prefix: Vec<u32>,
    /// The rest of each: at least one token.
    choices: Vec<Vec<u32>>,
}

/// Answers all questions. `progress` hears of questions done, of all questions, and of the share that was right so far.
///
/// # Errors
/// No questions; no tokenizer; a question that is too long for the model, told before any is answered; logits that are not
/// finite.
pub fn choice(
    model: &Model,
    questions: &[Question],
    progress: &mut dyn FnMut(usize, usize, f64),
) -> Result<Choices, ChoiceError> {
    if questions.is_empty() {
        return Err(EngineError::Request("there are no questions".to_owned()).into());
    }
    let tokenizer = model.need_tokenizer()?;
    let encoded = questions.iter().map(|question| encode(model, tokenizer, question));
    let encoded = encoded.collect::<Result<Vec<_>, _>>()?;
    let tokens = encoded.iter().map(Encoded::tokens).max().unwrap_or(1);
    let mut sequence = Sequence::new(model, tokens)?;
    let (mut right, mut right_per_byte, mut log_likelihoods) = (0, 0, Vec::new());
    for (i, (question, encoded)) in questions.iter().zip(&encoded).enumerate() {
        let found = encoded.log_likelihoods(&mut sequence)?;
        let per_byte = found.iter().zip(&question.choices).map(|(x, choice)| x / choice.len() as f64);
        right_per_byte += usize::from(largest(per_byte) == question.answer);
        right += usize::from(largest(found.iter().copied()) == question.answer);
        log_likelihoods.push(found);
        progress(i + 1, questions.len(), right as f64 / (i + 1) as f64);
    }
    let chance = questions.iter().map(|q| 1.0 / q.choices.len() as f64).sum::<f64>();
    Ok(Choices {
        accuracy: Share::new(right, questions.len()),
        accuracy_per_byte: Share::new(right_per_byte, questions.len()),
        chance: chance / questions.len() as f64,
        log_likelihoods,
    })
}

/// Log likelihood of each choice of one question, in nats.
///
/// # Errors
/// Those of [`choice`].
pub fn choice_log_likelihoods(model: &Model, question: &Question) -> Result<Vec<f64>, ChoiceError> {
    let encoded = encode(model, model.need_tokenizer()?, question)?;
    let mut sequence = Sequence::new(model, encoded.tokens())?;
    Ok(encoded.log_likelihoods(&mut sequence)?)
}

/// Index of the largest, the first of equals.
fn largest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, value) in values.enumerate() {
        if value > best.1 {
            best = (i, value);
        }
    }
    best.0
}

impl Share {
    fn new(right: usize, n: usize) -> Self {
        let mean = right as f64 / n as f64;
        let standard_error = (n > 1).then(|| (mean * (1.0 - mean) / (n - 1) as f64).sqrt());
        Self { mean, standard_error }
    }
}

/// Question and choice are one text, with a space between them unless one of them brings white space there. The text is
/// split into tokens as a whole: what the question's own tokens and those of all choices begin with is run once, and all
/// that follows is scored, so that a token across the border does no harm.
fn encode(model: &Model, tokenizer: &Tokenizer, row: &Question) -> Result<Encoded, ChoiceError> {
    let options = EncodeOptions { add_special: false, parse_special: false };
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let ids = |text: &str| -> Result<Vec<u32>, ChoiceError> {
        let mut ids: Vec<u32> = bos.into_iter().collect();
        ids.extend(tokenizer.encode(text, options).map_err(EngineError::from)?);
        Ok(ids)
    };
    let mut prefix = ids(row.question.trim_end())?;
    let mut choices = Vec::with_capacity(row.choices.len());
    for choice in &row.choices {
        let bare = row.question.is_empty()
            || row.question.ends_with(char::is_whitespace)
            || choice.starts_with(char::is_whitespace);
        let text = format!("{}{}{choice}", row.question, if bare { "" } else { " " });
        choices.push(ids(&text)?);
    }
    for choice in &choices {
        // Of the choice at least one token is left to be scored, also when another choice goes on where it ends.
        let same = prefix.iter().zip(&choice[..choice.len().saturating_sub(1)]).take_while(|(a, b)| a == b);
        let same = same.count();
        prefix.truncate(same);
    }
    if prefix.is_empty() {
        let problem =
            "no token to begin with: this model has no BOS, and the question and its choices share none";
        return Err(RowError::new(row.line, "question", problem).into());
    }
    choices.iter_mut().for_each(|choice| drop(choice.drain(..prefix.len())));
    let encoded = Encoded { prefix, choices };
    let (tokens, limit) = (encoded.tokens(), model.config.seq_len);
    if tokens > limit {
        let problem = format!("{tokens} tokens with its longest choice: this model takes {limit}");
        return Err(RowError::new(row.line, "question", problem).into());
    }
    Ok(encoded)
}

impl Encoded {
    /// Positions that the question takes with its longest choice.
    fn tokens(&self) -> usize {
        self.prefix.len() + self.choices.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Runs the prefix once and each choice behind it.
    fn log_likelihoods(&self, sequence: &mut Sequence<'_>) -> Result<Vec<f64>, EngineError> {
        sequence.truncate(0);
        let behind_prefix = sequence.forward(&self.prefix)?.to_vec();
        let score = |choice: &Vec<u32>| {
            let mut sum = choice.first().map_or(0.0, |&first| log_softmax_at(&behind_prefix, first));
            sequence.truncate(self.prefix.len());
            if let [before @ .., _] = &choice[..]
                && !before.is_empty()
            {
                sequence.forward_all(before, &mut |t, logits| {
                    sum += log_softmax_at(logits, choice[t + 1]);
                    Ok(())
                })?;
            }
            Ok(sum)
        };
        self.choices.iter().map(score).collect()
    }
}
