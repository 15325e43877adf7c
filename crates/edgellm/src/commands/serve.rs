//! `edgellm serve`: the gateway with models of the command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use engine::sampler::Sampling;
use engine::synthetic::{Shape, Synthetic};
use engine::{LoadOptions, StoredType};
use gateway::config::TlsFiles;
use gateway::log::{Level, Log};
use gateway::trace::TraceConfig;
use gateway::{Config, ModelSource, Origin, Reload, SamplingDefaults};
use tokio::net::TcpListener;
use tokio::sync::watch;
use ureq::http::{Request, Response};

use super::config::{File, FileLimits};
use super::{access, load, system};
use crate::args::{DefaultsArgs, LogLevel, ModelsArgs, ServeArgs};
use crate::built_in;
use crate::failure::Failure;
use crate::output;
use crate::resolve;

/// Part of the free memory that keys and values may take: one in so many.
const KV_SHARE: u64 = 4;
/// The port where none is said.
const PORT: u16 = 8080;
const MB: u64 = 1_000_000;
/// For spans to be taken.
const POST: Duration = Duration::from_secs(10);
/// Bytes of a collector's answer.
const ANSWER: u64 = 1 << 16;

/// Serves until a signal says to stop.
pub(crate) fn run(args: ServeArgs) -> Result<()> {
    let said = args.clone();
    let (args, config) = settled(args)?;
    runtime()?.block_on(serve(&args, said, config))
}

/// The options with what the file adds to them, and the configuration that they make.
pub(super) fn settled(mut args: ServeArgs) -> Result<(ServeArgs, Config)> {
    let file = args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
    let limits = file.fill(&mut args);
    let (host, _) = address(&args);
    if args.no_auth && !host.is_loopback() {
        let problem = format!("without keys everybody who reaches {host} is answered");
        let hint = "leave out --no-auth and make a key: edgellm keys create --role admin";
        return Err(Failure::new(problem, hint).into());
    }
    let config = config(&args, limits)?;
    Ok((args, config))
}

/// Where to listen.
pub(super) fn address(args: &ServeArgs) -> (IpAddr, u16) {
    (args.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), args.port.unwrap_or(PORT))
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

/// `said` are the options without what the file adds to them.
async fn serve(args: &ServeArgs, said: ServeArgs, config: Config) -> Result<()> {
    let (host, port) = address(args);
    let address = SocketAddr::new(host, port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let names: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    output::note(&format!("serving {} at {scheme}://{}", names.join(", "), listener.local_addr()?));
    let config = Config { reload: Some(reload(said)?), ..config };
    gateway::run(listener, config, stop_signal()?).await?;
    Ok(())
}

/// Models and limits, read from the configuration file again at each SIGHUP. A file that is wrong changes nothing, and what is
/// wrong with it is said.
#[cfg(unix)]
fn reload(said: ServeArgs) -> Result<watch::Receiver<Reload>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for signals")?;
    let (sender, receiver) = watch::channel(Reload::default());
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match settled(said.clone()) {
                Ok((_, config)) => {
                    let names: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
                    output::note(&format!("read anew: models {}, and limits", names.join(", ")));
                    let limits = config.access.map(|access| access.limits).unwrap_or_default();
                    if sender.send(Reload { models: config.models, limits }).is_err() {
                        return;
                    }
                }
                Err(error) => output::error(&error, None),
            }
        }
    });
    Ok(receiver)
}

/// There is no SIGHUP.
#[cfg(not(unix))]
fn reload(_: ServeArgs) -> Result<watch::Receiver<Reload>> {
    Ok(watch::channel(Reload::default()).1)
}

/// Traces to this collector. The exporter gives up after a while, and so must what sends.
fn trace(args: &ServeArgs) -> Option<TraceConfig> {
    let collector = args.trace.clone().filter(|url| !url.is_empty())?;
    Some(TraceConfig { collector, post })
}

/// Sends spans, by a connection that is kept.
fn post(request: Request<Bytes>) -> Result<Response<Bytes>, String> {
    static AGENT: OnceLock<ureq::Agent> = OnceLock::new();
    let agent = AGENT.get_or_init(|| {
        let config = ureq::Agent::config_builder().timeout_global(Some(POST)).http_status_as_error(false);
        ureq::Agent::new_with_config(config.build())
    });
    let (head, body) = request.into_parts();
    let answer = agent.run(Request::from_parts(head, &body[..])).map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = body.into_with_config().limit(ANSWER).read_to_vec().map_err(|error| error.to_string())?;
    Ok(Response::from_parts(head, body.into()))
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

fn config(args: &ServeArgs, limits: FileLimits) -> Result<Config> {
    let usual = Config::default();
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    Ok(Config {
        queue: args.queue.unwrap_or(usual.queue),
        memory: args.memory.map(|mb| mb.saturating_mul(MB)),
        idle: args.idle.map_or(usual.idle, Duration::from_secs),
        grace: args.grace.map_or(usual.grace, Duration::from_secs),
        tls: tls.map(|(certificates, key)| TlsFiles { certificates, key }),
        cors: args.cors.clone(),
        data: args.data.clone(),
        log: log(args.log_level.unwrap_or(LogLevel::Off)),
        trace: trace(args),
        access: if args.no_auth { None } else { Some(access::config(&args.access, limits)?) },
        ..models(&args.models)?
    })
}

/// Tells of requests on standard error.
fn log(level: LogLevel) -> Option<Log> {
    let level = match level {
        LogLevel::Off => return None,
        LogLevel::Error => Level::Error,
        LogLevel::Warn => Level::Warn,
        LogLevel::Info => Level::Info,
    };
    Some(Log { level, sink: Arc::new(output::note) })
}

/// A configuration with these models and nothing else.
pub(super) fn models(args: &ModelsArgs) -> Result<Config> {
    let template = args.chat_template.as_deref().map(load::file).transpose()?;
    let options = load::options(&args.run, template);
    let carried = [built_in::NAME.to_owned()];
    let named_models = if args.model.is_empty() { &carried[..] } else { &args.model };
    let models = named_models.iter().map(|model| {
        if let Some(source) = measured(model, &options) {
            return Ok(source);
        }
        let (name, path) = named(model)?;
        Ok(ModelSource { name, origin: Origin::Path(path, Box::new(options.clone())) })
    });
    let mut models: Vec<ModelSource> = models.collect::<Result<_>>()?;
    let first = models.first().map(|model| model.name.clone()).unwrap_or_default();
    for text in &args.lora {
        let wrong = || {
            let hint = "as in --lora NAME=DIR, or adapters = [\"NAME=DIR\"] in the configuration file";
            Failure::new(format!("adapter {text}: not a name and a folder"), hint)
        };
        let (name, folder) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
        let origin = Origin::Adapter { base: first.clone(), folder: folder.into() };
        models.push(ModelSource { name: name.to_owned(), origin });
    }
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
        parallel: args.parallel.unwrap_or(Config::default().parallel),
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
