//! Rows of different lengths as batches: several behind one another in a sequence, none of which sees another.

use crate::data::Example;
use crate::model::Batch;

/// How much is worked on at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Tokens of a batch, if no row is longer.
    pub(super) tokens: usize,
    /// Threads among which the sequences of a batch are shared.
    pub(super) threads: usize,
}

/// The rows in batches. What fills up a sequence does not count.
pub(super) fn pack(examples: &[&Example], room: Room) -> Vec<Batch> {
    let mut longest_first: Vec<&Example> = examples.to_vec();
    longest_first.sort_by_key(|example| std::cmp::Reverse(example.positions()));
    let Some(longest) = longest_first.first().map(|example| example.positions()) else { return Vec::new() };
    let all: usize = examples.iter().map(|example| example.positions()).sum();
    // Every thread should have as much to do.
    let width = all.min(room.tokens).div_ceil(room.threads.max(1)).max(longest);
    let mut sequences: Vec<(Vec<&Example>, usize)> = Vec::new();
    for example in longest_first {
        let n = example.positions();
        match sequences.iter_mut().find(|(_, used)| used + n <= width) {
            Some((rows, used)) => {
                rows.push(example);
                *used += n;
            }
            None => sequences.push((vec![example], n)),
        }
    }
    let batches = sequences.chunks((room.tokens / width).max(room.threads.max(1)));
    batches.map(|sequences| batch(sequences)).collect()
}

/// Sequences of rows, filled up to the length of the longest.
fn batch(sequences: &[(Vec<&Example>, usize)]) -> Batch {
    let seq_len = sequences.iter().map(|(_, used)| *used).max().unwrap_or(0);
    let mut batch = Batch { seq_len, ..Batch::default() };
    for (rows, used) in sequences {
        let mut start = 0;
        for row in rows {
            row.push(start, &mut batch);
            start += row.positions();
        }
        let fill = seq_len - used;
        batch.inputs.extend(std::iter::repeat_n(0, fill));
        batch.targets.extend(std::iter::repeat_n(0, fill));
        batch.weights.extend(std::iter::repeat_n(0.0, fill));
        // Each sees itself alone.
        batch.starts.extend((*used..seq_len).map(|i| u32::try_from(i).unwrap_or(u32::MAX)));
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_there_once_and_sees_only_itself() {
        let row = |line: usize, n: usize| Example {
            line,
            ids: (0..n).map(|i| (100 * line + i) as u32).collect(),
            answers: std::iter::once(n / 2..n).collect(),
        };
        let rows: Vec<Example> =
            [5, 9, 2, 14, 3, 7].iter().enumerate().map(|(i, &n)| row(i + 1, n)).collect();
        for (tokens, threads) in [(1000, 1), (1000, 2), (16, 2), (1, 3)] {
            let batches = pack(&rows.iter().collect::<Vec<_>>(), Room { tokens, threads });
            let mut seen = Vec::new();
            for batch in &batches {
                assert_eq!(batch.inputs.len() % batch.seq_len, 0);
                for at in 0..batch.inputs.len() {
                    let (input, target) = (batch.inputs[at], batch.targets[at]);
                    let start = at / batch.seq_len * batch.seq_len + batch.starts[at] as usize;
                    if input == 0 {
                        assert!(batch.weights[at] == 0.0 && start == at);
                        continue;
                    }
                    assert_eq!(target, input + 1);
                    // The row's first token is where it begins to see.
                    assert_eq!(batch.inputs[start], input / 100 * 100);
                    assert_eq!(at - start, (input % 100) as usize);
                    if batch.weights[at] > 0.0 {
                        seen.push(target);
                    }
                }
            }
            seen.sort_unstable();
            let answers = rows.iter().flat_map(|r| r.answers.iter().flat_map(|a| &r.ids[a.clone()]));
            assert_eq!(seen, answers.copied().collect::<Vec<_>>(), "{tokens} tokens, {threads} threads");
        }
    }
}
