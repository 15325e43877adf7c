//! The models by name: loaded when they are asked for, unloaded when they are idle or in the way.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use engine::scheduler::Limits;
use engine::{EngineError, Model};
use tokio::sync::oneshot;

use crate::auth::may_use;
use crate::backend::{Card, ModelBackend, NullBackend, null_card, placeholders};
use crate::config::{Config, ModelSource, Origin, SamplingDefaults};
use crate::engine_thread::{Gauges, Handle, serve};
use crate::error::ApiError;
use crate::limits;
use crate::metrics::{Metrics, ModelMetrics};

/// Context of models that were made for a longer one, unless the configuration says otherwise.
const DEFAULT_CONTEXT: usize = 8192;

/// Keys and values of a model, unless the configuration says otherwise.
const DEFAULT_KV_BYTES: u64 = 1 << 30;

/// All models of a server.
pub(crate) struct Models {
    slots: RwLock<Slots>,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    ready: AtomicBool,
    /// One at a time is loaded.
    loading: tokio::sync::Mutex<()>,
}

/// The models as they are at one moment.
pub(crate) type Slots = Arc<[Arc<Slot>]>;

/// A model that may be loaded.
pub(crate) struct Slot {
    pub(crate) source: ModelSource,
    /// Bytes and time of its file when it was named.
    file: (u64, u64),
    /// The adapters that share its weights: each folder with bytes and time of its files.
    adapters: Vec<(PathBuf, (u64, u64))>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    loaded: Option<Loaded>,
    /// How long it is kept, if a request has said so.
    keep: Option<Duration>,
    error: Option<String>,
}

#[derive(Clone)]
struct Loaded {
    handle: Arc<Handle>,
    used: Instant,
}

impl Slot {
    /// One of `all` models.
    fn new(source: ModelSource, all: &[ModelSource]) -> Self {
        let adapters = all.iter().filter_map(|other| match &other.origin {
            Origin::Adapter { base, folder } if *base == source.name => Some((folder.clone(), other.file())),
            _ => None,
        });
        Self { file: source.file(), adapters: adapters.collect(), source, state: Mutex::default() }
    }

    /// Whether it is the same model of the same file.
    fn is_same(&self, other: &Self) -> bool {
        let same_origin = match (&self.source.origin, &other.source.origin) {
            (Origin::Path(a, _), Origin::Path(b, _)) => a == b,
            (Origin::Synthetic(a, _), Origin::Synthetic(b, _)) => a == b,
            (Origin::Null, Origin::Null) => true,
            (Origin::Adapter { base: a, folder: x }, Origin::Adapter { base: b, folder: y }) => {
                a == b && x == y
            }
            _ => false,
        };
        same_origin
            && self.source.name == other.source.name
            && self.file == other.file
            && self.adapters == other.adapters
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model, if it is loaded.
    pub(crate) fn loaded(&self) -> Option<Arc<Handle>> {
        self.state().loaded.as_ref().map(|loaded| loaded.handle.clone())
    }

    /// How long ago it was asked for, if it is loaded.
    pub(crate) fn idle(&self) -> Option<Duration> {
        self.state().loaded.as_ref().map(|loaded| loaded.used.elapsed())
    }

    /// Lets go of it: its thread ends with the last request.
    pub(crate) fn unload(&self) {
        self.state().loaded = None;
    }

    fn touch(&self) -> Option<Arc<Handle>> {
        let mut state = self.state();
        let loaded = state.loaded.as_mut()?;
        loaded.used = Instant::now();
        Some(loaded.handle.clone())
    }

    fn is_busy(&self) -> bool {
        let busy = |handle: &Handle| {
            let Gauges { running, waiting, .. } = &*handle.gauges;
            running.load(Ordering::Relaxed) + waiting.load(Ordering::Relaxed) > 0
        };
        // A request holds its handle until it has ended.
        self.state().loaded.as_ref().is_some_and(|l| busy(&l.handle) || Arc::strong_count(&l.handle) > 1)
    }
}

impl Models {
    pub(crate) fn new(config: Arc<Config>, metrics: Arc<Metrics>) -> Self {
        Self {
            slots: RwLock::new(
                config
                    .models
                    .iter()
                    .map(|source| Arc::new(Slot::new(source.clone(), &config.models)))
                    .collect(),
            ),
            config,
            metrics,
            ready: AtomicBool::new(false),
            loading: tokio::sync::Mutex::default(),
        }
    }

    /// All of them, the default one first.
    pub(crate) fn slots(&self) -> Slots {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Other models from now on. Those that were there before stay as they are, unless their file has changed. Requests that
    /// run end on the model that they have begun with. Gives those that are gone.
    pub(crate) fn replace(&self, sources: Vec<ModelSource>) -> Vec<Arc<Slot>> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let (before, mut now) = (slots.clone(), Vec::with_capacity(sources.len()));
        for source in &sources {
            let slot = Slot::new(source.clone(), &sources);
            let same = before.iter().find(|other| other.is_same(&slot));
            now.push(same.cloned().unwrap_or_else(|| Arc::new(slot)));
        }
        *slots = now.into();
        before.iter().filter(|old| !slots.iter().any(|slot| Arc::ptr_eq(slot, old))).cloned().collect()
    }

    /// Why the default model could not be loaded, if so.
    pub(crate) fn error(&self) -> Option<String> {
        self.slots().first().and_then(|slot| slot.state().error.clone())
    }

    /// Whether the default model has been loaded once.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// The model of this name (Ollama's `:latest` is nothing to it), without loading it.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Slot>, ApiError> {
        let plain = name.strip_suffix(":latest").unwrap_or(name);
        let slots = self.slots();
        let found = slots.iter().find(|slot| slot.source.name == name || slot.source.name == plain);
        // A model that is not for whoever asks is told from none by nobody.
        found.filter(|slot| may_use(&slot.source.name)).cloned().ok_or_else(|| ApiError::no_model(name))
    }

    /// All that are for whoever asks, the default one first.
    pub(crate) fn visible(&self) -> Vec<Arc<Slot>> {
        self.slots().iter().filter(|slot| may_use(&slot.source.name)).cloned().collect()
    }

    /// The model of this name, loaded; the default one for none.
    ///
    /// # Errors
    /// 404 for an unknown name, 503 when it cannot be loaded.
    pub(crate) async fn get(&self, name: Option<&str>) -> Result<Arc<Handle>, ApiError> {
        let slot = match name {
            Some(name) => match self.find(name) {
                Err(_) if self.config.any_model_name => self.default_model()?,
                found => found?,
            },
            None => self.default_model()?,
        };
        let Origin::Adapter { base, folder } = &slot.source.origin else { return self.load(&slot).await };
        let slots = self.slots();
        let found = slots.iter().find_map(|slot| {
            let index = slot.adapters.iter().position(|(known, _)| known == folder);
            Some((slot, index.filter(|_| slot.source.name == *base)?))
        });
        let name = &slot.source.name;
        let gone = || ApiError::unavailable(format!("The model '{base}', on which '{name}' runs, has gone"));
        let (base, index) = found.ok_or_else(gone)?;
        Ok(Arc::new(self.load(base).await?.with_adapter(name, index)))
    }

    /// A model with weights of its own, loaded.
    async fn load(&self, slot: &Arc<Slot>) -> Result<Arc<Handle>, ApiError> {
        if let Some(handle) = slot.touch() {
            return Ok(handle);
        }
        let _one_at_a_time = self.loading.lock().await;
        if let Some(handle) = slot.touch() {
            return Ok(handle);
        }
        self.make_room(slot).await;
        let adapters = slot.adapters.iter().map(|(folder, _)| folder.clone()).collect();
        match load(slot.source.clone(), adapters, &self.config, self.metrics.of_model(&slot.source.name))
            .await
        {
            Ok(handle) => {
                let handle = Arc::new(handle);
                self.ready.store(true, Ordering::Relaxed);
                let mut state = slot.state();
                state.error = None;
                state.loaded = Some(Loaded { handle: handle.clone(), used: Instant::now() });
                Ok(handle)
            }
            Err(problem) => {
                let message = format!("The model '{}' cannot be loaded: {problem}", slot.source.name);
                slot.state().error = Some(message.clone());
                Err(ApiError::unavailable(message))
            }
        }
    }

    /// The first that is for whoever asks.
    fn default_model(&self) -> Result<Arc<Slot>, ApiError> {
        let first = self.slots().iter().find(|slot| may_use(&slot.source.name)).cloned();
        first.ok_or_else(|| ApiError::unavailable("There is no model"))
    }

    /// From now on the model is kept so long after its last request; `None` changes nothing.
    pub(crate) fn keep(&self, name: &str, keep: Option<Duration>) {
        let (Ok(slot), Some(keep)) = (self.find(name), keep) else { return };
        let slots = self.slots();
        let base = match &slot.source.origin {
            Origin::Adapter { base, .. } => slots.iter().find(|slot| slot.source.name == *base),
            _ => Some(&slot),
        };
        if let Some(base) = base {
            base.state().keep = Some(keep);
        }
    }

    /// Unloads models that nobody has asked for in a while. The only one of a server stays unless a request has said
    /// how long it is to be kept.
    pub(crate) fn unload_idle(&self) {
        let slots = self.slots();
        for slot in slots.iter() {
            let others = slots.iter().filter(|slot| !matches!(slot.source.origin, Origin::Adapter { .. }));
            let keep = slot.state().keep.or((others.count() > 1).then_some(self.config.idle));
            let (Some(keep), Some(idle)) = (keep, slot.idle()) else { continue };
            if idle >= keep && !slot.is_busy() {
                slot.unload();
            }
        }
    }

    /// Unloads the models that were not asked for the longest until there is memory for this one.
    async fn make_room(&self, wanted: &Slot) {
        let Some(budget) = self.config.memory else { return };
        let (need, _) = wanted.source.file();
        let slots = self.slots();
        loop {
            let loaded: Vec<&Arc<Slot>> = slots.iter().filter(|slot| slot.loaded().is_some()).collect();
            let used: u64 = loaded.iter().filter_map(|slot| Some(slot.loaded()?.card.memory_bytes)).sum();
            let Some(oldest) = loaded.iter().max_by_key(|slot| slot.idle()) else { return };
            if used + need <= budget {
                return;
            }
            // New requests for it load it anew; those that have it finish first.
            let gone = oldest.state().loaded.take();
            while gone.as_ref().is_some_and(|gone| Arc::strong_count(&gone.handle) > 1) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Loads a model and its adapters on a thread of its own, which then answers requests.
async fn load(
    source: ModelSource,
    adapters: Vec<PathBuf>,
    config: &Config,
    metrics: ModelMetrics,
) -> Result<Handle, String> {
    let (ready, loaded) = oneshot::channel();
    let Config { parallel, queue, context, kv_bytes, sampling, .. } = *config;
    let thread = std::thread::Builder::new().name(format!("model {}", source.name));
    let run = move || match &source.origin {
        Origin::Path(..) | Origin::Synthetic(..) | Origin::Adapter { .. } => {
            let model = match model(&source.origin, &adapters) {
                Ok(model) => model,
                Err(error) => return drop(ready.send(Err(error.to_string()))),
            };
            let context = context.unwrap_or(DEFAULT_CONTEXT).min(model.config.seq_len);
            let kv_bytes = kv_bytes.unwrap_or(DEFAULT_KV_BYTES);
            let limits = Limits { context, running: parallel, waiting: queue, kv_bytes };
            let mut backend = match ModelBackend::new(&model, limits) {
                Ok(backend) => backend,
                Err(error) => return drop(ready.send(Err(error.to_string()))),
            };
            answer(Card::of(&source.name, &model, context), sampling, &mut backend, ready, &metrics);
        }
        Origin::Null => {
            let mut backend = NullBackend::new(parallel + queue);
            answer(null_card(&source.name), sampling, &mut backend, ready, &metrics);
        }
    };
    thread.spawn(run).map_err(|error| error.to_string())?;
    loaded.await.map_err(|_| "its thread ended".to_owned())?
}

/// The model of a file with its adapters, or random weights with a vocabulary of placeholders.
fn model(origin: &Origin, adapters: &[PathBuf]) -> Result<Model, EngineError> {
    let mut model = weights(origin)?;
    adapters.iter().try_for_each(|folder| model.add_adapter(folder).map(drop))?;
    Ok(model)
}

fn weights(origin: &Origin) -> Result<Model, EngineError> {
    match origin {
        Origin::Path(path, options) => Model::load(path, options),
        Origin::Synthetic(what, options) => {
            let mut model = Model::synthetic(*what, options)?;
            let (tokenizer, template) = placeholders(model.config.vocab_size);
            (model.tokenizer, model.chat_template) = (tokenizer, template);
            Ok(model)
        }
        Origin::Null | Origin::Adapter { .. } => {
            Err(EngineError::Request("this has no weights of its own".to_owned()))
        }
    }
}

/// Gives the handle away and serves.
fn answer(
    card: Card,
    sampling: SamplingDefaults,
    backend: &mut dyn crate::backend::Backend,
    ready: oneshot::Sender<Result<Handle, String>>,
    metrics: &ModelMetrics,
) {
    let (commands, receiver) = sync_channel(limits::COMMANDS);
    let gauges = Arc::new(Gauges::default());
    if ready.send(Ok(Handle::new(card, gauges.clone(), sampling, commands))).is_ok() {
        serve(backend, &receiver, &gauges, metrics);
    }
}
