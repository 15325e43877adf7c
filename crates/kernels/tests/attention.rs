//! Attention against the reference, for each way of storing keys and values.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside #[test] functions")]

use kernels::attention::{Cached, CachedMut, Queries, attend_all};
use kernels::{Team, reference};

#[test]
fn all_heads_and_windows_agree_with_the_reference() {
    let (head_dim, n_heads, n_kv_heads, positions, tokens) = (20, 4, 2, 37, 5);
    let value = |i: usize, k: usize| ((i * k) as f32 * 0.37).sin();
    let kv = |k: usize| -> Vec<f32> { (0..positions * n_kv_heads * head_dim).map(|i| value(i, k)).collect() };
    let (keys, values) = (kv(3), kv(5));
    let queries: Vec<f32> = (0..tokens * n_heads * head_dim).map(|i| value(i, 7)).collect();
    let row = n_kv_heads * head_dim;
    let store = |mut cache: CachedMut<'_>, x: &[f32]| {
        x.chunks(row).enumerate().for_each(|(p, x)| cache.store(p, head_dim, x));
    };
    let (mut k16, mut v16) = (vec![0; keys.len()], vec![0; keys.len()]);
    store(CachedMut::F16(&mut k16), &keys);
    store(CachedMut::F16(&mut v16), &values);
    let scales = vec![0.0; positions * n_kv_heads];
    let (mut k8, mut v8, mut ks, mut vs) = (vec![0; keys.len()], vec![0; keys.len()], scales.clone(), scales);
    store(CachedMut::I8(&mut k8, &mut ks), &keys);
    store(CachedMut::I8(&mut v8, &mut vs), &values);
    for window in [None, Some(1), Some(8), Some(100)] {
        let position = positions - tokens;
        let q = Queries { queries: &queries, head_dim, n_heads, n_kv_heads, position, window, scale: 0.2 };
        let cases = [
            (Cached::F32(&keys), Cached::F32(&values), 1e-5),
            (Cached::F16(&k16), Cached::F16(&v16), 2e-3),
            (Cached::I8(&k8, &ks), Cached::I8(&v8, &vs), 2e-2),
        ];
        for (k, v, tolerance) in cases {
            let mut out = vec![0.0; queries.len()];
            attend_all(&Team::new(3), &q, k, v, &mut out);
            for (i, got) in out.chunks(head_dim).enumerate() {
                let (end, kv_head) = (position + i / n_heads + 1, i % n_heads / 2);
                let start = window.map_or(0, |w| end.saturating_sub(w));
                let head = |x: &[f32]| -> Vec<f32> {
                    (start..end)
                        .flat_map(|p| x[p * row + kv_head * head_dim..][..head_dim].to_vec())
                        .collect()
                };
                let want = reference::attend(
                    &queries[i * head_dim..][..head_dim],
                    &head(&keys),
                    &head(&values),
                    0.2,
                );
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() <= tolerance, "{got} for {want} ({window:?}, head {i})");
                }
            }
        }
    }
}
