//! From the options to a loaded model.

use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use engine::sampler::Sampling;
use engine::{ActivationMode, I2sLayout, KernelFamily, KvType, LoadOptions, Model, Sequence};

use crate::args::{Activations, I2s, Kernel, KvCache, ModelArgs, RunArgs, SamplingArgs};
use crate::output;
use crate::resolve;

/// Loads the model that the options name.
pub(super) fn model(args: &ModelArgs) -> Result<Model> {
    model_with_template(args, None)
}

/// The same with the source of a chat template instead of the model's own.
pub(super) fn model_with_template(args: &ModelArgs, chat_template: Option<String>) -> Result<Model> {
    let options = LoadOptions { adapter: args.lora.clone(), ..options(&args.run, chat_template) };
    Ok(Model::load(&resolve::model(&args.model)?, &options)?)
}

/// A model by its name, run as the options say.
pub(super) fn named_model(name: &str, run: &RunArgs, chat_template: Option<String>) -> Result<Model> {
    Ok(Model::load(&resolve::model(name)?, &options(run, chat_template))?)
}

/// How a model runs, as the engine takes it.
pub(super) fn options(run: &RunArgs, chat_template: Option<String>) -> LoadOptions {
    LoadOptions {
        tokenizer: run.tokenizer.clone(),
        chat_template,
        threads: run.threads,
        kv_type: match run.kv_cache {
            KvCache::F32 => KvType::F32,
            KvCache::F16 => KvType::F16,
            KvCache::Int8 => KvType::I8,
        },
        activations: match run.activations {
            Activations::F32 => ActivationMode::F32,
            Activations::Int8 => ActivationMode::Int8,
        },
        kernel: match run.kernel {
            Kernel::Auto => KernelFamily::Auto,
            Kernel::Lookup => KernelFamily::Lookup,
            Kernel::Multiply => KernelFamily::Multiply,
            Kernel::Reference => KernelFamily::Reference,
        },
        exact_head: run.exact_head,
        realtime: run.realtime,
        only_described: false,
        i2s_layout: run.i2s.map(i2s_layout),
        adapter: None,
    }
}

/// The arrangement that a build of bitnet.cpp writes.
pub(super) fn i2s_layout(build: I2s) -> I2sLayout {
    match build {
        I2s::X86 => I2sLayout::X86,
        I2s::Arm => I2sLayout::Arm,
    }
}

/// The options of sampling; a seed that is not given comes from the clock.
pub(super) fn sampling(args: &SamplingArgs) -> Sampling {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos().into());
    let seed = args.seed.unwrap_or_else(clock);
    Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        frequency_penalty: args.frequency_penalty,
        presence_penalty: args.presence_penalty,
        penalty_window: args.penalty_window,
        logit_bias: args.logit_bias.iter().map(|entry| (entry.id, entry.bias)).collect(),
        seed,
    }
}

/// What the user needs to get the same text again.
pub(super) fn note_seed(sampling: &Sampling) {
    if sampling.temperature > 0.0 {
        output::note(&format!("seed {}", sampling.seed));
    }
}

/// What the system refused of --realtime.
pub(super) fn note_refused(sequence: &Sequence<'_>) {
    sequence.refused().iter().for_each(|refused| output::note(&format!("--realtime: {refused}")));
}

/// The text of a file.
pub(super) fn file(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))
}

/// A text of the command line, or standard input for `-`.
pub(super) fn text(argument: &str) -> Result<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
    String::from_utf8(bytes).context("standard input is not UTF-8")
}
