//! What Linux tells of the machine and of this process under `/proc` and `/sys`; nothing elsewhere.

use std::fs;

/// The most memory that this process has held so far, in bytes.
pub(super) fn peak_memory() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM")
}

/// Makes [`peak_memory`] begin anew with what is held now. Where the system refuses, the peak stays what it was.
pub(super) fn forget_peak_memory() {
    // Not every kernel has this file, and a larger figure is no wrong one.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Memory of the machine, in bytes.
pub(super) fn total_memory() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemTotal")
}

/// Memory that programs can still have, in bytes.
pub(super) fn available_memory() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable")
}

/// Bytes that are read to measure the bandwidth: so many megabytes, or a quarter of what is free.
pub(super) fn bandwidth_bytes(megabytes: usize) -> usize {
    let most = megabytes.saturating_mul(1_000_000);
    available_memory()
        .map_or(most, |free| usize::try_from(free / 4).map_or(most, |quarter| quarter.min(most)))
}

/// Whether programs get huge pages: `always`, `madvise` (those that ask) or `never`.
pub(super) fn huge_pages() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    chosen(&text).map(str::to_owned)
}

/// The name of the processor.
pub(super) fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    cpu_name(&text).map(str::to_owned)
}

/// The word in brackets of a list such as `always [madvise] never`.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(word, _)| word)
}

/// x86 says `model name`; ARM boards say `Model` or `Hardware`, or nothing.
fn cpu_name(text: &str) -> Option<&str> {
    ["model name", "Model", "Hardware"].into_iter().find_map(|key| field(text, key))
}

fn kilobytes(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    field(&text, key)?.trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// The value of `key` in lines of `key : value`.
fn field<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim_end() == key).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whole() {
        let text = "VmPeak:\t  100 kB\nVmHWM:\t   42 kB\nmodel name\t: Some CPU\n";
        assert_eq!(field(text, "VmHWM"), Some("42 kB"));
        assert_eq!(field(text, "HWM"), None);
        assert_eq!(cpu_name(text), Some("Some CPU"));
        assert_eq!(cpu_name("processor\t: 0\n"), None);
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
    }
}
