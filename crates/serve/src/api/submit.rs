//! New jobs, and waiting for them: what all APIs do alike.

use std::time::Duration;

use axum::http::{HeaderMap, header, uri::Authority};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::input;
use super::refusal::Refusal;
use super::state::{AppState, BASE};
use super::tokens::Caller;
use crate::engine::EngineError;
use crate::inputs::{self, InputProblem};
use crate::job::{Context, Job, Kind, NewJob};
use crate::queue::{Cap, Inserted};

/// How long a waiting request sleeps if nothing wakes it.
const POLL: Duration = Duration::from_secs(1);
/// The events that a webhook is told of.
pub const EVENTS: [&str; 4] = ["start", "output", "logs", "completed"];

/// A new id: 26 characters of a-z and 0-9 that nobody can guess.
pub fn new_id() -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut random = [0_u8; 26];
    // The system's generator fails on no system that is in use; a process that has none cannot do anything safely.
    SystemRandom::new().fill(&mut random).expect("the system has random numbers");
    random.iter().map(|byte| char::from(DIGITS[usize::from(byte % 32)])).collect()
}

/// A prediction of the base model that is to be made, with a new id.
pub fn prediction(state: &AppState, caller: &Caller, input: Map<String, Value>) -> NewJob {
    new_job(state, caller, Kind::Prediction, input)
}

/// A job of the base model that is to be made, with a new id.
pub fn new_job(state: &AppState, caller: &Caller, kind: Kind, input: Map<String, Value>) -> NewJob {
    NewJob {
        id: new_id(),
        kind,
        owner: caller.name.clone(),
        model: BASE.into(),
        version: state.version.clone(),
        input,
        destination: None,
        webhook: None,
        webhook_events: Vec::new(),
        source: "api".into(),
        cancel_after: None,
        context: Context { trace: caller.trace.clone(), ..Context::default() },
    }
}

/// A job, and whether a request made it or found it.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    /// The job.
    pub job: Job,
    /// Whether the job was made.
    pub is_new: bool,
}

/// Puts a job into the queue. Its input is checked, against the schema of the command line, which has all samplers.
///
/// # Errors
/// The input is invalid, the queue is full, or the service cannot do it now. Nothing is made.
pub async fn submit(state: &AppState, job: NewJob) -> Result<Job, Refusal> {
    submit_once(state, job).await.map(|submitted| submitted.job)
}

/// [`submit`], where a job with the id may be there already.
///
/// # Errors
/// As [`submit`].
pub async fn submit_once(state: &AppState, mut job: NewJob) -> Result<Submitted, Refusal> {
    if state.is_draining() {
        return Err(Refusal::unavailable("The service is about to end, and takes no new jobs"));
    }
    let checked = input::check(input::wide_schema(job.kind), job.input)?;
    job.input = checked.fields;
    job.context.warnings.extend(checked.warnings);
    let checked = match job.kind {
        Kind::Prediction => state.engine.check_prediction(&job.input),
        Kind::Training | Kind::Preparation => state.engine.check_training(&job.input),
    };
    checked.map_err(|e| match e {
        EngineError::Input { field, problem } => Refusal::input(&field, problem),
        e => {
            tracing::error!("the check of an input: {e}");
            Refusal::unavailable("The service cannot check the input now")
        }
    })?;
    let checked = inputs::check(&state.inputs, input::wide_schema(job.kind), &job.input);
    checked.map_err(|(field, problem)| Refusal::input(&field, problem))?;
    if let Some(webhook) = &job.webhook {
        let checked = state.inputs.client().check_url(webhook);
        checked.map_err(|problem| Refusal::body("webhook", problem))?;
    }
    let kind = job.kind;
    // The last part is new each time: a request that repeats a job's id leaves the job's files alone.
    let folder = format!("jobs/{}/input/{}", job.id, new_id());
    let stored = inputs::store_large(&state.inputs, input::wide_schema(kind), &mut job.input, &folder).await;
    let stored = stored.map_err(|problem| match problem {
        InputProblem::Client { field, problem } => Refusal::input(&field, problem),
        InputProblem::Ours(e) => e.into(),
    })?;
    let cap = Cap { of_kind: state.settings.max_queue, of_owner: state.tokens.most_waiting(&job.owner) };
    let inserted = state.queue.insert(job, cap).await;
    if !matches!(inserted, Ok(Inserted::New(_))) {
        stored.discard().await;
    }
    match inserted? {
        Inserted::New(job) => Ok(Submitted { job, is_new: true }),
        Inserted::Exists(job) if job.made.kind != kind => {
            let other = job.made.kind.name();
            Err(Refusal::body("id", format!("expected the id of a {}, found that of a {other}", kind.name())))
        }
        Inserted::Exists(job) => Ok(Submitted { job, is_new: false }),
        Inserted::Full => Err(Refusal::full()),
        Inserted::OwnerFull => Err(Refusal::full_of_caller(cap.of_owner.unwrap_or_default())),
    }
}

/// Waits until a job is over, for `at_most`. Returns the job as it is at the end, over or not. A database that does not answer is waited for.
/// A service that ends does not wait for jobs that no worker has.
pub async fn wait(state: &AppState, job: Job, at_most: Duration) -> Job {
    let mut last = job;
    let (kind, id) = (last.made.kind, last.id().to_owned());
    let mut changes = state.queue.changes();
    let mut drain = state.drain.subscribe();
    let until_over = async {
        loop {
            match state.queue.get(kind, &id).await {
                Ok(Some(job)) => last = job,
                // Retention has deleted it.
                Ok(None) => return,
                Err(e) => tracing::warn!(job = id, "{e}"),
            }
            let waits = last.started_at.is_none();
            if last.status.is_over() || (waits && *drain.borrow()) {
                return;
            }
            tokio::select! {
                () = changed(&mut changes, &id) => {}
                () = tokio::time::sleep(POLL) => {}
                _ = drain.wait_for(|drain| *drain), if waits => {}
            }
        }
    };
    // Time is up, or the job is over: `last` says which.
    let _ = tokio::time::timeout(at_most, until_over).await;
    last
}

/// Waits until the queue says that a job has changed, or that changes were missed.
pub async fn changed(changes: &mut tokio::sync::broadcast::Receiver<String>, id: &str) {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match changes.recv().await {
            Ok(changed) if changed != id => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Cancels a job when it is dropped: a client that hangs up does not want its answer any more.
pub struct CancelOnDrop {
    state: AppState,
    /// `None`: the job is kept.
    job: Option<(Kind, String)>,
}

impl CancelOnDrop {
    /// A guard of a job.
    pub fn new(state: &AppState, job: &Job) -> CancelOnDrop {
        CancelOnDrop { state: state.clone(), job: Some((job.made.kind, job.id().to_owned())) }
    }

    /// Leaves the job alone from now on.
    pub fn keep(mut self) {
        self.job = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let (Some((kind, id)), Ok(runtime)) = (self.job.take(), Handle::try_current()) else { return };
        let queue = self.state.queue.clone();
        runtime.spawn(async move {
            if let Err(e) = queue.cancel(kind, &id).await {
                tracing::warn!(job = id, "not canceled: {e}");
            }
        });
    }
}

/// The service's URL as a client sees it, without a slash at its end: the public one, or what the client's request says.
pub fn url_base(state: &AppState, headers: &HeaderMap) -> String {
    if let Some(url) = &state.settings.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    match host {
        Some(host) if !host.as_str().contains('@') => format!("http://{host}"),
        _ => format!("http://{}", state.settings.listen),
    }
}

/// The address and the events of a webhook in a body.
///
/// # Errors
/// A field has the wrong type, or an event is unknown.
pub fn webhook(body: &Map<String, Value>) -> Result<(Option<String>, Vec<String>), Refusal> {
    let url = super::body::text(body, "webhook")?;
    let wrong = |found: &Value| {
        let expected = EVENTS.join(", ");
        let problem =
            format!("expected a list of events out of {expected}, found {}", super::body::short(found));
        Refusal::body("webhook_events_filter", problem)
    };
    let events = match body.get("webhook_events_filter") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(events)) => {
            let known = |event: &Value| event.as_str().filter(|name| EVENTS.contains(name)).map(String::from);
            events.iter().map(|event| known(event).ok_or_else(|| wrong(event))).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong(other)),
    };
    Ok((url, events))
}
