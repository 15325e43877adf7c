//! How fast memory can be read: the limit of decoding, which reads every weight once for each token.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::threads::Team;

/// Words of 8 bytes summed side by side: sixteen registers of SSE2 or NEON.
const LANES: usize = 32;

/// Bytes ahead of the one in work that are asked for.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4096;

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
    use std::arch::x86_64::*;
    let (lines, rest) = bytes.as_chunks::<256>();
    let mut sums = [_mm512_setzero_si512(); 4];
    for line in lines {
        // A hint: no address is wrong.
        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().wrapping_add(AHEAD).cast());
        for (sum, part) in sums.iter_mut().zip(line.as_chunks::<64>().0) {
            // SAFETY: the reference covers the 64 bytes that the load reads.
            *sum = _mm512_add_epi64(*sum, unsafe { _mm512_loadu_si512(part.as_ptr().cast()) });
        }
    }
    let both = [_mm512_add_epi64(sums[0], sums[1]), _mm512_add_epi64(sums[2], sums[3])];
    let sum = _mm512_reduce_add_epi64(_mm512_add_epi64(both[0], both[1]));
    sum_lanes(rest).wrapping_add(sum as u64)
}

/// # Safety
/// The processor must have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn sum_avx2(bytes: &[u8]) -> u64 {
    use std::arch::x86_64::*;
    let (lines, rest) = bytes.as_chunks::<256>();
    let mut sums = [_mm256_setzero_si256(); 8];
    for line in lines {
        // A hint: no address is wrong.
        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().wrapping_add(AHEAD).cast());
        for (sum, part) in sums.iter_mut().zip(line.as_chunks::<32>().0) {
            // SAFETY: the reference covers the 32 bytes that the load reads.
            *sum = _mm256_add_epi64(*sum, unsafe { _mm256_loadu_si256(part.as_ptr().cast()) });
        }
    }
    let mut words = [[0u64; 4]; 8];
    for (words, sum) in words.iter_mut().zip(sums) {
        // SAFETY: the reference covers the 32 bytes that the store writes.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), sum) };
    }
    words.into_iter().flatten().fold(sum_lanes(rest), u64::wrapping_add)
}

fn sum_lanes(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let (whole, tail) = words.as_chunks::<LANES>();
    let mut sums = [0u64; LANES];
    for words in whole {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
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
        for (threads, len) in [(1, 0), (1, 5), (2, 32), (3, 1000), (2, 4096 + 7), (2, 300_000)] {
            let words: Vec<u64> = (0..len).map(|i| i * i + 1).collect();
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            bytes.extend([3, 4]);
            assert_eq!(read_all(&Team::new(threads), &bytes), words.iter().sum::<u64>() + 7);
        }
    }
}
