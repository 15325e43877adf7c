//! Rotary position embedding (Su et al., arXiv 2104.09864).

/// Which two elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// (2i, 2i + 1): llama2.c, GGUF's `llama`.
    Adjacent,
    /// (i, i + head_dim / 2): Hugging Face models, most other GGUF architectures.
    Half,
}

/// Fills `table`, `[head_dim / 2]` pairs of (cos, sin), for one position. `inverse_frequencies` is
/// `[head_dim / 2]`, in radians per position.
pub fn rotation(position: usize, inverse_frequencies: &[f32], table: &mut Vec<(f32, f32)>) {
    table.clear();
    table.extend(inverse_frequencies.iter().map(|&f| {
        let (sin, cos) = (position as f32 * f).sin_cos();
        (cos, sin)
    }));
}

/// Rotates each head of `x`, `[heads, head_dim]`, by a table of [`rotation`].
pub fn rotate(x: &mut [f32], head_dim: usize, pairing: Pairing, table: &[(f32, f32)]) {
    for head in x.chunks_exact_mut(head_dim) {
        match pairing {
            Pairing::Adjacent => {
                for (pair, &(cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(table) {
                    let [a, b] = *pair;
                    *pair = [a * cos - b * sin, a * sin + b * cos];
                }
            }
            Pairing::Half => {
                let (first, second) = head.split_at_mut(head_dim / 2);
                for ((a, b), &(cos, sin)) in first.iter_mut().zip(second).zip(table) {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_pairings_are_one_permutation_apart() {
        let head_dim = 8;
        let x: Vec<f32> = (0..16).map(|i| (i as f32).sin()).collect();
        let frequencies: Vec<f32> = (0..4).map(|i| 10000f32.powf(-2.0 * i as f32 / 8.0)).collect();
        let mut table = Vec::new();
        rotation(5, &frequencies, &mut table);
        let mut adjacent = x.clone();
        rotate(&mut adjacent, head_dim, Pairing::Adjacent, &table);
        let split = |x: &[f32]| -> Vec<f32> {
            x.chunks(8).flat_map(|h| (0..8).map(|i| h[if i < 4 { 2 * i } else { 2 * (i - 4) + 1 }])).collect()
        };
        let mut half = split(&x);
        rotate(&mut half, head_dim, Pairing::Half, &table);
        assert_eq!(split(&adjacent), half);
    }

    #[test]
    fn position_zero_changes_nothing() {
        let mut table = Vec::new();
        rotation(0, &[1.0, 0.1], &mut table);
        let mut x = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut x, 4, Pairing::Half, &table);
        assert_eq!(x, [1.0, 2.0, 3.0, 4.0]);
    }
}
