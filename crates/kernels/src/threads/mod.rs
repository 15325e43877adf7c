//! A team of threads that share the pieces of one job at a time.
//!
//! Matrix products last from a few to a few hundred microseconds and follow each other without a pause, so
//! the team spins briefly between jobs and parks only when nothing comes (a parked thread costs 10 to 20
//! microseconds to wake). The pieces of a job are claimed one by one, so that a thread that runs late or is put
//! aside by the system leaves its share to the others; which thread computes a piece changes no result. There
//! is one barrier a job: its owner waits for those that have entered it, and only for them.

mod gate;
mod shared;

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

use gate::{Entry, Gate};
pub(crate) use shared::Shared;

/// How often an idle member looks for work before it parks; some 50 microseconds.
const SPINS: u32 = 2_000;

/// Elementary operations (multiply-adds, roughly) below which a job is not worth handing to other threads: some
/// 5 microseconds of one core.
const MIN_WORK: usize = 1 << 16;

/// Elementary operations that are claimed at once at least: enough that claiming costs nothing beside them.
const MIN_CLAIM: usize = 1 << 15;

type Work = *const (dyn Fn() + Sync);

/// What the owner of a job and the members tell each other.
struct Board {
    gate: Gate,
    /// The current job, written only while the gate is closed and nobody is inside.
    job: UnsafeCell<Option<Work>>,
    /// Members that are parked or about to be.
    asleep: AtomicUsize,
    /// The owner, while it is parked or about to be.
    waiting: Mutex<Option<Thread>>,
    is_waiting: AtomicBool,
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `job` is written only by the thread that holds `Team::busy`, while the gate is closed and empty, and
// read only by members inside the gate: `Gate` orders the two (`gate.rs`, checked with loom).
unsafe impl Sync for Board {}
// SAFETY: the raw pointer in `job` refers to a `Sync` closure and is dereferenced only inside the gate, while
// `Team::share` keeps that closure alive.
unsafe impl Send for Board {}

/// A fixed number of threads, the caller being one of them.
pub struct Team {
    board: Arc<Board>,
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
        Self::with_setup(threads, |_| ())
    }

    /// The same; each member calls `setup` with its number once, before its first work, number 0 being the
    /// calling thread.
    pub fn with_setup(threads: usize, setup: impl Fn(usize) + Send + Sync + 'static) -> Self {
        let board = Arc::new(Board {
            gate: Gate::new(),
            job: UnsafeCell::new(None),
            asleep: AtomicUsize::new(0),
            waiting: Mutex::new(None),
            is_waiting: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let setup = Arc::new(setup);
        setup(0);
        let mut workers = Vec::new();
        for member in 1..threads.clamp(1, gate::MAX_MEMBERS) {
            let (board, setup) = (Arc::clone(&board), Arc::clone(&setup));
            let work = move || {
                setup(member);
                serve(&board);
            };
            match thread::Builder::new().name(format!("edgellm-{member}")).spawn(work) {
                Ok(handle) => workers.push(handle),
                Err(_) => break,
            }
        }
        Self { board, workers, busy: Mutex::new(()) }
    }

    /// Number of members.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job` on this thread and on every member that comes in time, and returns when all of these calls
    /// have returned. A panic in `job` is passed on to the caller. Must not be called from inside a job.
    fn share(&self, job: &(dyn Fn() + Sync)) {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let board = &*self.board;
        // SAFETY: only the lifetime changes. Members use the pointer inside the gate only, and this function
        // returns, also when `job` panics on this thread, after the gate was closed and empty.
        let erased: Work = unsafe { std::mem::transmute::<*const (dyn Fn() + Sync + '_), Work>(job) };
        // SAFETY: `busy` is held and the gate is closed and empty, so nobody else touches this cell.
        unsafe { *board.job.get() = Some(erased) };
        board.gate.open();
        // Either this sees the member that goes to sleep, or that member sees the open gate: both sides write
        // before they look, all in one order.
        if board.asleep.load(Ordering::SeqCst) > 0 {
            self.workers.iter().for_each(|worker| worker.thread().unpark());
        }
        let own = catch_unwind(AssertUnwindSafe(job));
        board.gate.close();
        board.wait_until_empty();
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!board.panicked.swap(false, Ordering::Relaxed), "a job of the thread team panicked");
    }

    /// Calls `job` with ranges that together are `0..items`, each once: multiples of `grain`, the last one
    /// apart, large ones first. `work` is what all of it takes, in elementary operations: little work stays on
    /// the caller.
    pub fn split(&self, items: usize, grain: usize, work: usize, job: &(dyn Fn(Range<usize>) + Sync)) {
        let grain = grain.max(1);
        let grains = items.div_ceil(grain);
        if self.workers.is_empty() || grains <= 1 || work < MIN_WORK {
            if items > 0 {
                job(0..items);
            }
            return;
        }
        let least = (grains.saturating_mul(MIN_CLAIM) / work).max(1);
        let next = Next(AtomicUsize::new(0));
        self.share(&|| {
            while let Some(claimed) = claim(&next.0, grains, least, self.threads()) {
                job(claimed.start * grain..(claimed.end * grain).min(items));
            }
        });
    }

    /// Calls `job(i)` for every i of `0..items` once, claimed one by one in that order: for few pieces of unlike
    /// size, the largest of which had better come first. `work` as in [`Team::split`].
    pub fn for_each(&self, items: usize, work: usize, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || items <= 1 || work < MIN_WORK {
            return (0..items).for_each(job);
        }
        let next = Next(AtomicUsize::new(0));
        self.share(&|| {
            loop {
                let i = next.0.fetch_add(1, Ordering::Relaxed);
                if i >= items {
                    return;
                }
                job(i);
            }
        });
    }

    /// Calls `job(index, chunk)` for every chunk of `len` elements of `data` (the last may be shorter). `work` as
    /// in [`Team::split`].
    pub fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        work: usize,
        job: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        let (total, len) = (data.len(), len.max(1));
        let data = Shared::new(data);
        self.split(total.div_ceil(len), 1, work, &|chunks| {
            for i in chunks {
                // SAFETY: each chunk is claimed once, and chunks do not overlap.
                job(i, unsafe { data.slice(i * len..((i + 1) * len).min(total)) });
            }
        });
    }
}

/// What is claimed next, in cache lines of its own: the members write it, its owner works beside it.
#[repr(align(128))]
struct Next(AtomicUsize);

/// Claims some of the grains that are left: a share of them that becomes smaller towards the end, so that the
/// members finish together, and at least `least`.
fn claim(next: &AtomicUsize, grains: usize, least: usize, threads: usize) -> Option<Range<usize>> {
    let mut at = next.load(Ordering::Relaxed);
    while at < grains {
        let left = grains - at;
        let take = (left / (2 * threads)).max(least).min(left);
        match next.compare_exchange_weak(at, at + take, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(at..at + take),
            Err(now) => at = now,
        }
    }
    None
}

/// Looks for a while whether it is so.
fn spin_until(mut ready: impl FnMut() -> bool) -> bool {
    for _ in 0..SPINS {
        if ready() {
            return true;
        }
        std::hint::spin_loop();
    }
    false
}

impl Board {
    /// Returns when nobody is inside the closed gate.
    fn wait_until_empty(&self) {
        if spin_until(|| self.gate.is_empty()) {
            return;
        }
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        self.is_waiting.store(true, Ordering::SeqCst);
        while !self.gate.is_empty() {
            thread::park();
        }
        self.is_waiting.store(false, Ordering::SeqCst);
    }

    /// Wakes the owner if it sleeps. For the last member that leaves the closed gate.
    fn wake_owner(&self) {
        if !self.is_waiting.load(Ordering::SeqCst) {
            return;
        }
        if let Some(owner) = &*self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            owner.unpark();
        }
    }

    /// Returns inside the gate, or when the team is dropped.
    fn wait_for_job(&self, seen: &mut usize) {
        while !self.stop.load(Ordering::Relaxed) {
            if spin_until(|| self.gate.enter(seen) == Entry::Inside) {
                return;
            }
            self.asleep.fetch_add(1, Ordering::SeqCst);
            while !self.gate.is_open(*seen) && !self.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            self.asleep.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.board.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker never panics outside `catch_unwind`, so there is nothing to learn from the result.
            let _ = worker.join();
        }
    }
}

/// The life of a member.
fn serve(board: &Board) {
    let mut seen = 0;
    loop {
        board.wait_for_job(&mut seen);
        // The team is dropped only when no job is in progress, so a member that sees this is not inside.
        if board.stop.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: inside the gate this cell is as the owner wrote it before it opened.
        if let Some(job) = unsafe { *board.job.get() } {
            // SAFETY: `Team::share` keeps the closure alive until the gate is closed and empty.
            let job = unsafe { &*job };
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                board.panicked.store(true, Ordering::Relaxed);
            }
        }
        if board.gate.leave() {
            board.wake_owner();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn split_covers_each_item_once() {
        for (threads, items, grain) in [(1, 7, 4), (2, 7, 4), (3, 100, 8), (5, 3, 1), (4, 0, 4), (2, 1000, 1)]
        {
            let team = Team::new(threads);
            for work in [0, 1 << 17, 1 << 22, usize::MAX] {
                let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                team.split(items, grain, work, &|range| {
                    assert!(range.start.is_multiple_of(grain) && !range.is_empty());
                    for i in range {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn each_piece_is_claimed_once() {
        for threads in [1, 2, 3, 5] {
            let team = Team::new(threads);
            for items in [0, 1, 2, 17, 1000] {
                let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                team.for_each(items, usize::MAX, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
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
    fn what_members_wrote_is_seen_after_each_of_many_jobs() {
        let team = Team::new(3);
        let mut data = vec![0u64; 64];
        for job in 1..3000 {
            team.for_each_chunk(&mut data, 1, usize::MAX, &|_, x| x[0] += job);
            assert!(data.iter().all(|&x| x == job * (job + 1) / 2));
        }
    }

    #[test]
    fn every_member_is_set_up_and_all_help() {
        let (send, receive) = std::sync::mpsc::channel();
        let team = Team::with_setup(3, move |member| send.send(member).unwrap());
        let mut members: Vec<usize> = (0..3).map(|_| receive.recv().unwrap()).collect();
        members.sort_unstable();
        assert_eq!(members, [0, 1, 2]);
        // Each piece waits until three are being worked on at once: only three threads get through.
        let barrier = std::sync::Barrier::new(3);
        team.for_each(3, usize::MAX, &|_| {
            barrier.wait();
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let team = Team::new(3);
        for wrong in 0..20 {
            let run = || team.for_each(20, usize::MAX, &|i| assert_ne!(i, wrong));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }
        let ran = AtomicUsize::new(0);
        team.for_each(20, usize::MAX, &|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.load(Ordering::Relaxed), 20);
    }

    #[test]
    fn parked_members_wake() {
        let team = Team::new(2);
        let barrier = std::sync::Barrier::new(2);
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(20));
            team.for_each(2, usize::MAX, &|_| {
                barrier.wait();
            });
        }
    }
}
