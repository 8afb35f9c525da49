//! A job's events while it goes on: server-sent events, for the page and for Cog's clients.
//!
//! The events are the differences between the job as it was last seen and as it is now.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::{Map, Value, json};
use tokio::sync::{broadcast, watch};

use super::refusal::{CogRefusal, Refusal};
use super::render::{self, View};
use super::state::AppState;
use super::submit::{CancelOnDrop, changed};
use crate::error::Result;
use crate::job::{Job, Kind};

/// How long a stream waits for a change until it looks by itself.
const POLL: Duration = Duration::from_secs(1);
/// The time between two comments that keep a silent connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What the events tell beyond the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// The page's: `progress`, `preview`, and `completed` with the job in Replicate's form.
    Page,
    /// Cog's: `output`, `metric`, and `completed` with the job in Cog's form.
    Cog,
}

/// `GET /events/{prediction|training|preparation}/{id}`.
pub async fn events(
    State(state): State<AppState>,
    Path((kind, id)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> std::result::Result<Response, CogRefusal> {
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind);
    let kind = kind.ok_or_else(|| {
        Refusal::not_found("expected /events/prediction/ID, /events/training/ID or /events/preparation/ID")
    })?;
    let job = state.queue.get(kind, &id).await?;
    let job = job.ok_or_else(|| Refusal::not_found(format!("no {} {id}", kind.name())))?;
    let view = View::of(&state, &headers, &query);
    Ok(follow(&state, job, view, Names::Page, None))
}

/// The events of a job from its beginning to its end. `guard` is dropped with the stream, unless the job is over.
pub fn follow(state: &AppState, job: Job, view: View, names: Names, guard: Option<CancelOnDrop>) -> Response {
    let follower = Follower {
        state: state.clone(),
        changes: state.queue.changes(),
        drain: state.drain.subscribe(),
        kind: job.made.kind,
        id: job.id().to_owned(),
        news: Some(job),
        seen: Seen::new(names),
        view,
        events: VecDeque::new(),
        guard,
        is_running: false,
        is_over: false,
    };
    sse(stream(follower))
}

/// An answer of server-sent events.
pub(super) fn sse(
    events: impl Stream<Item = std::result::Result<Event, Infallible>> + Send + 'static,
) -> Response {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut answer = Sse::new(events).keep_alive(keep_alive).into_response();
    // Proxies would collect events before they pass them on.
    answer.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    answer
}

fn stream(follower: Follower) -> impl Stream<Item = std::result::Result<Event, Infallible>> {
    unfold(follower, |mut follower| async move {
        let (name, data) = follower.next().await?;
        // A value that was read as JSON is JSON.
        let event = Event::default().event(name).json_data(data).unwrap_or_default();
        Some((Ok(event), follower))
    })
}

struct Follower {
    state: AppState,
    changes: broadcast::Receiver<String>,
    drain: watch::Receiver<bool>,
    kind: Kind,
    id: String,
    /// The job as it is now, if that was not looked at yet.
    news: Option<Job>,
    seen: Seen,
    view: View,
    events: VecDeque<(&'static str, Value)>,
    guard: Option<CancelOnDrop>,
    is_running: bool,
    is_over: bool,
}

impl Follower {
    /// The next event. `None`: there are no more.
    async fn next(&mut self) -> Option<(&'static str, Value)> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            let job = match self.news.take() {
                Some(job) => job,
                None => self.wait().await?,
            };
            match self.look(&job).await {
                Ok(()) => {}
                Err(e) => {
                    tracing::warn!(job = self.id, "{e}");
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    /// The job after its next change. `None`: the job is gone, or the service ends. A service that ends finishes predictions that compute,
    /// whose clients wait for the result; the page asks again.
    async fn wait(&mut self) -> Option<Job> {
        let breaks_off = self.seen.names == Names::Page || !self.is_running;
        loop {
            tokio::select! {
                () = changed(&mut self.changes, &self.id) => {}
                () = tokio::time::sleep(POLL) => {}
                _ = self.drain.wait_for(|drain| *drain), if breaks_off => return None,
            }
            match self.state.queue.get(self.kind, &self.id).await {
                Ok(job) => return job,
                Err(e) => tracing::warn!(job = self.id, "{e}"),
            }
        }
    }

    /// Puts what is new into `events`.
    async fn look(&mut self, job: &Job) -> Result<()> {
        self.is_running = job.started_at.is_some();
        // Told, even if the storage does not answer below.
        self.events.extend(self.seen.news(job));
        if self.seen.names == Names::Page && !job.status.is_over() {
            self.previews(job).await;
        }
        if job.status.is_over() {
            let body = match self.seen.names {
                Names::Page => render::job(&self.state, job, &self.view).await?,
                Names::Cog => {
                    let body = cog_body(job, render::output(&self.state, job, &self.view).await?, &self.view);
                    self.events.extend(ended(&body));
                    body
                }
            };
            self.events.push_back(("completed", body));
            self.is_over = true;
            if let Some(guard) = self.guard.take() {
                guard.keep();
            }
        }
        Ok(())
    }

    /// Tells of new previews. Their bytes are in the event: the next preview removes the file, and so does the end of the job.
    async fn previews(&mut self, job: &Job) {
        for (index, key) in self.seen.new_previews(job.progress.as_ref().unwrap_or(&Value::Null)) {
            match self.state.storage.read(&key).await {
                Ok(Some(png)) => {
                    let url = format!("data:image/png;base64,{}", STANDARD.encode(png));
                    self.events.push_back(("preview", json!({ "index": index, "url": url })));
                }
                Ok(None) => {}
                Err(e) => tracing::warn!(job = self.id, "{e}"),
            }
        }
    }
}

/// The events of Cog's clients before the last: each output, each number.
fn ended(body: &Value) -> Vec<(&'static str, Value)> {
    let outputs = body["output"].as_array().into_iter().flatten().enumerate();
    let outputs = outputs.map(|(index, chunk)| ("output", json!({ "chunk": chunk, "index": index })));
    let numbers = body["metrics"].as_object().into_iter().flatten();
    let numbers =
        numbers.map(|(name, value)| ("metric", json!({ "name": name, "value": value, "mode": "replace" })));
    outputs.chain(numbers).collect()
}

/// A job in the form of Cog's API. What there is not is left out, as the document of the API knows no null.
pub fn cog_body(job: &Job, output: Value, view: &View) -> Value {
    let mut body = Map::new();
    body.insert("id".into(), job.id().into());
    body.insert("input".into(), render::input(job, view).into());
    body.insert("output".into(), output);
    body.insert("logs".into(), job.logs.as_str().into());
    body.insert("error".into(), job.error.clone().into());
    body.insert("status".into(), job.status.name().into());
    body.insert("metrics".into(), job.metrics.clone().into());
    body.insert("version".into(), job.made.version.as_str().into());
    body.insert("created_at".into(), render::time(job.created_at).into());
    body.insert("started_at".into(), job.started_at.map(render::time).into());
    body.insert("completed_at".into(), job.completed_at.map(render::time).into());
    body.retain(|_, value| !value.is_null());
    body.into()
}

/// What a stream has told so far.
struct Seen {
    names: Names,
    has_started: bool,
    /// Bytes of the log.
    logged: usize,
    progress: Value,
    /// The key of the last preview of each picture.
    previews: HashMap<u64, String>,
}

impl Seen {
    fn new(names: Names) -> Seen {
        Seen { names, has_started: false, logged: 0, progress: Value::Null, previews: HashMap::new() }
    }

    /// What is new in a job.
    fn news(&mut self, job: &Job) -> Vec<(&'static str, Value)> {
        let mut events = Vec::new();
        if !self.has_started && (job.started_at.is_some() || self.names == Names::Cog) {
            self.has_started = true;
            let status = if job.status.is_over() { "processing" } else { job.status.name() };
            events.push(("start", json!({ "id": job.id(), "status": status })));
        }
        // A byte within a character would be a mistake of the queue.
        if let Some(new) = job.logs.get(self.logged..).filter(|new| !new.is_empty()) {
            events.push(("log", json!({ "source": "stdout", "data": new })));
            self.logged = job.logs.len();
        }
        if self.names == Names::Page && !job.status.is_over() {
            events.extend(self.progress(job.progress.clone().unwrap_or_default()));
        }
        events
    }

    /// The numbers and the keys of previews that were not told yet.
    fn new_previews(&mut self, progress: &Value) -> Vec<(u64, String)> {
        let mut new = Vec::new();
        for preview in progress["previews"].as_array().into_iter().flatten() {
            let (Some(index), Some(key)) = (preview["index"].as_u64(), preview["key"].as_str()) else {
                continue;
            };
            if self.previews.get(&index).is_none_or(|known| known != key) {
                self.previews.insert(index, key.to_owned());
                new.push((index, key.to_owned()));
            }
        }
        new
    }

    /// The progress without its files, if that is new.
    fn progress(&mut self, mut progress: Value) -> Option<(&'static str, Value)> {
        let fields = progress.as_object_mut()?;
        fields.retain(|name, _| !matches!(name.as_str(), "previews" | "files"));
        if progress == self.progress {
            return None;
        }
        self.progress = progress.clone();
        Some(("progress", progress))
    }
}
