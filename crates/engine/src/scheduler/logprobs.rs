//! How likely the model finds tokens.

use super::job::TokenLogprob;

/// The log-probability of `id` by finite `logits`, `[vocab_size]`, and the `top` likeliest tokens.
pub(super) fn logprob(logits: &[f32], id: u32, top: usize) -> TokenLogprob {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let sum: f64 = logits.iter().map(|&x| f64::from((x - max).exp())).sum();
    let normalizer = f64::from(max) + sum.ln();
    let of = |x: f32| (f64::from(x) - normalizer) as f32;
    TokenLogprob {
        id,
        logprob: logits.get(id as usize).map_or(f32::NEG_INFINITY, |&x| of(x)),
        top: likeliest(logits, top).into_iter().map(|(id, x)| (id, of(x))).collect(),
    }
}

/// The `n` largest logits and their ids, largest first, equal ones by id.
fn likeliest(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(n + 1);
    if n == 0 {
        return best;
    }
    for (id, &x) in logits.iter().enumerate() {
        if best.len() < n || best.last().is_some_and(|last| x > last.1) {
            let entry = (id as u32, x);
            let at = best.partition_point(|other| order(other, &entry).is_lt());
            best.insert(at, entry);
            best.truncate(n);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_the_likeliest_come_first() {
        let logits = [0.5f32, 0.1, 0.3, 0.1].map(|p| p.ln() + 3.0);
        let got = logprob(&logits, 2, 3);
        assert!((got.logprob.exp() - 0.3).abs() < 1e-5);
        let ids: Vec<u32> = got.top.iter().map(|t| t.0).collect();
        assert_eq!(ids, [0, 2, 1]);
        let all: f32 = logprob(&logits, 0, 9).top.iter().map(|t| t.1.exp()).sum();
        assert!((all - 1.0).abs() < 1e-5);
    }
}
