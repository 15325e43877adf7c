//! `/v1/batches`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::extract::State;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use utoipa::ToSchema;

use super::Progress;
use super::files::{Page, PageQuery, disk, store};
use super::journal::Journal;
use super::line::{self, Done, ENDPOINTS, Fault, Line};
use super::store::{FileObject, Kept, Store};
use crate::auth::current;
use crate::body;
use crate::error::ApiError;
use crate::ids;
use crate::state::Gate;

/// How far a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BatchStatus)]
pub(crate) enum Status {
    Validating,
    Failed,
    InProgress,
    Finalizing,
    Completed,
    Cancelling,
    Cancelled,
}

/// A batch.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Batch {
    id: String,
    object: String,
    endpoint: String,
    errors: Option<Faults>,
    input_file_id: String,
    completion_window: String,
    status: Status,
    /// File of the answers, once it has ended.
    output_file_id: Option<String>,
    /// File of the refusals, once it has ended.
    error_file_id: Option<String>,
    created_at: u64,
    in_progress_at: Option<u64>,
    finalizing_at: Option<u64>,
    completed_at: Option<u64>,
    failed_at: Option<u64>,
    cancelling_at: Option<u64>,
    cancelled_at: Option<u64>,
    request_counts: Counts,
    metadata: Option<HashMap<String, String>>,
}

/// What is wrong with a file of requests.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Faults {
    object: String,
    data: Vec<Fault>,
}

/// Requests of a batch.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct Counts {
    total: usize,
    completed: usize,
    failed: usize,
}

impl From<Progress> for Counts {
    fn from(Progress { total, completed, failed }: Progress) -> Self {
        Self { total, completed, failed }
    }
}

impl Kept for Batch {
    const FOLDER: &'static str = "batches";

    fn key(&self) -> (&str, u64) {
        (&self.id, self.created_at)
    }
}

/// The body of a request for a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest {
    /// A file of purpose `batch`.
    input_file_id: String,
    /// Where its requests go.
    endpoint: String,
    /// Only `24h`; it starts as soon as the batches before it have ended.
    completion_window: String,
    metadata: Option<HashMap<String, String>>,
}

/// The batches that have not ended.
pub(crate) struct Running {
    live: Mutex<HashMap<String, Live>>,
    /// One at a time runs: more would only wait for the same model.
    turn: Semaphore,
}

impl Default for Running {
    fn default() -> Self {
        Self { live: Mutex::default(), turn: Semaphore::new(1) }
    }
}

struct Live {
    cancel: watch::Sender<bool>,
    counts: Counts,
}

impl Running {
    fn live(&self) -> MutexGuard<'_, HashMap<String, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The batch with what is known of its progress.
    fn refresh(&self, mut batch: Batch) -> Batch {
        if let Some(live) = self.live().get(&batch.id) {
            batch.request_counts = live.counts;
            if *live.cancel.borrow() {
                batch.status = Status::Cancelling;
            }
        }
        batch
    }
}

/// Takes a batch.
pub(crate) async fn create(
    State(gate): State<Gate>,
    body::Json(request): body::Json<BatchRequest>,
) -> Result<Json<Batch>, ApiError> {
    let store = store(&gate.app)?;
    if !ENDPOINTS.contains(&request.endpoint.as_str()) {
        return Err(ApiError::param("endpoint", format!("it must be one of {}", ENDPOINTS.join(", "))));
    }
    if request.completion_window != "24h" {
        return Err(ApiError::param("completion_window", "it must be 24h"));
    }
    let file = store.get::<FileObject>(&request.input_file_id);
    if file.is_err() {
        return Err(ApiError::param("input_file_id", "there is no such file"));
    }
    let batch = Batch {
        id: ids::new("batch_"),
        object: "batch".to_owned(),
        endpoint: request.endpoint,
        errors: None,
        input_file_id: request.input_file_id,
        completion_window: request.completion_window,
        status: Status::Validating,
        output_file_id: None,
        error_file_id: None,
        created_at: ids::now(),
        in_progress_at: None,
        finalizing_at: None,
        completed_at: None,
        failed_at: None,
        cancelling_at: None,
        cancelled_at: None,
        request_counts: Counts::default(),
        metadata: request.metadata,
    };
    store.put(&batch).map_err(|error| disk(&error, "batch"))?;
    match current() {
        Some(call) => {
            let subject = &call.identity.subject;
            store.put_subject::<Batch>(&batch.id, subject).map_err(|error| disk(&error, "batch"))?;
            start(&gate.on_behalf_of(subject, store), batch.clone());
        }
        None => start(&gate, batch.clone()),
    }
    Ok(Json(batch))
}

/// Lists batches, the newest first.
pub(crate) async fn list(
    State(gate): State<Gate>,
    body::Query(query): body::Query<PageQuery>,
) -> Result<Json<Page<Batch>>, ApiError> {
    let all: Vec<Batch> = store(&gate.app)?.list().map_err(|error| disk(&error, "batch"))?;
    let all = all.into_iter().map(|batch| gate.app.batches.refresh(batch)).collect();
    Ok(Json(Page::of(all, &query)?))
}

/// Tells how far a batch is.
pub(crate) async fn get(
    State(gate): State<Gate>,
    body::Path(id): body::Path,
) -> Result<Json<Batch>, ApiError> {
    let batch = store(&gate.app)?.get(&id).map_err(|error| disk(&error, "batch"))?;
    Ok(Json(gate.app.batches.refresh(batch)))
}

/// Stops a batch; the results so far are kept.
pub(crate) async fn cancel(
    State(gate): State<Gate>,
    body::Path(id): body::Path,
) -> Result<Json<Batch>, ApiError> {
    let store = store(&gate.app)?;
    let batch: Batch = store.get(&id).map_err(|error| disk(&error, "batch"))?;
    let is_running = gate.app.batches.live().get(&id).map(|live| live.cancel.send_replace(true)).is_some();
    if !is_running {
        return Err(ApiError::bad_request("This batch has ended already"));
    }
    let mut batch = gate.app.batches.refresh(batch);
    batch.cancelling_at.get_or_insert_with(ids::now);
    // A process that starts anew knows of it too.
    store.put(&batch).map_err(|error| disk(&error, "batch"))?;
    Ok(Json(batch))
}

/// Goes on with the batches that the process before left.
pub(crate) fn resume(gate: &Gate) {
    let Some(store) = &gate.store else { return };
    for own in store.of_owners() {
        resume_owned(gate, &own);
    }
    let Ok(mut all) = store.list::<Batch>() else { return };
    all.reverse();
    all.into_iter().filter(|batch| !batch.has_ended()).for_each(|batch| start(gate, batch));
}

/// The same for the batches of one owner.
fn resume_owned(gate: &Gate, store: &Store) {
    let Ok(mut all) = store.list::<Batch>() else { return };
    all.reverse();
    for batch in all.into_iter().filter(|batch| !batch.has_ended()) {
        if let Some(subject) = store.subject::<Batch>(&batch.id) {
            start(&gate.on_behalf_of(&subject, store.clone()), batch);
        }
    }
}

fn start(gate: &Gate, mut batch: Batch) {
    let (cancel, cancelled) = watch::channel(batch.status == Status::Cancelling);
    gate.app.batches.live().insert(batch.id.clone(), Live { cancel, counts: batch.request_counts });
    let gate = gate.clone();
    tokio::spawn(async move {
        if let Err(error) = work(&gate, &mut batch, cancelled).await {
            let data = vec![Fault {
                code: "server_error".to_owned(),
                line: 0,
                message: error.to_string(),
                param: None,
            }];
            batch.fail(data);
        }
        if let Some(store) = &gate.store {
            // Where even this cannot be written, the batch is taken up again at the next start.
            let _ = store.put(&batch);
        }
        gate.app.batches.live().remove(&batch.id);
    });
}

impl Batch {
    /// Whether nothing is left to be done.
    fn has_ended(&self) -> bool {
        matches!(self.status, Status::Failed | Status::Completed | Status::Cancelled)
    }

    fn fail(&mut self, data: Vec<Fault>) {
        self.status = Status::Failed;
        self.failed_at = Some(ids::now());
        self.errors = Some(Faults { object: "list".to_owned(), data });
    }
}

/// Runs a batch to its end.
async fn work(gate: &Gate, batch: &mut Batch, mut cancelled: watch::Receiver<bool>) -> io::Result<()> {
    let app = &gate.app;
    let _turn = app.batches.turn.acquire().await.map_err(io::Error::other)?;
    let store = gate.store.clone().ok_or_else(|| io::Error::other("no files are kept"))?;
    let (content, endpoint) = (store.content(&batch.input_file_id)?, batch.endpoint.clone());
    let read = move || Ok::<_, io::Error>(line::parse(BufReader::new(File::open(content)?), Some(&endpoint)));
    let lines: Vec<Line> = match tokio::task::spawn_blocking(read).await?? {
        Ok(lines) => lines,
        Err(faults) => {
            batch.fail(faults);
            return Ok(());
        }
    };
    let total = lines.len();
    let mut journal = Journal::open(&store.journal::<Batch>(&batch.id)?, &lines)?;
    if !*cancelled.borrow() {
        batch.status = Status::InProgress;
    }
    batch.in_progress_at.get_or_insert_with(ids::now);
    batch.request_counts = Progress::of(total, &journal.done).into();
    store.put(batch)?;
    let mut results = std::pin::pin!(line::run(gate.api.clone(), lines, &journal, app.config.parallel));
    loop {
        let counts: Counts = Progress::of(total, &journal.done).into();
        batch.request_counts = counts;
        if let Some(live) = app.batches.live().get_mut(&batch.id) {
            live.counts = counts;
        }
        let next = tokio::select! {
            _ = cancelled.wait_for(|is| *is) => {
                batch.cancelling_at.get_or_insert_with(ids::now);
                break;
            }
            next = results.next() => next,
        };
        let Some(Done { place, request, outcome }) = next else { break };
        journal.add(place, request, outcome)?;
    }
    batch.finalizing_at = Some(ids::now());
    let journal = keep(&store, batch, journal).await?;
    let ended = Some(ids::now());
    if batch.cancelling_at.is_some() {
        (batch.status, batch.cancelled_at) = (Status::Cancelled, ended);
    } else {
        (batch.status, batch.completed_at) = (Status::Completed, ended);
    }
    store.put(batch)?;
    journal.remove()
}

/// Makes files of the results.
async fn keep(store: &super::store::Store, batch: &mut Batch, journal: Journal) -> io::Result<Journal> {
    let (store, id) = (store.clone(), batch.id.clone());
    let write = move || {
        let mut ids = [None, None];
        for (place, is_success, name) in [(0, true, "output"), (1, false, "error")] {
            if journal.done.iter().any(|(_, success)| *success == is_success) {
                let mut file = FileObject::new(&format!("{id}_{name}.jsonl"), "batch_output", 0);
                file.bytes =
                    journal.write_sorted(&store.content(&file.id)?, |success| success == is_success)?;
                store.put(&file)?;
                ids[place] = Some(file.id);
            }
        }
        Ok::<_, io::Error>((journal, ids))
    };
    let (journal, [output, error]) = tokio::task::spawn_blocking(write).await??;
    (batch.output_file_id, batch.error_file_id) = (output, error);
    Ok(journal)
}
