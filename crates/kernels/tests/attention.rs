//! Attention against the naive one in f64, for each way of storing keys and values.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

use std::sync::Arc;

use kernels::attention::{CacheShape, CacheType, Heads, PAGE, PART, Page, Span, attend};
use kernels::{Team, reference};

/// Pages of every type, whose layer [`LAYER`] is filled with the same keys and values.
struct Layer {
    shape: CacheShape,
    /// `[positions, n_kv_heads, head_dim]`
    keys: Vec<f32>,
    values: Vec<f32>,
    stores: [Vec<Arc<Page>>; 3],
}

/// One between others.
const LAYER: usize = 1;

/// The types, and the largest error that rounding keys and values of about +-1 leaves.
const TYPES: [(CacheType, f32); 3] = [(CacheType::F32, 1e-5), (CacheType::F16, 2e-3), (CacheType::I8, 2e-2)];

fn wave(n: usize, k: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * k) as f32 * 0.37).sin()).collect()
}

impl Layer {
    /// Positions filled with waves of their own; places that no position uses, and those of other layers, hold NaN.
    fn new(shape: CacheShape, positions: usize, seed: usize) -> Self {
        let row = shape.n_kv_heads * shape.head_dim;
        let keys = wave(positions * row, 3 + seed);
        let values = wave(positions * row, 5 + seed);
        let nan = vec![f32::NAN; row];
        let stores = TYPES.map(|(cache_type, _)| {
            let page = |first: usize| {
                let mut page = Page::new(cache_type, shape, 3);
                for slot in 0..PAGE {
                    for layer in 0..3 {
                        let at = (first + slot) * row;
                        let used = layer == LAYER && first + slot < positions;
                        let key = if used { &keys[at..at + row] } else { &nan };
                        let value = if used { &values[at..at + row] } else { &nan };
                        page.store(layer, slot, key, value);
                    }
                }
                Arc::new(page)
            };
            (0..positions).step_by(PAGE).map(page).collect()
        });
        Self { shape, keys, values, stores }
    }

    fn span(&self, store: usize, position: usize, tokens: usize) -> Span<'_> {
        Span { tokens, position, layer: LAYER, pages: &self.stores[store] }
    }

    /// The truth for one query head.
    fn expected(&self, heads: &Heads, query: &[f32], position: usize, head: usize) -> Vec<f32> {
        let (head_dim, row) = (self.shape.head_dim, self.shape.n_kv_heads * self.shape.head_dim);
        let kv_head = head / (heads.n_heads / self.shape.n_kv_heads);
        let start = heads.window.map_or(0, |w| (position + 1).saturating_sub(w));
        let of_head = |x: &[f32]| -> Vec<f32> {
            (start..=position).flat_map(|p| x[p * row + kv_head * head_dim..][..head_dim].to_vec()).collect()
        };
        reference::attend(query, &of_head(&self.keys), &of_head(&self.values), heads.scale)
    }
}

fn run(team: &Team, heads: &Heads, spans: &[Span<'_>], queries: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; queries.len()];
    attend(team, heads, spans.len(), &|i| spans[i], queries, &mut out, &mut Vec::new());
    out
}

#[test]
fn all_shapes_and_windows_agree_with_the_naive_one() {
    let team = Team::new(3);
    for (head_dim, n_heads, n_kv_heads) in
        [(20, 4, 2), (16, 3, 1), (64, 9, 3), (128, 20, 5), (8, 5, 5), (72, 7, 1), (256, 4, 1)]
    {
        let shape = CacheShape { n_kv_heads, head_dim };
        for (positions, tokens) in [(1, 1), (37, 5), (64, 64), (65, 2), (200, 131), (PART + 70, 9)] {
            let layer = Layer::new(shape, positions, 0);
            let queries = wave(tokens * n_heads * head_dim, 7);
            for window in [None, Some(1), Some(8), Some(100)] {
                let heads = Heads { n_heads, cache: shape, window, scale: 0.2 };
                let position = positions - tokens;
                for (s, (_, tolerance)) in TYPES.into_iter().enumerate() {
                    let got = run(&team, &heads, &[layer.span(s, position, tokens)], &queries);
                    for (i, (got, query)) in got.chunks(head_dim).zip(queries.chunks(head_dim)).enumerate() {
                        // Every seventh row: the truth is slow.
                        if i % 7 != 0 {
                            assert!(got.iter().all(|x| x.is_finite()));
                            continue;
                        }
                        let want = layer.expected(&heads, query, position + i / n_heads, i % n_heads);
                        for (got, want) in got.iter().zip(&want) {
                            let error = (got - want).abs();
                            assert!(
                                error <= tolerance,
                                "{got} for {want} ({shape:?}, {positions} positions, {window:?}, row {i})"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Large scores: the running maximum moves, and early positions must be scaled down to nothing.
#[test]
fn a_rising_maximum_is_followed() {
    let shape = CacheShape { n_kv_heads: 1, head_dim: 16 };
    let layer = Layer::new(shape, 3 * PART / 2, 0);
    let heads = Heads { n_heads: 2, cache: shape, window: None, scale: 40.0 };
    let queries = wave(32, 11);
    let position = 3 * PART / 2 - 1;
    let got = run(&Team::new(1), &heads, &[layer.span(0, position, 1)], &queries);
    for (head, (got, query)) in got.chunks(16).zip(queries.chunks(16)).enumerate() {
        for (got, want) in got.iter().zip(layer.expected(&heads, query, position, head)) {
            assert!((got - want).abs() < 1e-4, "{got} for {want}");
        }
    }
}

/// The numbers of a token do not depend on the tokens and sequences beside it nor on the threads.
#[test]
fn alone_and_together_give_the_same_bits() {
    let shape = CacheShape { n_kv_heads: 3, head_dim: 48 };
    let row = 9 * shape.head_dim;
    for window in [None, Some(90)] {
        let heads = Heads { n_heads: 9, cache: shape, window, scale: 0.15 };
        let layers = [Layer::new(shape, 1300, 0), Layer::new(shape, 90, 20), Layer::new(shape, 700, 40)];
        // (position, tokens) of three sequences: a decode, a short prompt, the end of a long one.
        let steps = [(1299, 1), (0, 90), (580, 120)];
        let total: usize = steps.iter().map(|s| s.1).sum();
        let queries = wave(total * row, 13);
        for store in 0..3 {
            let spans: Vec<_> =
                layers.iter().zip(steps).map(|(layer, (p, t))| layer.span(store, p, t)).collect();
            let together = run(&Team::new(1), &heads, &spans, &queries);
            for threads in [2, 3, 5] {
                assert_eq!(together, run(&Team::new(threads), &heads, &spans, &queries));
            }
            let mut token = 0;
            for (layer, (position, tokens)) in layers.iter().zip(steps) {
                for t in 0..tokens {
                    let at = token * row..(token + 1) * row;
                    let span = layer.span(store, position + t, 1);
                    let alone = run(&Team::new(2), &heads, &[span], &queries[at.clone()]);
                    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&alone), bits(&together[at]), "position {}", position + t);
                    token += 1;
                }
            }
        }
    }
}
