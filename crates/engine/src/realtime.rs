//! Steady timing on request: every thread on a core of its own, all memory present and kept.
//!
//! Each step that the system refuses is named, and the model runs without it.

use kernels::Team;

/// A team whose members, the calling thread among them, are bound to one core each, and what was refused. Threads
/// beyond the cores that this process may use stay free.
pub(crate) fn pinned_team(threads: usize) -> (Team, Vec<String>) {
    let cores = match system::cores() {
        Ok(cores) => cores,
        Err(why) => return (Team::new(threads), vec![format!("threads are not bound to cores: {why}")]),
    };
    if threads > cores.len() {
        let why = format!("{threads} threads do not fit on {} cores", cores.len());
        return (Team::new(threads), vec![format!("threads are not bound to cores: {why}")]);
    }
    let (send, receive) = std::sync::mpsc::channel();
    let team = Team::with_setup(threads, move |member| {
        let pinned = system::pin(cores[member]).map_err(|why| format!("thread {member} is not bound: {why}"));
        // The receiver waits below for every member.
        let _ = send.send(pinned);
    });
    let refused = receive.iter().take(team.threads()).filter_map(Result::err).collect();
    (team, refused)
}

/// Keeps all memory that this process has now, as soon as it is present; says why if that is refused.
pub(crate) fn lock_memory() -> Result<(), String> {
    system::lock_memory().map_err(|why| format!("memory is not locked: {why}"))
}

/// Reads one byte of each page, which brings it into memory.
pub(crate) fn touch(bytes: &[u8]) {
    const PAGE: usize = 4096;
    std::hint::black_box(bytes.iter().step_by(PAGE).fold(0, |all, byte| all ^ byte));
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::mm::{MlockAllFlags, mlockall};
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// The cores that this process may use.
    pub(super) fn cores() -> Result<Vec<usize>, String> {
        let set = sched_getaffinity(None).map_err(|e| e.to_string())?;
        Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
    }

    /// Binds the calling thread.
    pub(super) fn pin(core: usize) -> Result<(), String> {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).map_err(|e| e.to_string())
    }

    /// Only what is present or will be read: a model file whose weights were repacked need not come back. Not
    /// what is allocated later: an allocation beyond the limit of locked memory would end the program.
    pub(super) fn lock_memory() -> Result<(), String> {
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT).map_err(|e| e.to_string())
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    const WHY: &str = "this system has no means that we know";

    pub(super) fn cores() -> Result<Vec<usize>, String> {
        Err(WHY.to_owned())
    }

    pub(super) fn pin(_core: usize) -> Result<(), String> {
        Err(WHY.to_owned())
    }

    pub(super) fn lock_memory() -> Result<(), String> {
        Err(WHY.to_owned())
    }
}
