//! A team of threads that runs one job at a time on all its members.
//!
//! Matrix products last from a few to a few hundred microseconds and follow each other without a pause, so
//! the team spins briefly between jobs and parks only when nothing comes (a parked thread costs 10 to 20
//! microseconds to wake).

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

/// How often an idle member looks for work before it parks; some 50 microseconds.
const SPINS: u32 = 20_000;

/// Elementary operations (multiply-adds, roughly) below which a job is not worth handing to other threads: some
/// 10 microseconds of one core, about what waking a parked thread costs.
const MIN_WORK: usize = 1 << 17;

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts the jobs; a change tells the members that `job` is new.
    epoch: AtomicUsize,
    /// The current job, written only while no member runs one.
    job: UnsafeCell<Option<Job>>,
    /// Members that have not finished the current job.
    pending: AtomicUsize,
    /// Who waits for the current job.
    owner: UnsafeCell<Option<Thread>>,
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `job` and `owner` are written only by the thread that holds `Team::busy`, before the release
// increment of `epoch`, and read by members only after an acquire load has seen that increment. They are next
// written only after `pending` has fallen to 0, which members do (release) after their last read.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` refers to a `Sync` closure and is dereferenced only while `Team::run`
// keeps that closure alive.
unsafe impl Send for Shared {}

/// A fixed number of threads, the caller of [`Team::run`] being one of them.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    busy: Mutex<()>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads()).finish()
    }
}

impl Team {
    /// A team of `threads` members (at least 1: the caller). Threads that the system refuses are left out.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            pending: AtomicUsize::new(0),
            owner: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut workers = Vec::new();
        for member in 1..threads.max(1) {
            let shared = Arc::clone(&shared);
            match thread::Builder::new()
                .name(format!("edgellm-{member}"))
                .spawn(move || work(&shared, member))
            {
                Ok(handle) => workers.push(handle),
                Err(_) => break,
            }
        }
        Self { shared, workers, busy: Mutex::new(()) }
    }

    /// Number of members.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(member)` once on every member, 0 being the caller, and returns when all have finished.
    /// A panic in `job` is passed on to the caller. Must not be called from inside a job.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return job(0);
        }
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The pointer is dropped from use before this function returns: it
        // waits below until every member has finished with it, also when `job` panics on this thread.
        let erased: Job = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(job) };
        // SAFETY: `busy` is held and no member runs (pending is 0), so nobody else touches these cells.
        unsafe {
            *shared.job.get() = Some(erased);
            *shared.owner.get() = Some(thread::current());
        }
        shared.pending.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut spins = 0;
        while shared.pending.load(Ordering::Acquire) != 0 {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                thread::park();
            }
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a job of the thread team panicked");
    }

    /// Splits `0..items` into one contiguous range per member (multiples of `grain`, the last one apart) and
    /// calls `job(range)` on each member that has any. `work` is what all of it takes, in elementary
    /// operations: little work stays on the caller.
    pub fn split(&self, items: usize, grain: usize, work: usize, job: &(dyn Fn(Range<usize>) + Sync)) {
        let threads = self.threads();
        let grain = grain.max(1);
        let grains = items.div_ceil(grain);
        if threads == 1 || grains <= 1 || work < MIN_WORK {
            if items > 0 {
                job(0..items);
            }
            return;
        }
        self.run(&|member| {
            let from = (grains * member / threads * grain).min(items);
            let to = (grains * (member + 1) / threads * grain).min(items);
            if from < to {
                job(from..to);
            }
        });
    }

    /// Calls `job(index, chunk)` for every chunk of `len` elements of `data` (the last may be shorter), the
    /// chunks dealt out in turn so that work that grows along `data` is shared evenly. `work` as in
    /// [`Team::split`].
    pub fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        work: usize,
        job: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        let (total, len) = (data.len(), len.max(1));
        let chunks = total.div_ceil(len);
        if chunks <= 1 || self.threads() == 1 || work < MIN_WORK {
            data.chunks_mut(len).enumerate().for_each(|(i, chunk)| job(i, chunk));
            return;
        }
        let base = Base(data.as_mut_ptr());
        self.run(&|member| {
            for i in (member..chunks).step_by(self.threads()) {
                // SAFETY: chunk i covers `i * len..min((i + 1) * len, total)` of the slice borrowed for this
                // whole call; members take disjoint sets of i, so no element is borrowed twice.
                let chunk = unsafe {
                    std::slice::from_raw_parts_mut(base.get().add(i * len), len.min(total - i * len))
                };
                job(i, chunk);
            }
        });
    }
}

/// Start of a slice that the members share by disjoint chunks.
struct Base<T>(*mut T);

// SAFETY: only `for_each_chunk` makes one; it hands each element to one member at a time, and T is Send.
unsafe impl<T: Send> Sync for Base<T> {}

impl<T> Base<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker never panics outside `catch_unwind`, so there is nothing to learn from the result.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, member: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.epoch.load(Ordering::Acquire) == seen {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                thread::park();
            }
        }
        seen = seen.wrapping_add(1);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        // SAFETY: the acquire load above saw the increment that published these cells, and they stay as they
        // are until this member has lowered `pending`.
        let (job, owner) = unsafe { (*shared.job.get(), (*shared.owner.get()).clone()) };
        if let Some(job) = job {
            // SAFETY: `Team::run` keeps the closure alive until `pending` is 0.
            let job = unsafe { &*job };
            if catch_unwind(AssertUnwindSafe(|| job(member))).is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        if shared.pending.fetch_sub(1, Ordering::Release) == 1
            && let Some(owner) = owner
        {
            owner.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_runs_every_job_once() {
        for threads in [1, 2, 3, 5] {
            let team = Team::new(threads);
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..200 {
                team.run(&|member| {
                    counts[member].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 200));
        }
    }

    #[test]
    fn split_covers_each_item_once() {
        for (threads, items, grain) in [(1, 7, 4), (2, 7, 4), (3, 100, 8), (5, 3, 1), (4, 0, 4)] {
            let team = Team::new(threads);
            let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            team.split(items, grain, usize::MAX, &|range| {
                for i in range {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn chunks_reach_each_element_once() {
        for (threads, total, len) in [(1, 10, 3), (2, 10, 3), (3, 100, 7), (5, 2, 1), (2, 0, 4)] {
            let mut data = vec![0; total];
            Team::new(threads).for_each_chunk(&mut data, len, usize::MAX, &|i, chunk| {
                chunk.iter_mut().enumerate().for_each(|(j, x)| *x += i * len + j + 1);
            });
            assert!(data.iter().enumerate().all(|(i, &x)| x == i + 1));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let team = Team::new(3);
        let result = catch_unwind(AssertUnwindSafe(|| team.run(&|member| assert_ne!(member, 2))));
        assert!(result.is_err());
        let ran = AtomicUsize::new(0);
        team.run(&|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn parked_members_wake() {
        let team = Team::new(2);
        let ran = AtomicUsize::new(0);
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(20));
            team.run(&|_| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(ran.load(Ordering::Relaxed), 6);
    }
}
