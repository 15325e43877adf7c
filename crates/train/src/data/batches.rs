//! Batches out of token shards: the same for a step whenever they are asked for.

use formats::token_shard::TokenShard;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::model::Batch;

/// A shard that is trained on, and how often relative to the others.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its tokens.
    pub shard: TokenShard<'a>,
    /// Sequences drawn from it for each one drawn from a source of share 1.
    pub share: f64,
}

/// The course of a training through its data: each source is cut into pieces of a sequence's length, which come in a new
/// random order, and cut at another place, every time they are used up.
#[derive(Debug)]
pub struct Sampler<'a> {
    sources: Vec<Source<'a>>,
    seq_len: usize,
    bos: u32,
    seed: u64,
    random: ChaCha8Rng,
    courses: Vec<Course>,
}

/// Where one source is.
#[derive(Debug, Default)]
struct Course {
    drawn: usize,
    epoch: usize,
    order: Vec<u32>,
    shift: usize,
}

impl<'a> Sampler<'a> {
    /// At the beginning. `bos` stands before every document; `seed` and the sources decide everything that follows.
    pub fn new(sources: Vec<Source<'a>>, seq_len: usize, bos: u32, seed: u64) -> Self {
        let courses = sources.iter().map(|_| Course { epoch: usize::MAX, ..Course::default() }).collect();
        Self { sources, seq_len, bos, seed, random: ChaCha8Rng::seed_from_u64(seed), courses }
    }

    /// Which source comes next, and which piece of it.
    fn draw(&mut self) -> (usize, usize) {
        let total: f64 = self.sources.iter().map(|s| s.share).sum();
        let mut at = self.random.next_u64() as f64 / u64::MAX as f64 * total;
        let mut chosen = 0;
        for (i, source) in self.sources.iter().enumerate().filter(|(_, s)| s.share > 0.0) {
            chosen = i;
            if at < source.share {
                break;
            }
            at -= source.share;
        }
        let drawn = self.courses[chosen].drawn;
        self.courses[chosen].drawn += 1;
        (chosen, drawn)
    }

    /// Passes over `sequences` sequences without reading them.
    pub fn skip(&mut self, sequences: usize) {
        for _ in 0..sequences {
            self.draw();
        }
    }

    /// The next sequences.
    pub fn batch(&mut self, sequences: usize) -> Batch {
        let mut batch = Batch { seq_len: self.seq_len, ..Batch::default() };
        for _ in 0..sequences {
            let (chosen, start) = self.piece();
            self.push_sequence(self.sources[chosen].shard, start, &mut batch);
        }
        batch
    }

    /// What the next sequences would be made of: of each the source, and its documents by their numbers from 1 on.
    pub fn documents(&mut self, sequences: usize) -> Vec<(usize, Vec<usize>)> {
        let mut of_all = Vec::new();
        for _ in 0..sequences {
            let (chosen, start) = self.piece();
            let shard = self.sources[chosen].shard;
            let first = partition_point(shard.documents(), |i| shard.document_end(i) <= start);
            let end = start + self.seq_len;
            let behind = (first..shard.documents()).find(|&i| shard.document_end(i) >= end);
            of_all.push((chosen, (first + 1..=behind.map_or(shard.documents(), |last| last + 1)).collect()));
        }
        of_all
    }

    /// The next piece: its source, and where it begins there.
    fn piece(&mut self) -> (usize, usize) {
        let (chosen, drawn) = self.draw();
        let shard = self.sources[chosen].shard;
        let pieces = (shard.len() / self.seq_len).max(1);
        let course = &mut self.courses[chosen];
        if course.epoch != drawn / pieces {
            course.epoch = drawn / pieces;
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(1 + ((chosen as u64) << 32) + course.epoch as u64);
            course.order = (0..u32::try_from(pieces).unwrap_or(u32::MAX)).collect();
            for i in (1..course.order.len()).rev() {
                course.order.swap(i, (random.next_u64() % (i as u64 + 1)) as usize);
            }
            course.shift = (random.next_u64() % self.seq_len as u64) as usize;
        }
        let start = course.order[drawn % pieces] as usize * self.seq_len + course.shift;
        (chosen, start % shard.len().max(1))
    }

    /// A sequence that begins with id `start` of the shard, or with the mark of the document that begins there.
    fn push_sequence(&self, shard: TokenShard<'_>, start: usize, batch: &mut Batch) {
        let mut document = partition_point(shard.documents(), |i| shard.document_end(i) <= start);
        let mut at = start;
        let mut from = 0;
        let mut begins = at == if document == 0 { 0 } else { shard.document_end(document - 1) };
        for i in 0..=self.seq_len {
            let id = if begins {
                begins = false;
                from = i;
                self.bos
            } else if at < shard.document_end(document) {
                at += 1;
                shard.id(at - 1)
            } else {
                // The mark that begins the next document ends this one.
                document += 1;
                if document >= shard.documents() {
                    (document, at) = (0, 0);
                }
                from = i;
                self.bos
            };
            if i > 0 {
                batch.targets.push(id);
            }
            if i < self.seq_len {
                batch.inputs.push(id);
                batch.starts.push(u32::try_from(from).unwrap_or(u32::MAX));
                batch.weights.push(1.0);
            }
        }
    }
}

/// The first of `0..n` for which `before` is false; it is true for all before it.
fn partition_point(n: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// Every id of every document once, as `edgellm eval perplexity --stride full` scores them: a document begins with `bos`, and
/// one longer than the context goes on in windows whose first half repeats what was scored before. Batches of at most
/// `tokens` tokens, filled up with positions that do not count.
pub fn validation(shard: TokenShard<'_>, bos: u32, context: usize, tokens: usize) -> Vec<Batch> {
    let mut windows: Vec<(Vec<u32>, usize)> = Vec::new();
    let mut from = 0;
    for document in 0..shard.documents() {
        let end = shard.document_end(document);
        let ids: Vec<u32> = std::iter::once(bos).chain((from..end).map(|i| shard.id(i))).collect();
        from = end;
        let mut scored = 1;
        while scored < ids.len() {
            let first = if scored == 1 { 0 } else { scored - context / 2 };
            let last = ids.len().min(first + context);
            windows.push((ids[first..last].to_vec(), scored - first));
            scored = last;
        }
    }
    // Windows of like length together, so that little is filled up.
    windows.sort_by_key(|(ids, _)| ids.len());
    let mut batches = Vec::new();
    let mut rest = &windows[..];
    while let Some((longest, _)) = rest.first() {
        let mut len = longest.len();
        let mut count = 0;
        while let Some((ids, _)) = rest.get(count)
            && (count == 0 || ids.len() * (count + 1) <= tokens)
        {
            len = ids.len();
            count += 1;
        }
        let mut batch = Batch { seq_len: len - 1, ..Batch::default() };
        for (ids, first_scored) in &rest[..count] {
            let n = ids.len() - 1;
            let fill = len - 1 - n;
            batch.inputs.extend(ids[..n].iter().copied().chain(std::iter::repeat_n(bos, fill)));
            batch.targets.extend(ids[1..].iter().copied().chain(std::iter::repeat_n(bos, fill)));
            let counts = (1..=n).map(|i| if i >= *first_scored { 1.0 } else { 0.0 });
            batch.weights.extend(counts.chain(std::iter::repeat_n(0.0, fill)));
            batch.starts.extend(std::iter::repeat_n(0, len - 1));
        }
        batches.push(batch);
        rest = &rest[count..];
    }
    batches
}

#[cfg(test)]
mod tests {
    use formats::token_shard::write;

    use super::*;

    const BOS: u32 = 0;

    /// Documents 1..=5, 6..=8, 9..=20.
    fn bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        let ids: Vec<u32> = (1..=20).collect();
        write(&mut bytes, 21, 100, &[5, 8, 20], &ids).unwrap();
        bytes
    }

    #[test]
    fn sequences_are_the_text_with_a_mark_before_each_document() {
        let bytes = bytes();
        let shard = TokenShard::parse(&bytes).unwrap();
        let source = Source { shard, share: 1.0 };
        let sampler = Sampler::new(vec![source], 6, BOS, 1);
        let at = |start| {
            let mut batch = Batch { seq_len: 6, ..Batch::default() };
            sampler.push_sequence(shard, start, &mut batch);
            (batch.inputs, batch.targets, batch.starts)
        };
        assert_eq!(at(0), (vec![0, 1, 2, 3, 4, 5], vec![1, 2, 3, 4, 5, 0], vec![0; 6]));
        assert_eq!(at(3), (vec![4, 5, 0, 6, 7, 8], vec![5, 0, 6, 7, 8, 0], vec![0, 0, 2, 2, 2, 2]));
        assert_eq!(at(5), (vec![0, 6, 7, 8, 0, 9], vec![6, 7, 8, 0, 9, 10], vec![0, 0, 0, 0, 4, 4]));
        assert_eq!(at(18), (vec![19, 20, 0, 1, 2, 3], vec![20, 0, 1, 2, 3, 4], vec![0, 0, 2, 2, 2, 2]));
    }

    #[test]
    fn batches_depend_on_the_seed_and_on_how_many_came_before() {
        let bytes = bytes();
        let shard = TokenShard::parse(&bytes).unwrap();
        let sources = || vec![Source { shard, share: 1.0 }, Source { shard, share: 3.0 }];
        let mut whole = Sampler::new(sources(), 4, BOS, 7);
        let batches: Vec<Batch> = (0..6).map(|_| whole.batch(5)).collect();
        let mut later = Sampler::new(sources(), 4, BOS, 7);
        later.skip(15);
        for batch in &batches[3..] {
            assert_eq!(&later.batch(5), batch);
        }
        assert_ne!(
            Sampler::new(sources(), 4, BOS, 8).batch(30),
            Sampler::new(sources(), 4, BOS, 7).batch(30)
        );
        let mut drawn = Sampler::new(sources(), 4, BOS, 3);
        let from_first = (0..4000).filter(|_| drawn.draw().0 == 0).count();
        assert!((900..1100).contains(&from_first), "{from_first} of 4000 for a share of a quarter");
    }

    /// The documents that are named are those whose ids are in the batch.
    #[test]
    fn documents_are_those_of_the_batch() {
        let bytes = bytes();
        let shard = TokenShard::parse(&bytes).unwrap();
        let ends = [0, 5, 8, 20];
        for seed in 0..20 {
            let sampler = || Sampler::new(vec![Source { shard, share: 1.0 }], 4, BOS, seed);
            let (mut a, mut b) = (sampler(), sampler());
            let named = b.documents(3);
            for (source, documents) in named {
                let batch = a.batch(1);
                assert_eq!(source, 0);
                // At the end of the shard a sequence goes on at its beginning, which is not named.
                let ids = batch.inputs.iter().take_while(|&&id| id != 1 || documents.contains(&1));
                for &id in ids.filter(|&&id| id != BOS) {
                    let of = (1..=3).find(|&i| (id as usize) <= ends[i]).unwrap();
                    assert!(documents.contains(&of), "{id} of {of} in {documents:?}");
                }
                assert!(documents.iter().all(|i| (1..=3).contains(i)), "{documents:?}");
            }
        }
    }

    /// Every id of every document counts once, whatever the context.
    #[test]
    fn validation_scores_each_id_once() {
        let bytes = bytes();
        let shard = TokenShard::parse(&bytes).unwrap();
        for (context, tokens) in [(4, 8), (6, 100), (64, 1)] {
            let mut scored = Vec::new();
            for batch in validation(shard, BOS, context, tokens) {
                assert!(batch.seq_len < context);
                for (target, weight) in batch.targets.iter().zip(&batch.weights) {
                    if *weight > 0.0 {
                        scored.push(*target);
                    }
                }
            }
            scored.sort_unstable();
            assert_eq!(scored, (1..=20).collect::<Vec<_>>(), "context {context}");
        }
    }
}
