//! `edgellm doctor`: what the machine offers and which kernels are chosen for it.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use anyhow::Result;
use engine::machine::{self, ReadBandwidth};
use serde::Serialize;

use super::system;
use crate::args::DoctorArgs;
use crate::output::{self, Output};

/// Passes over the memory, of which the fastest counts.
const BANDWIDTH_PASSES: usize = 7;

#[derive(Serialize)]
struct Report {
    cpu: Option<String>,
    cores: usize,
    features: Vec<&'static str>,
    isa: Isa,
    kernels: Vec<Kernel>,
    memory_mb: Memory,
    huge_pages: Option<String>,
    /// Threads -> GB/s.
    read_bandwidth_gb_s: BTreeMap<usize, f64>,
}

#[derive(Serialize)]
struct Isa {
    found: Vec<&'static str>,
    requested: Option<String>,
    chosen: &'static str,
}

#[derive(Serialize)]
struct Kernel {
    types: &'static str,
    family: &'static str,
    why: String,
}

#[derive(Serialize)]
struct Memory {
    total: Option<u64>,
    available: Option<u64>,
}

/// Prints what was found, or one object.
pub(crate) fn run(args: &DoctorArgs, out: &mut Output) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let megabytes = |bytes: Option<u64>| bytes.map(|bytes| bytes / 1_000_000);
    let report = Report {
        cpu: system::cpu_model(),
        cores,
        features: machine::cpu_features(),
        isa: Isa {
            found: machine::isas(),
            requested: std::env::var("EDGELLM_ISA").ok().filter(|name| !name.is_empty()),
            chosen: machine::isa(),
        },
        kernels: machine::kernel_choices()
            .into_iter()
            .map(|choice| Kernel { types: choice.types, family: choice.family, why: choice.why })
            .collect(),
        memory_mb: Memory {
            total: megabytes(system::total_memory()),
            available: megabytes(system::available_memory()),
        },
        huge_pages: system::huge_pages(),
        read_bandwidth_gb_s: bandwidth(args.threads.unwrap_or(cores), args.bandwidth_mb)?,
    };
    if let Some(requested) = report.isa.requested.as_deref()
        && requested != report.isa.chosen
    {
        output::note(&format!("EDGELLM_ISA={requested}: not to be had here, {} is used", report.isa.chosen));
    }
    if args.json { out.json(&report) } else { print(&report, out) }
}

/// GB/s of one thread and of all.
fn bandwidth(threads: usize, megabytes: usize) -> Result<BTreeMap<usize, f64>> {
    let mut found = BTreeMap::new();
    for threads in BTreeSet::from([1, threads]) {
        let memory = ReadBandwidth::new(threads, system::bandwidth_bytes(megabytes))?;
        let gigabytes = memory.best_of(BANDWIDTH_PASSES) / 1e9;
        found.insert(threads, (gigabytes * 10.0).round() / 10.0);
    }
    Ok(found)
}

fn print(report: &Report, out: &mut Output) -> Result<()> {
    let unknown = || "not known".to_owned();
    let megabytes = |value: Option<u64>| value.map_or_else(unknown, |mb| format!("{mb} MB"));
    let bandwidth = report.read_bandwidth_gb_s.iter();
    let bandwidth: Vec<String> = bandwidth.map(|(n, speed)| format!("{speed} GB/s on {n}")).collect();
    for (name, value) in [
        ("processor", report.cpu.clone().unwrap_or_else(unknown)),
        ("cores", report.cores.to_string()),
        ("features", report.features.join(" ")),
        ("kernels for", report.isa.found.join(" ")),
        ("chosen", format!("{} (EDGELLM_ISA takes another)", report.isa.chosen)),
        (
            "memory",
            format!("{}, {} free", megabytes(report.memory_mb.total), megabytes(report.memory_mb.available)),
        ),
        ("huge pages", report.huge_pages.clone().unwrap_or_else(unknown)),
        ("read bandwidth", format!("{} threads", bandwidth.join(", "))),
    ] {
        out.line(&format!("{name:<15} {value}"))?;
    }
    for kernel in &report.kernels {
        out.line(&format!("{:<20} {}: {}", kernel.types, kernel.family, kernel.why))?;
    }
    Ok(())
}
