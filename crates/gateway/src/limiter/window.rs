//! A sliding window: what was counted during the last minute, day or month.
//!
//! A window is sixty buckets of a sixtieth of its length and the one that is being filled, so it looks back between its
//! length and a sixtieth more: in no stretch of its length is more counted than the limit. It takes half a kilobyte,
//! whatever the limit.

/// Buckets that a window looks back over, beside the one that is being filled.
pub(super) const BUCKETS: u64 = 60;
const RING: u64 = BUCKETS + 1;

/// What was counted, by the time at which it was.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// Milliseconds of a bucket.
    length: u64,
    counts: [u64; RING as usize],
    /// Number since 1970 of the newest bucket.
    newest: u64,
    used: u64,
}

impl Window {
    /// An empty window over `span` milliseconds.
    pub(super) fn new(span: u64) -> Self {
        Self { length: (span / BUCKETS).max(1), counts: [0; RING as usize], newest: 0, used: 0 }
    }

    /// Milliseconds that it looks back.
    pub(super) fn span(&self) -> u64 {
        self.length * BUCKETS
    }

    /// Forgets what is too old at `now`. A clock that was set back changes nothing until it has caught up.
    fn advance(&mut self, now: u64) {
        let bucket = now / self.length;
        if bucket <= self.newest {
            return;
        }
        if bucket - self.newest >= RING {
            self.counts = [0; RING as usize];
            self.used = 0;
        } else {
            for old in self.newest + 1..=bucket {
                let count = &mut self.counts[(old % RING) as usize];
                self.used -= *count;
                *count = 0;
            }
        }
        self.newest = bucket;
    }

    /// What was counted.
    pub(super) fn used(&mut self, now: u64) -> u64 {
        self.advance(now);
        self.used
    }

    /// Counts `cost` more.
    pub(super) fn add(&mut self, now: u64, cost: u64) {
        self.advance(now);
        self.counts[(self.newest % RING) as usize] += cost;
        self.used += cost;
    }

    /// What was counted as `taken` at `then` has turned out to be `actual`: the difference is given back where it was
    /// counted, or counted now.
    pub(super) fn settle(&mut self, then: u64, taken: u64, actual: u64, now: u64) {
        self.advance(now);
        if actual >= taken {
            return self.add(now, actual - taken);
        }
        let bucket = then / self.length;
        if bucket <= self.newest && self.newest - bucket < RING {
            let count = &mut self.counts[(bucket % RING) as usize];
            let back = (taken - actual).min(*count);
            *count -= back;
            self.used -= back;
        }
    }

    /// Milliseconds until `cost` more fits under `limit`; `None` for never.
    pub(super) fn wait(&mut self, now: u64, limit: u64, cost: u64) -> Option<u64> {
        self.advance(now);
        let mut over = (self.used + cost).checked_sub(limit)?;
        if cost > limit {
            return None;
        }
        for bucket in self.newest.saturating_sub(BUCKETS)..=self.newest {
            over = over.saturating_sub(self.counts[(bucket % RING) as usize]);
            if over == 0 {
                return Some(((bucket + RING) * self.length).saturating_sub(now));
            }
        }
        None
    }

    /// Milliseconds until nothing is counted any more.
    pub(super) fn reset(&mut self, now: u64) -> u64 {
        self.advance(now);
        let mut buckets = (self.newest.saturating_sub(BUCKETS)..=self.newest).rev();
        let last = buckets.find(|bucket| self.counts[(bucket % RING) as usize] > 0);
        last.map_or(0, |bucket| ((bucket + RING) * self.length).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: u64 = 60_000;

    /// The truth: every count with its time.
    fn within(log: &[(u64, u64)], from: u64, to: u64) -> u64 {
        log.iter().filter(|(at, _)| *at > from && *at <= to).map(|(_, cost)| cost).sum()
    }

    proptest! {
        #[test]
        fn no_minute_has_more_than_the_limit(
            limit in 1u64..50,
            steps in prop::collection::vec((0u64..9_000, 1u64..8), 1..300),
        ) {
            let (mut window, mut now, mut log) = (Window::new(MINUTE), 1_000_000_000u64, Vec::new());
            for (pause, cost) in steps {
                now += pause;
                if window.used(now) + cost <= limit {
                    window.add(now, cost);
                    log.push((now, cost));
                } else if let Some(wait) = window.wait(now, limit, cost) {
                    prop_assert!(wait > 0 && wait <= MINUTE + 1_000);
                    // The time that is told is the first at which it fits.
                    let mut later = window.clone();
                    prop_assert!(later.used(now + wait - 1) + cost > limit);
                    prop_assert!(later.used(now + wait) + cost <= limit);
                } else {
                    prop_assert!(cost > limit);
                }
                prop_assert!(within(&log, now - MINUTE, now) <= limit);
                // And no more is held back than of one bucket beyond the minute.
                prop_assert!(window.used(now) <= within(&log, now - MINUTE - 1_000, now));
                let mut later = window.clone();
                let reset = later.reset(now);
                prop_assert_eq!(later.used(now + reset), 0);
            }
        }

        #[test]
        fn what_is_settled_is_what_was_used(
            steps in prop::collection::vec((0u64..3_000, 0u64..1_000, 0u64..1_000), 1..20),
        ) {
            let (mut window, mut now, mut sum) = (Window::new(MINUTE), 5_000_000u64, 0);
            for (pause, taken, actual) in steps {
                window.add(now, taken);
                let then = now;
                now += pause;
                window.settle(then, taken, actual, now);
                sum += actual;
            }
            prop_assert!(now > 5_000_000 + MINUTE || window.used(now) == sum);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_frees_nothing() {
        let mut window = Window::new(MINUTE);
        window.add(10 * MINUTE, 5);
        assert_eq!(window.used(MINUTE), 5);
        window.add(MINUTE, 1);
        assert_eq!(window.used(10 * MINUTE), 6);
        assert_eq!(window.used(12 * MINUTE), 0);
    }
}
