//! Which tokens go into the next step.

/// A running sequence, as far as planning must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Tokens that it has and that were not run.
    pub tokens: usize,
    /// Whether it has begun to answer: then it has one token to run.
    pub decodes: bool,
}

/// How many tokens each sequence gets in a step of `capacity` tokens of which `chunk` may be prompts': every sequence that
/// answers gets its token, and what is left is shared out evenly among the prompts, so that a short one is not held up by
/// a long one. At least one prompt's token runs if there is room for it.
pub fn plan(sequences: &[Pending], capacity: usize, chunk: usize) -> Vec<usize> {
    let mut shares = vec![0; sequences.len()];
    let mut left = capacity;
    for (share, _) in shares.iter_mut().zip(sequences).filter(|(_, s)| s.decodes && s.tokens > 0) {
        if left == 0 {
            break;
        }
        *share = 1;
        left -= 1;
    }
    let mut left = left.min(chunk.max(1));
    let mut prompts: Vec<usize> =
        (0..sequences.len()).filter(|&i| !sequences[i].decodes && sequences[i].tokens > 0).collect();
    // Shortest first: what it does not need of its share goes to those after it.
    prompts.sort_by_key(|&i| sequences[i].tokens);
    for (n, &i) in prompts.iter().enumerate() {
        let share = left.div_ceil(prompts.len() - n).min(sequences[i].tokens);
        shares[i] = share;
        left -= share;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prompt(tokens: usize) -> Pending {
        Pending { tokens, decodes: false }
    }

    const ANSWER: Pending = Pending { tokens: 1, decodes: true };

    #[test]
    fn answers_come_before_prompts_and_prompts_share() {
        assert_eq!(plan(&[prompt(4000), ANSWER, prompt(3)], 64, 64), [60, 1, 3]);
        assert_eq!(plan(&[prompt(4000), ANSWER, prompt(4000)], 64, 20), [10, 1, 10]);
        assert_eq!(plan(&[ANSWER, ANSWER, prompt(9)], 2, 2), [1, 1, 0]);
        assert_eq!(plan(&[ANSWER, prompt(9)], 2, 0), [1, 1]);
        assert_eq!(plan(&[], 64, 64), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn no_token_too_many_and_none_idle(
            sequences in prop::collection::vec((0usize..200, any::<bool>()), 0..20),
            capacity in 1usize..64,
            chunk in 0usize..64,
        ) {
            let sequences: Vec<Pending> = sequences
                .into_iter()
                .map(|(n, decodes)| Pending { tokens: if decodes { n.min(1) } else { n }, decodes })
                .collect();
            let shares = plan(&sequences, capacity, chunk);
            prop_assert!(shares.iter().sum::<usize>() <= capacity);
            prop_assert!(shares.iter().zip(&sequences).all(|(share, s)| *share <= s.tokens));
            let prompts: usize = shares.iter().zip(&sequences).filter(|(_, s)| !s.decodes).map(|(n, _)| n).sum();
            prop_assert!(prompts <= chunk.max(1));
            let work = sequences.iter().any(|s| s.tokens > 0);
            prop_assert_eq!(work, shares.iter().any(|&n| n > 0));
        }
    }
}
