//! The thread that owns a model.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};

use engine::scheduler::{Event, Job, Load, Refused};
use tokio::sync::mpsc;

use crate::backend::{Backend, Card};
use crate::config::SamplingDefaults;
use crate::grammar::Grammars;
use crate::metrics::{Clock, ModelMetrics};

/// What a request hears of one of its jobs.
#[derive(Debug)]
pub(crate) enum Update {
    /// It waits or runs.
    Accepted,
    /// It will not be run.
    Refused(Refused),
    /// See [`Event`].
    Event(Event),
}

/// Updates of all jobs of a request, each with the job's place among them.
pub(crate) type Updates = mpsc::Receiver<(usize, Update)>;

/// A job on its way to the thread.
pub(crate) struct Submission {
    job: Job,
    client: Client,
}

/// Who hears of a job.
struct Client {
    clock: Clock,
    index: usize,
    updates: mpsc::Sender<(usize, Update)>,
}

impl Client {
    /// The channel has room for all updates of its jobs, so that nothing is lost and nobody waits.
    fn send(&self, update: Update) {
        // A client that has gone needs no update.
        let _ = self.updates.try_send((self.index, update));
    }
}

/// How busy a model is, as its thread last said.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) running: AtomicUsize,
    pub(crate) waiting: AtomicUsize,
    pub(crate) pages: AtomicUsize,
    pub(crate) remembered_pages: AtomicUsize,
    pub(crate) page_limit: AtomicUsize,
}

impl Gauges {
    fn set(&self, load: Load) {
        let all = [
            (&self.running, load.running),
            (&self.waiting, load.waiting),
            (&self.pages, load.pages),
            (&self.remembered_pages, load.remembered_pages),
            (&self.page_limit, load.page_limit),
        ];
        all.into_iter().for_each(|(gauge, value)| gauge.store(value, Ordering::Relaxed));
    }
}

/// A loaded model, from outside. The thread ends when the last handle has gone and its jobs have ended.
pub(crate) struct Handle {
    /// What is known of the model.
    pub(crate) card: Card,
    /// How busy it is.
    pub(crate) gauges: Arc<Gauges>,
    /// Grammars in its vocabulary.
    pub(crate) grammars: Arc<Grammars>,
    /// How its tokens are chosen where a request does not say.
    pub(crate) defaults: SamplingDefaults,
    commands: SyncSender<Submission>,
    next_id: Arc<AtomicU64>,
    /// The adapter that its jobs run with, and the model whose weights it shares.
    adapted: Option<(usize, Arc<Handle>)>,
}

impl Handle {
    pub(crate) fn new(
        card: Card,
        gauges: Arc<Gauges>,
        defaults: SamplingDefaults,
        commands: SyncSender<Submission>,
    ) -> Self {
        Self {
            card,
            gauges,
            grammars: Arc::default(),
            defaults,
            commands,
            next_id: Arc::default(),
            adapted: None,
        }
    }

    /// The same model running with its adapter `index`, under another name.
    pub(crate) fn with_adapter(self: &Arc<Self>, name: &str, index: usize) -> Self {
        Self {
            card: Card { name: name.to_owned(), ..self.card.clone() },
            gauges: self.gauges.clone(),
            grammars: self.grammars.clone(),
            defaults: self.defaults,
            commands: self.commands.clone(),
            next_id: self.next_id.clone(),
            adapted: Some((index, self.clone())),
        }
    }

    /// A channel with room for all updates of these jobs.
    pub(crate) fn channel(&self, jobs: &[Job]) -> (mpsc::Sender<(usize, Update)>, Updates) {
        let most = |job: &Job| job.max_tokens.unwrap_or(self.card.context).min(self.card.context) + 4;
        let room: usize = jobs.iter().map(most).sum();
        mpsc::channel(room.max(1))
    }

    /// Hands over a job, which is number `index` of its request. Its id is given here.
    pub(crate) fn send(
        &self,
        index: usize,
        job: Job,
        updates: &mpsc::Sender<(usize, Update)>,
    ) -> Result<(), NotSent> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let client = Client { clock: Clock::start(), index, updates: updates.clone() };
        let adapter = self.adapted.as_ref().map(|(index, _)| *index);
        self.commands.try_send(Submission { job: Job { id, adapter, ..job }, client }).map_err(|error| {
            match error {
                TrySendError::Full(submission) => NotSent::NoRoom(Box::new(submission.job)),
                TrySendError::Disconnected(_) => NotSent::Ended,
            }
        })
    }
}

/// Why a job was not handed over.
pub(crate) enum NotSent {
    /// Too many are on their way already.
    NoRoom(Box<Job>),
    /// The thread has ended.
    Ended,
}

/// Runs jobs until no handle is left and all have ended.
pub(crate) fn serve(
    backend: &mut dyn Backend,
    commands: &Receiver<Submission>,
    gauges: &Gauges,
    metrics: &ModelMetrics,
) {
    let mut clients: HashMap<u64, Client> = HashMap::new();
    gauges.set(backend.load());
    loop {
        if clients.is_empty() {
            // Nothing to do until somebody asks.
            let Ok(submission) = commands.recv() else { return };
            take(backend, &mut clients, submission, metrics);
        }
        while let Ok(submission) = commands.try_recv() {
            take(backend, &mut clients, submission, metrics);
        }
        if clients.values().any(|client| client.updates.is_closed()) {
            let before = clients.len();
            clients.retain(|_, client| !client.updates.is_closed());
            backend.cancel(&mut |id| !clients.contains_key(&id));
            metrics.cancelled(before - clients.len());
        }
        let stepped = backend.step(&mut |id, event| {
            let Some(client) = clients.get_mut(&id) else { return };
            metrics.event(&mut client.clock, &event);
            let last = event.is_last();
            client.send(Update::Event(event));
            if last {
                clients.remove(&id);
            }
        });
        gauges.set(backend.load());
        if let Some(stepped) = stepped {
            metrics.step(stepped);
        }
    }
}

fn take(
    backend: &mut dyn Backend,
    clients: &mut HashMap<u64, Client>,
    submission: Submission,
    metrics: &ModelMetrics,
) {
    let Submission { job, client } = submission;
    let id = job.id;
    match backend.submit(job) {
        Ok(()) => {
            client.send(Update::Accepted);
            clients.insert(id, client);
        }
        Err(refused) => {
            metrics.refused();
            client.send(Update::Refused(refused));
        }
    }
}
