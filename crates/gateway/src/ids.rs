//! Names of answers, files and calls.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// In the order of their codes.
const ALPHABET: &[u8; 32] = b"234567abcdefghijklmnopqrstuvwxyz";

/// A name that no other has, with this in front: `prefix` and 24 characters.
pub(crate) fn new(prefix: &str) -> String {
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    // Each RandomState has keys of its own: two of them make 120 bits that nobody can guess.
    let mut bits = [RandomState::new().hash_one(count), RandomState::new().hash_one(now_nanos())];
    let mut id = String::with_capacity(prefix.len() + 24);
    id.push_str(prefix);
    for i in 0..24 {
        let word = &mut bits[i / 12];
        id.push(char::from(ALPHABET[(*word & 31) as usize]));
        *word >>= 5;
    }
    id
}

/// Likewise, and behind those of earlier milliseconds in the order of texts, with 33 characters: what is named one after the
/// other lies side by side in an index.
pub(crate) fn in_order(prefix: &str) -> String {
    let millis = now_millis();
    let mut start = String::with_capacity(prefix.len() + 33);
    start.push_str(prefix);
    // 45 bits last for a thousand years.
    start.extend((0..9).rev().map(|i| char::from(ALPHABET[(millis >> (5 * i) & 31) as usize])));
    new(&start)
}

/// A seed for requests that name none.
pub(crate) fn seed() -> u64 {
    RandomState::new().hash_one(NEXT.fetch_add(1, Ordering::Relaxed)) >> 32
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    since_epoch().as_secs()
}

/// Milliseconds since 1970.
pub(crate) fn now_millis() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

fn now_nanos() -> u128 {
    since_epoch().as_nanos()
}

fn since_epoch() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn names_are_all_different() {
        let ids: HashSet<String> = (0..1000).map(|_| super::new("x-")).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 26 && id.starts_with("x-")));
    }

    #[test]
    fn names_in_order_are_different_and_in_order() {
        let mut before = String::new();
        for _ in 0..5 {
            let (a, b) = (super::in_order("x-"), super::in_order("x-"));
            assert!(a != b && a.len() == 35 && a > before && b > before);
            before = a.max(b);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}
