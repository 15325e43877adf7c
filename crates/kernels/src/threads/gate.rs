//! The door to the current job: members of the team enter while it is open, and the owner of the job goes on
//! when it is closed and nobody is inside. Whoever comes late finds it closed and has missed nothing, so a
//! thread that the system has put aside holds up no job that it has not entered.

#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicUsize, Ordering};

/// How many members can be inside; the bits above count the jobs.
const INSIDE: usize = (1 << 12) - 1;
const OPEN: usize = 1 << 12;
const JOB: usize = 1 << 13;

/// Members that a team can have.
pub(crate) const MAX_MEMBERS: usize = INSIDE;

/// See the module. It stands in cache lines of its own: idle members look at it all the time, and what the owner
/// writes beside it must not wait for them.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Gate(AtomicUsize);

/// What a member finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is inside, and must leave.
    Inside,
    /// No job that it has not seen.
    Nothing,
}

impl Gate {
    /// Closed, nobody inside.
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Opens for the next job; everything that the owner wrote before is visible inside. Only for the owner,
    /// with the gate closed and empty. Sequentially consistent, as the other calls that decide about sleep.
    pub(crate) fn open(&self) {
        let state = self.0.load(Ordering::Relaxed);
        self.0.store((state & !(OPEN | INSIDE)).wrapping_add(JOB) | OPEN, Ordering::SeqCst);
    }

    /// Whether the gate is open for a job other than `seen`.
    pub(crate) fn is_open(&self, seen: usize) -> bool {
        let state = self.0.load(Ordering::SeqCst);
        state & OPEN != 0 && state / JOB != seen
    }

    /// Goes inside if the gate is open for a job other than `seen`, which is then this one's number.
    pub(crate) fn enter(&self, seen: &mut usize) -> Entry {
        let mut state = self.0.load(Ordering::Relaxed);
        while state & OPEN != 0 && state / JOB != *seen {
            match self.0.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    *seen = state / JOB;
                    return Entry::Inside;
                }
                Err(now) => state = now,
            }
        }
        Entry::Nothing
    }

    /// Goes out; all that was done inside is visible to the owner. Whether the owner may be waiting for this.
    pub(crate) fn leave(&self) -> bool {
        let before = self.0.fetch_sub(1, Ordering::SeqCst);
        before & (OPEN | INSIDE) == 1
    }

    /// Lets nobody in any more. Only for the owner.
    pub(crate) fn close(&self) {
        self.0.fetch_and(!OPEN, Ordering::Relaxed);
    }

    /// Whether nobody is inside; if so, all that was done there is visible.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::SeqCst) & INSIDE == 0
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    struct Cells {
        gate: Gate,
        next: AtomicUsize,
        job: UnsafeCell<usize>,
        done: [UnsafeCell<usize>; 2],
    }

    /// Does what is left of the current job: `done[i] = job + i` for each i that it claims.
    fn work(cells: &Cells) {
        // SAFETY: loom fails the test if another thread writes meanwhile.
        let job = cells.job.with(|job| unsafe { *job });
        loop {
            let i = cells.next.fetch_add(1, Ordering::Relaxed);
            if i >= cells.done.len() {
                return;
            }
            // SAFETY: as above.
            cells.done[i].with_mut(|done| unsafe { *done = job + i });
        }
    }

    /// Two jobs one after the other, one helper that may come in time, late or never: no cell is touched by two
    /// threads at once (loom watches), and each job is whole when the owner goes on.
    #[test]
    fn jobs_are_whole_and_apart() {
        // `RUSTFLAGS="--cfg loom" cargo test -p kernels --lib --release loom_tests`
        loom::model(|| {
            let cells = Arc::new(Cells {
                gate: Gate::new(),
                next: AtomicUsize::new(0),
                job: UnsafeCell::new(0),
                done: [UnsafeCell::new(0), UnsafeCell::new(0)],
            });
            let helper = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || {
                    let mut seen = 0;
                    for _ in 0..2 {
                        if cells.gate.enter(&mut seen) == Entry::Inside {
                            work(&cells);
                            cells.gate.leave();
                        }
                    }
                })
            };
            for job in [10, 20] {
                // SAFETY: as above.
                cells.job.with_mut(|cell| unsafe { *cell = job });
                cells.next.store(0, Ordering::Relaxed);
                cells.gate.open();
                work(&cells);
                cells.gate.close();
                while !cells.gate.is_empty() {
                    thread::yield_now();
                }
                for (i, done) in cells.done.iter().enumerate() {
                    // SAFETY: as above.
                    done.with(|done| assert_eq!(unsafe { *done }, job + i));
                }
            }
            helper.join().unwrap();
        });
    }
}
