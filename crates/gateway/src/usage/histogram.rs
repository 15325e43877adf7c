//! Latencies in buckets, each an eighth of a doubling wide: a percentile is told to within a sixteenth.

/// Buckets of a doubling.
const PARTS: u32 = 8;

/// The bucket of a time in microseconds.
pub(super) fn bucket(micros: u64) -> i64 {
    if micros < u64::from(PARTS) {
        return micros as i64;
    }
    let octave = micros.ilog2();
    // The three bits after the first one.
    let part = (micros >> (octave - 3)) & u64::from(PARTS - 1);
    i64::from((octave - 2) * PARTS) + part as i64
}

/// The middle of a bucket in microseconds.
fn middle(bucket: i64) -> f64 {
    let bucket = u32::try_from(bucket).unwrap_or(0);
    if bucket < PARTS {
        return f64::from(bucket);
    }
    let (octave, part) = (bucket / PARTS + 2, bucket % PARTS);
    let width = 2f64.powi(octave as i32 - 3);
    f64::from(PARTS + part) * width + width / 2.0
}

/// The times in milliseconds under which these shares of all lie, from `(bucket, count)` in the order of buckets.
pub(super) fn percentiles<const N: usize>(counts: &[(i64, i64)], shares: [f64; N]) -> [f64; N] {
    let total: i64 = counts.iter().map(|(_, count)| count).sum();
    shares.map(|share| {
        let rank = (share * total as f64).ceil().max(1.0) as i64;
        let mut seen = 0;
        let found = counts.iter().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        found.map_or(0.0, |(bucket, _)| middle(*bucket) / 1000.0)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_times(mut times in prop::collection::vec(1u64..50_000_000_000, 1..400)) {
            let mut counts = BTreeMap::new();
            for time in &times {
                *counts.entry(bucket(*time)).or_insert(0) += 1;
            }
            let counts: Vec<(i64, i64)> = counts.into_iter().collect();
            times.sort_unstable();
            let shares = [0.5, 0.9, 0.99];
            for (told, share) in percentiles(&counts, shares).into_iter().zip(shares) {
                let rank = ((share * times.len() as f64).ceil() as usize).max(1);
                let truth = times[rank - 1] as f64 / 1000.0;
                prop_assert!((told - truth).abs() <= 0.0626 * truth + 1e-9, "{told} for {truth}");
            }
        }

        #[test]
        fn a_longer_time_is_in_no_lower_bucket(a in 0u64..u64::MAX, b in 0u64..u64::MAX) {
            prop_assert!(bucket(a.min(b)) <= bucket(a.max(b)));
        }
    }

    #[test]
    fn nothing_has_no_percentiles() {
        assert_eq!(percentiles(&[], [0.5]), [0.0]);
    }
}
