//! Documents that are nearly the same as one before: MinHash over groups of five words, with bands (Broder, "On the resemblance
//! and containment of documents", 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3).
//!
//! Words are letters and digits, in lower case. The part of groups that two documents have in common is estimated by how many
//! of 60 minima of hash functions they share; only documents that agree in all five minima of one of twelve bands are
//! compared. Of documents with 90 % in common 99 % are found, with 80 % half, with 60 % none. A document takes some 300 bytes of
//! memory whatever its length, and [`MAX_DOCUMENTS`] are remembered.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Words of a group.
const WORDS: usize = 5;

const BANDS: usize = 12;

/// Minima of a band.
const ROWS: usize = 5;

const HASHES: usize = BANDS * ROWS;

/// Minima of [`HASHES`] that documents share which are nearly the same.
const SHARED: usize = HASHES * 4 / 5;

/// Documents that are remembered; those that come later are compared with these. They take 0.3 GB.
pub(super) const MAX_DOCUMENTS: usize = 1 << 20;

/// Of each minimum the lower half: others look the same once in 65,536.
type Signature = [u16; HASHES];

/// The documents seen so far.
pub(super) struct Near {
    /// A hash function each: the upper half of a product and a sum.
    functions: [(u64, u64); HASHES],
    signatures: Vec<Signature>,
    /// From a band's hash to the first document that has it.
    bands: HashMap<u32, u32>,
    most: usize,
}

/// A document before that is nearly the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Like {
    /// Its number among those that were remembered.
    pub(super) document: usize,
    /// The part of groups of words that both have, of those that one of them has, as estimated.
    pub(super) similarity: f64,
}

/// What [`Near::look`] has found out of a document.
pub(super) struct Look {
    signature: Signature,
    bands: [u32; BANDS],
    pub(super) like: Option<Like>,
}

impl Near {
    /// Nothing is seen yet; `most` documents are remembered.
    pub(super) fn new(most: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let functions = std::array::from_fn(|_| (random.next_u64() | 1, random.next_u64()));
        Self { functions, signatures: Vec::new(), bands: HashMap::new(), most }
    }

    /// Looks for a document that is nearly the same. `None` for one of fewer than five words.
    pub(super) fn look(&self, text: &str) -> Option<Look> {
        let mut minima = [u32::MAX; HASHES];
        let (mut last, mut words) = ([0u64; WORDS], 0);
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            last.rotate_left(1);
            last[WORDS - 1] = hash_word(word);
            words += 1;
            if words >= WORDS {
                let group = last.iter().fold(0, |hash, &word| mix(hash ^ word));
                for (minimum, (factor, term)) in minima.iter_mut().zip(&self.functions) {
                    let hash = group.wrapping_mul(*factor).wrapping_add(*term);
                    *minimum = (*minimum).min((hash >> 32) as u32);
                }
            }
        }
        if words < WORDS {
            return None;
        }
        let bands = std::array::from_fn(|band| {
            let minima = &minima[band * ROWS..][..ROWS];
            (minima.iter().fold(band as u64, |hash, &minimum| mix(hash ^ u64::from(minimum))) >> 32) as u32
        });
        let signature = minima.map(|minimum| minimum as u16);
        let candidates = bands.iter().filter_map(|band| self.bands.get(band).map(|&i| i as usize));
        let shared = |i: usize| -> usize {
            self.signatures[i].iter().zip(&signature).map(|(a, b)| usize::from(a == b)).sum()
        };
        // Of several the one that has most, and the first of these.
        let best = candidates.map(|i| (shared(i), std::cmp::Reverse(i))).max();
        let like = best.filter(|(shared, _)| *shared >= SHARED).map(|(shared, document)| Like {
            document: document.0,
            similarity: shared as f64 / HASHES as f64,
        });
        Some(Look { signature, bands, like })
    }

    /// Remembers a document if there is room, and says whether there was. It has the next number, from 0 on.
    pub(super) fn remember(&mut self, look: &Look) -> bool {
        let document = self.signatures.len();
        if document >= self.most {
            return false;
        }
        self.signatures.push(look.signature);
        for band in look.bands {
            self.bands.entry(band).or_insert(u32::try_from(document).unwrap_or(u32::MAX));
        }
        true
    }
}

/// 64 bits of a word in lower case (FNV-1a).
fn hash_word(word: &str) -> u64 {
    let mut buffer = [0; 4];
    let lower = word.chars().flat_map(char::to_lowercase);
    mix(lower.fold(0xcbf2_9ce4_8422_2325, |hash, c| {
        c.encode_utf8(&mut buffer)
            .bytes()
            .fold(hash, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }))
}

/// Spreads what differs in some bits over all (the end of SplitMix64).
fn mix(mut hash: u64) -> u64 {
    hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Texts of `n` words each out of 3,000, by chance.
    struct Texts(ChaCha8Rng);

    impl Texts {
        fn below(&mut self, n: usize) -> usize {
            (self.0.next_u64() % n as u64) as usize
        }

        fn text(&mut self, n: usize) -> Vec<String> {
            (0..n).map(|_| format!("Word{}", self.below(3000))).collect()
        }

        /// The same with `n` words replaced.
        fn changed(&mut self, text: &[String], n: usize) -> Vec<String> {
            let mut text = text.to_vec();
            for _ in 0..n {
                let at = self.below(text.len());
                text[at] = format!("other{}", self.below(1_000_000));
            }
            text
        }
    }

    /// The part of groups that two texts have in common, counted.
    fn exact(a: &[String], b: &[String]) -> f64 {
        let groups =
            |text: &[String]| text.windows(5).map(|w| w.join(" ").to_lowercase()).collect::<HashSet<_>>();
        let (a, b) = (groups(a), groups(b));
        let common = a.intersection(&b).count();
        common as f64 / (a.len() + b.len() - common) as f64
    }

    #[test]
    fn planted_near_duplicates_are_found_and_nothing_else() {
        let mut texts = Texts(ChaCha8Rng::seed_from_u64(9));
        let first: Vec<_> = (0..400).map(|i| texts.text(100 + i % 200)).collect();
        let mut near = Near::new(MAX_DOCUMENTS);
        for text in &first {
            let look = near.look(&text.join(" ")).unwrap();
            assert_eq!(look.like, None);
            near.remember(&look);
        }
        let (mut found, mut planted, mut errors) = (0, 0, Vec::new());
        for (i, text) in first.iter().enumerate() {
            for changes in [0, 1, 2, 3, 8, 40] {
                let copy = texts.changed(text, changes);
                let truth = exact(text, &copy);
                // Other marks and capitals are no difference.
                let like = near.look(&copy.join(", ").to_uppercase()).unwrap().like;
                if truth >= 0.9 {
                    planted += 1;
                    found += usize::from(like.is_some());
                }
                if truth < 0.6 {
                    assert_eq!(like, None, "{truth}");
                }
                if let Some(like) = like {
                    assert_eq!(like.document, i);
                    errors.push((like.similarity - truth).abs());
                }
            }
        }
        println!("{found} of {planted} found");
        assert!(planted > 1000 && found * 1000 >= planted * 995, "{found} of {planted}");
        assert!(errors.iter().sum::<f64>() / (errors.len() as f64) < 0.04);
        // Texts of other words, and texts that share a half.
        for text in &first {
            assert_eq!(near.look(&texts.text(150).join(" ")).unwrap().like, None);
            let half = [&text[..text.len() / 2], &texts.text(text.len() / 2)].concat();
            assert_eq!(near.look(&half.join(" ")).unwrap().like, None);
        }
    }

    #[test]
    fn few_words_are_not_judged_and_memory_has_an_end() {
        let mut near = Near::new(1);
        assert!(near.look("one two, three four").is_none());
        let look = near.look("one two three four five").unwrap();
        assert!(near.remember(&look) && !near.remember(&look));
        assert_eq!(
            near.look("One two three: four FIVE.").unwrap().like,
            Some(Like { document: 0, similarity: 1.0 })
        );
        assert_eq!(near.look("one two three four six").unwrap().like, None);
        assert_eq!(near.signatures.len(), 1);
    }
}
