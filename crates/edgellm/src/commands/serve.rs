//! `edgellm serve`: the gateway with models of the command line.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use engine::sampler::Sampling;
use engine::synthetic::{Shape, Synthetic};
use engine::{LoadOptions, StoredType};
use gateway::config::TlsFiles;
use gateway::{Config, ModelSource, Origin, SamplingDefaults};
use tokio::net::TcpListener;

use super::{load, system};
use crate::args::{DefaultsArgs, ModelsArgs, ServeArgs};
use crate::failure::Failure;
use crate::output;
use crate::resolve;

/// Part of the free memory that keys and values may take: one in so many.
const KV_SHARE: u64 = 4;
const MB: u64 = 1_000_000;

/// Serves until a signal says to stop.
pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    if !args.no_auth {
        let problem = "a server without keys answers everybody who reaches its port";
        return Err(Failure::new(problem, "say --no-auth if that is what you want").into());
    }
    let config = config(args)?;
    runtime()?.block_on(serve(args, config))
}

/// The threads of a server; those of its models come besides.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("gateway")
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

async fn serve(args: &ServeArgs, config: Config) -> Result<()> {
    let address = SocketAddr::new(args.host, args.port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let names: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    output::note(&format!("serving {} at {scheme}://{}", names.join(", "), listener.local_addr()?));
    gateway::run(listener, config, stop_signal()?).await?;
    Ok(())
}

/// Ready at SIGTERM or Ctrl-C.
#[cfg(unix)]
fn stop_signal() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = "cannot wait for signals";
    let mut terminate = signal(SignalKind::terminate()).context(wait)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(wait)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Ready at Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> Result<impl Future<Output = ()>> {
    Ok(async {
        // Where the signal cannot be waited for, there is nothing that could stop the server but the system.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

fn config(args: &ServeArgs) -> Result<Config> {
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    Ok(Config {
        queue: args.queue,
        memory: args.memory.map(|mb| mb.saturating_mul(MB)),
        idle: Duration::from_secs(args.idle),
        grace: Duration::from_secs(args.grace),
        tls: tls.map(|(certificates, key)| TlsFiles { certificates, key }),
        cors: args.cors.clone(),
        data: args.data.clone(),
        ..models(&args.models)?
    })
}

/// A configuration with these models and nothing else.
pub(super) fn models(args: &ModelsArgs) -> Result<Config> {
    let template = args.chat_template.as_deref().map(load::file).transpose()?;
    let options = load::options(&args.run, template);
    let models = args.model.iter().map(|model| {
        if let Some(source) = measured(model, &options) {
            return Ok(source);
        }
        let (name, path) = named(model)?;
        Ok(ModelSource { name, origin: Origin::Path(path, Box::new(options.clone())) })
    });
    let models: Vec<ModelSource> = models.collect::<Result<_>>()?;
    for (i, model) in models.iter().enumerate() {
        if models[..i].iter().any(|other| other.name == model.name) {
            let problem = format!("two models are called {}", model.name);
            return Err(Failure::new(problem, "give one another name: --model NAME=MODEL").into());
        }
    }
    Ok(Config {
        models,
        any_model_name: args.any_model_name,
        sampling: defaults(&args.defaults)?,
        context: args.context,
        parallel: args.parallel,
        kv_bytes: args
            .kv_memory
            .map(|mb| mb.saturating_mul(MB))
            .or_else(|| system::available_memory().map(|free| free / KV_SHARE)),
        ..Config::default()
    })
}

/// How tokens are chosen where a request does not say.
fn defaults(args: &DefaultsArgs) -> Result<SamplingDefaults> {
    let DefaultsArgs { temperature, top_p, top_k, min_p, seed, max_tokens, .. } = *args;
    let DefaultsArgs { repetition_penalty, frequency_penalty, presence_penalty, .. } = *args;
    let usual = Sampling::default();
    // The same bounds as for a request.
    Sampling {
        temperature: temperature.unwrap_or(usual.temperature),
        top_p: top_p.unwrap_or(usual.top_p),
        min_p: min_p.unwrap_or(usual.min_p),
        repetition_penalty: repetition_penalty.unwrap_or(usual.repetition_penalty),
        frequency_penalty: frequency_penalty.unwrap_or(usual.frequency_penalty),
        presence_penalty: presence_penalty.unwrap_or(usual.presence_penalty),
        ..usual
    }
    .check(usize::MAX)?;
    Ok(SamplingDefaults {
        temperature,
        top_p,
        top_k,
        min_p,
        repetition_penalty,
        frequency_penalty,
        presence_penalty,
        seed,
        max_tokens,
    })
}

/// Models to measure a server with: `synthetic:SHAPE`, random weights as `edgellm benchmark` takes them, and `null`, which
/// costs nothing.
fn measured(text: &str, options: &LoadOptions) -> Option<ModelSource> {
    let origin = if text == "null" {
        Origin::Null
    } else {
        let name = text.strip_prefix("synthetic:")?;
        let shape = Shape::ALL.into_iter().find(|shape| shape.name() == name)?;
        let what = Synthetic { shape, layers: StoredType::Ternary, head: StoredType::Int4 };
        Origin::Synthetic(what, Box::new(options.clone()))
    };
    Some(ModelSource { name: text.trim_start_matches("synthetic:").to_owned(), origin })
}

/// The name and place of `[NAME=]MODEL`.
fn named(text: &str) -> Result<(String, std::path::PathBuf)> {
    if !Path::new(text).exists()
        && let Some((name, model)) = text.split_once('=')
        && !name.is_empty()
        && !name.contains(['/', ':'])
    {
        return Ok((name.to_owned(), resolve::model(model)?));
    }
    let path = resolve::model(text)?;
    let file = if Path::new(text).exists() { path.file_stem() } else { None };
    let name = file.and_then(|stem| stem.to_str()).unwrap_or(text.trim_start_matches("hf:"));
    Ok((name.to_owned(), path))
}
