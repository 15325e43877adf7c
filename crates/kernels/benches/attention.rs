//! Speed of attention: `cargo bench -p kernels --features bench --bench attention` (with `EDGELLM_ISA` for other instruction
//! sets). One layer of BitNet-2B's shape (20 query heads, 5 key heads of 128), f16 and int8 caches.

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use kernels::Team;
use kernels::attention::{CacheShape, CacheType, Heads, PAGE, Page, Span, attend};

const SHAPE: CacheShape = CacheShape { n_kv_heads: 5, head_dim: 128 };
const HEADS: Heads = Heads { n_heads: 20, cache: SHAPE, window: None, scale: 0.088 };

fn main() {
    divan::main();
}

/// (position of the first token, tokens, threads); counted in multiply-adds.
const STEPS: [(usize, usize, usize); 6] =
    [(127, 1, 1), (4095, 1, 1), (4095, 1, 2), (448, 64, 1), (4032, 64, 1), (4032, 64, 2)];

fn run(bencher: Bencher<'_, '_>, (position, tokens, threads): (usize, usize, usize), cache_type: CacheType) {
    let team = Team::new(threads);
    let page = |_| {
        let mut page = Page::new(cache_type, SHAPE, 1);
        let row = vec![0.1; SHAPE.n_kv_heads * SHAPE.head_dim];
        (0..PAGE).for_each(|slot| page.store(0, slot, &row, &row));
        Arc::new(page)
    };
    let pages: Vec<Arc<Page>> = (0..(position + tokens).div_ceil(PAGE)).map(page).collect();
    let n = tokens * HEADS.n_heads * SHAPE.head_dim;
    let queries: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    let (mut out, mut parts) = (vec![0.0; n], Vec::new());
    let span = Span { tokens, position, layer: 0, pages: &pages };
    let mean = position + tokens / 2;
    bencher.counter(ItemsCount::new(2 * n * mean)).bench_local(|| {
        attend(&team, &HEADS, 1, &|_| span, black_box(&queries), &mut out, &mut parts);
    });
}

#[divan::bench(args = STEPS)]
fn f16(bencher: Bencher<'_, '_>, step: (usize, usize, usize)) {
    run(bencher, step, CacheType::F16);
}

#[divan::bench(args = STEPS)]
fn int8(bencher: Bencher<'_, '_>, step: (usize, usize, usize)) {
    run(bencher, step, CacheType::I8);
}
