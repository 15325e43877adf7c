//! Rotary position embedding (Su et al., arXiv 2104.09864).

use crate::dispatch::vector_ops;
use crate::threads::{Shared, Team};
use crate::vector::{LANES, Vector, load_any, store_any};

/// Which two elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// (2i, 2i + 1): llama2.c, GGUF's `llama`.
    Adjacent,
    /// (i, i + head_dim / 2): Hugging Face models, most other GGUF architectures.
    Half,
}

/// Length of the table of one position: a factor for each element and one for its partner.
pub fn table_len(head_dim: usize) -> usize {
    2 * head_dim
}

/// Fills `table`, `[2, head_dim]`, for one position: what each element of a head is multiplied with (the
/// cosine) and what its partner is (minus the sine for the first of a pair, the sine for the second).
/// `inverse_frequencies` is `[head_dim / 2]`, in radians per position.
pub fn rotation(position: usize, inverse_frequencies: &[f32], pairing: Pairing, table: &mut [f32]) {
    let half = inverse_frequencies.len();
    let (cosines, sines) = table.split_at_mut(2 * half);
    for (i, &frequency) in inverse_frequencies.iter().enumerate() {
        let (sin, cos) = (position as f32 * frequency).sin_cos();
        let (first, second) = match pairing {
            Pairing::Adjacent => (2 * i, 2 * i + 1),
            Pairing::Half => (i, half + i),
        };
        (cosines[first], cosines[second]) = (cos, cos);
        (sines[first], sines[second]) = (-sin, sin);
    }
}

/// Rotates each head of `x`, `[heads, head_dim]`, by a table of [`rotation`] for the same pairing.
///
/// # Panics
/// When `table` is not `[2, head_dim]` or a head is of odd length.
pub fn rotate(x: &mut [f32], head_dim: usize, pairing: Pairing, table: &[f32]) {
    assert_eq!(table.len(), table_len(head_dim), "a table for other heads");
    assert!(head_dim.is_multiple_of(2), "a head of odd length has no pairs");
    // SAFETY: `vector_ops()` gives only functions that this processor can run.
    unsafe { (vector_ops().rotate)(x, head_dim, pairing, table) };
}

/// [`rotate`] of each row of `x`, `[tokens, row]`, by its own table of `tables`, `[tokens, 2, head_dim]`;
/// rows shared among the team.
///
/// # Panics
/// As [`rotate`].
pub fn rotate_rows(
    team: &Team,
    x: &mut [f32],
    row: usize,
    head_dim: usize,
    pairing: Pairing,
    tables: &[f32],
) {
    let (tokens, work) = (x.len() / row, x.len() * 2);
    let x = Shared::new(x);
    team.split(tokens, 1, work, &|range| {
        for t in range {
            // SAFETY: `split` gives each row to one call, and rows do not overlap.
            let x = unsafe { x.slice(t * row..(t + 1) * row) };
            let table = table_len(head_dim);
            rotate(x, head_dim, pairing, &tables[t * table..][..table]);
        }
    });
}

/// The loop of [`rotate`], compiled for each instruction set (`arch/ops_*.rs`).
#[inline(always)]
pub(crate) fn rotate_body<V: Vector>(x: &mut [f32], head_dim: usize, pairing: Pairing, table: &[f32]) {
    let (cosines, sines) = table.split_at(head_dim);
    for head in x.chunks_exact_mut(head_dim) {
        match pairing {
            Pairing::Adjacent => {
                let factors = cosines.chunks(LANES).zip(sines.chunks(LANES));
                for (x, (cos, sin)) in head.chunks_mut(LANES).zip(factors) {
                    let v: V = load_any(x);
                    store_any(turn(v, v.swap_pairs(), load_any(cos), load_any(sin)), x);
                }
            }
            Pairing::Half => {
                let half = head_dim / 2;
                let (first, second) = head.split_at_mut(half);
                let cosines = cosines[..half].chunks(LANES).zip(cosines[half..].chunks(LANES));
                let sines = sines[..half].chunks(LANES).zip(sines[half..].chunks(LANES));
                let pairs = first.chunks_mut(LANES).zip(second.chunks_mut(LANES));
                for ((a, b), (cos, sin)) in pairs.zip(cosines.zip(sines)) {
                    let (va, vb): (V, V) = (load_any(a), load_any(b));
                    store_any(turn(va, vb, load_any(cos.0), load_any(sin.0)), a);
                    store_any(turn(vb, va, load_any(cos.1), load_any(sin.1)), b);
                }
            }
        }
    }
}

#[inline(always)]
fn turn<V: Vector>(x: V, partner: V, cos: V, sin: V) -> V {
    x.mul(cos).add(partner.mul(sin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(position: usize, frequencies: &[f32], pairing: Pairing) -> Vec<f32> {
        let mut table = vec![0.0; table_len(2 * frequencies.len())];
        rotation(position, frequencies, pairing, &mut table);
        table
    }

    #[test]
    fn the_two_pairings_are_one_permutation_apart() {
        for head_dim in [2, 8, 20, 64, 128] {
            let half = head_dim / 2;
            let x: Vec<f32> = (0..3 * head_dim).map(|i| (i as f32).sin()).collect();
            let frequencies: Vec<f32> =
                (0..half).map(|i| 10000f32.powf(-2.0 * i as f32 / head_dim as f32)).collect();
            let mut adjacent = x.clone();
            let of = |pairing| table(5, &frequencies, pairing);
            rotate(&mut adjacent, head_dim, Pairing::Adjacent, &of(Pairing::Adjacent));
            let split = |x: &[f32]| -> Vec<f32> {
                let from = |i: usize| if i < half { 2 * i } else { 2 * (i - half) + 1 };
                x.chunks(head_dim).flat_map(|h| (0..head_dim).map(move |i| h[from(i)])).collect()
            };
            let mut halves = split(&x);
            rotate(&mut halves, head_dim, Pairing::Half, &of(Pairing::Half));
            assert_eq!(split(&adjacent), halves);
        }
    }

    #[test]
    fn position_zero_changes_nothing() {
        let mut x = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut x, 4, Pairing::Half, &table(0, &[1.0, 0.1], Pairing::Half));
        assert_eq!(x, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn angles_are_those_of_the_definition() {
        let mut x: Vec<f32> = (0..48).map(|i| (i as f32 * 0.7).cos()).collect();
        let before = x.clone();
        let frequencies: Vec<f32> = (0..24).map(|i| 0.9f32.powi(i)).collect();
        rotate(&mut x, 48, Pairing::Half, &table(3, &frequencies, Pairing::Half));
        for i in 0..24 {
            let (sin, cos) = (3.0 * f64::from(frequencies[i])).sin_cos();
            let (a, b) = (f64::from(before[i]), f64::from(before[24 + i]));
            assert!((f64::from(x[i]) - (a * cos - b * sin)).abs() < 1e-6);
            assert!((f64::from(x[24 + i]) - (a * sin + b * cos)).abs() < 1e-6);
        }
    }
}
