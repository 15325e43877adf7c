//! Speed of attention: `cargo bench -p kernels --bench attention` (with `EDGELLM_ISA` for other instruction
//! sets). One layer of BitNet-2B's shape (20 query heads, 5 key heads of 128), f16 and int8 caches.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use kernels::Team;
use kernels::attention::{CacheShape, Cached, Heads, PAGE, Span, attend};

const SHAPE: CacheShape = CacheShape { n_kv_heads: 5, head_dim: 128 };
const HEADS: Heads = Heads { n_heads: 20, cache: SHAPE, window: None, scale: 0.088 };

fn main() {
    divan::main();
}

/// (position of the first token, tokens, threads); counted in multiply-adds.
const STEPS: [(usize, usize, usize); 6] =
    [(127, 1, 1), (4095, 1, 1), (4095, 1, 2), (448, 64, 1), (4032, 64, 1), (4032, 64, 2)];

fn run(bencher: Bencher<'_, '_>, (position, tokens, threads): (usize, usize, usize), cached: Cached<'_>) {
    let team = Team::new(threads);
    let pages: Vec<u32> = (0..(position + tokens).div_ceil(PAGE) as u32).collect();
    let n = tokens * HEADS.n_heads * SHAPE.head_dim;
    let queries: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    let (mut out, mut parts) = (vec![0.0; n], Vec::new());
    let span = Span { tokens, position, cached, pages: &pages };
    let mean = position + tokens / 2;
    bencher.counter(ItemsCount::new(2 * n * mean)).bench_local(|| {
        attend(&team, &HEADS, 1, &|_| span, black_box(&queries), &mut out, &mut parts);
    });
}

fn pages((position, tokens, _): (usize, usize, usize)) -> usize {
    (position + tokens).div_ceil(PAGE)
}

#[divan::bench(args = STEPS)]
fn f16(bencher: Bencher<'_, '_>, step: (usize, usize, usize)) {
    let keys = vec![0x2e66; pages(step) * SHAPE.page_keys()];
    let values = vec![0x2e66; pages(step) * SHAPE.page_values()];
    run(bencher, step, Cached::F16 { keys: &keys, values: &values });
}

#[divan::bench(args = STEPS)]
fn int8(bencher: Bencher<'_, '_>, step: (usize, usize, usize)) {
    let keys = vec![3; pages(step) * SHAPE.page_keys()];
    let values = vec![3; pages(step) * SHAPE.page_values()];
    let scales = vec![0.01; pages(step) * SHAPE.page_scales()];
    let (key_scales, value_scales) = (&scales[..], &scales[..]);
    run(bencher, step, Cached::I8 { keys: &keys, key_scales, values: &values, value_scales });
}
