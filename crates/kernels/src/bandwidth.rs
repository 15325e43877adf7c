//! How fast memory can be read: the limit of decoding, which reads every weight once for each token.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::threads::Team;

/// Words of 8 bytes summed side by side: sixteen SSE2 registers, eight of AVX2, four of AVX-512.
const LANES: usize = 32;

/// Bytes that a member of the team takes at least: enough that taking them costs nothing.
const PART: usize = 1 << 20;

/// Reads all of `bytes` once, the members of the team in large parts, and returns the sum of their words of
/// 8 bytes (and of the bytes that are left over), so that no read can be left out.
pub fn read_all(team: &Team, bytes: &[u8]) -> u64 {
    let total = AtomicU64::new(0);
    team.split(bytes.len(), PART, usize::MAX, &|range| {
        total.fetch_add(sum(&bytes[range]), Ordering::Relaxed);
    });
    total.into_inner()
}

fn sum(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512 F.
            return unsafe { sum_avx512(bytes) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { sum_avx2(bytes) };
        }
    }
    sum_lanes(bytes)
}

/// # Safety
/// The processor must have AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn sum_avx512(bytes: &[u8]) -> u64 {
    sum_lanes(bytes)
}

/// # Safety
/// The processor must have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn sum_avx2(bytes: &[u8]) -> u64 {
    sum_lanes(bytes)
}

#[inline(always)]
fn sum_lanes(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let (whole, tail) = words.as_chunks::<LANES>();
    let mut sums = [0u64; LANES];
    for words in whole {
        // By index over arrays of one length: what the compiler turns into vectors that stay in registers.
        for lane in 0..LANES {
            sums[lane] = sums[lane].wrapping_add(u64::from_ne_bytes(words[lane]));
        }
    }
    let words = sums.into_iter().chain(tail.iter().map(|word| u64::from_ne_bytes(*word)));
    words.chain(rest.iter().map(|&byte| byte.into())).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_once() {
        for (threads, len) in [(1, 0), (1, 5), (2, 32), (3, 1000), (2, 4096 + 7)] {
            let words: Vec<u64> = (0..len).map(|i| i * i + 1).collect();
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            bytes.extend([3, 4]);
            assert_eq!(read_all(&Team::new(threads), &bytes), words.iter().sum::<u64>() + 7);
        }
    }
}
