//! The service as a process: what runs beside each other, and how all of it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Method;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::api::render::View;
use crate::api::state::{AppState, Parts, Setup, base_version};
use crate::api::tokens::Tokens;
use crate::api::{self, body, metrics, render, replicate};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::job::Job;
use crate::queue::{Queue, Record};
use crate::settings::Settings;
use crate::storage::{self, Links, Storage};
use crate::{connections, webhooks};

/// How long connections may take to end when there is nothing more to wait for.
const GRACE: Duration = Duration::from_secs(10);
/// How long a service that ends still answers after its last job: who asks each second for a job hears of its end.
const LAST_POLLS: Duration = Duration::from_secs(2);
/// How often jobs are looked at whose time is over.
const OVERDUE: Duration = Duration::from_secs(1);

/// Serves, and computes if `settings.workers` is not 0, until a signal, or `POST /shutdown`, ends the service: then no new jobs are taken, predictions
/// that compute are finished, and trainings leave a checkpoint; until then, requests that make no job are answered. `ready` is called with the address once it is listened on.
///
/// # Errors
/// The settings are wrong, the address is taken, the database or the storage does not answer, or the engine cannot be set up.
pub fn serve(
    settings: Settings,
    engine: Arc<dyn Engine>,
    ready: impl FnOnce(SocketAddr) + Send + 'static,
) -> Result<()> {
    let runtime = runtime()?;
    let ended = runtime.block_on(run(settings, engine, ready));
    // What computes on threads of its own has nothing to say any more.
    runtime.shutdown_background();
    ended
}

/// Computes jobs until a signal ends the worker; with `settings.once`, one job.
///
/// # Errors
/// The settings are wrong, the database or the storage does not answer, or the engine cannot be set up.
pub fn worker(settings: Settings, engine: Arc<dyn Engine>) -> Result<()> {
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        Queue::check_there(&settings)?;
        let settings = Arc::new(settings);
        let Shared { queue, storage, inputs, .. } = Shared::open(&settings).await?;
        let drain = watch::Sender::new(false);
        let second = tokio::spawn(signals(drain.clone())?);
        tokio::select! {
            ended = crate::worker::run(settings, queue, storage, inputs, engine, drain.subscribe()) => ended.map(drop),
            _ = second => Ok(()),
        }
    });
    runtime.shutdown_background();
    ended
}

fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Error::Settings(format!("the threads of the service: {e}")))
}

/// What a front and a worker both need.
struct Shared {
    queue: Queue,
    storage: Storage,
    links: Links,
    inputs: Inputs,
}

impl Shared {
    async fn open(settings: &Settings) -> Result<Shared> {
        let storage = Storage::open(settings)?;
        storage.check().await?;
        let queue = Queue::open(settings).await?;
        let links = Links::new(secret(&queue).await?);
        let inputs = Inputs::new(settings, storage.clone(), queue.clone(), links.clone())?;
        Ok(Shared { queue, storage, links, inputs })
    }
}

/// The secret of links: made at first use, and the same for all processes of a service.
async fn secret(queue: &Queue) -> Result<[u8; 32]> {
    let mut key = [0_u8; 32];
    let filled = SystemRandom::new().fill(&mut key);
    filled.map_err(|_| Error::Settings("the system has no random numbers".into()))?;
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let (kind, id) = ("secret".to_owned(), "links".to_owned());
    let body = json!({ "key": digits });
    queue.put_record(Record { kind, id, parent: String::new(), body, created_at: 0 }).await?;
    let record = queue.record("secret", "links").await?;
    let digits = record.as_ref().and_then(|record| record.body["key"].as_str()).unwrap_or_default();
    let bytes = (0..64).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
    let bytes: Option<Vec<u8>> = bytes.collect();
    let key = bytes.and_then(|bytes| bytes.try_into().ok());
    key.ok_or_else(|| Error::Database("the secret of links is not 64 hexadecimal digits".into()))
}

async fn run(
    settings: Settings,
    engine: Arc<dyn Engine>,
    ready: impl FnOnce(SocketAddr) + Send + 'static,
) -> Result<()> {
    let settings = Arc::new(settings);
    let tokens = Tokens::read(settings.token_file.as_deref())?;
    let failed =
        |e: std::io::Error| Error::Settings(format!("{}: cannot be listened on: {e}", settings.listen));
    let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let Shared { queue, storage, links, inputs } = Shared::open(&settings).await?;
    let version = base_version(&engine.model());
    replicate::set_up(&queue, &version).await?;
    let started_at = queue.now().await?;
    let completed_at = (settings.workers == 0).then_some(started_at);
    let setup = watch::Sender::new(Setup { started_at, completed_at, error: None });
    let drain = watch::Sender::new(false);
    let bodies = body::budget(settings.max_bodies);
    let state = AppState::new(Parts {
        settings,
        queue,
        storage,
        links,
        inputs,
        engine,
        version,
        tokens,
        bodies,
        document: api::document(),
        metrics: Default::default(),
        setup: setup.subscribe(),
        drain: drain.clone(),
    });
    let app = api::router(state.clone())?;
    let second = tokio::spawn(signals(drain.clone())?);
    let background = Background::start(&state);
    // While a service that is to end still computes, its clients may ask how far it is.
    let close = watch::Sender::new(false);
    let server = tokio::spawn(connections::serve(listener, app, close.subscribe()));
    ready(address);

    let until_over = async {
        let had_job = work(&state, &setup).await?;
        if had_job {
            tokio::time::sleep(LAST_POLLS).await;
        }
        Ok::<(), Error>(())
    };
    let ended = tokio::select! {
        ended = until_over => ended,
        _ = second => return Ok(()),
    };
    // A worker that has failed ends the service too: jobs would wait for ever.
    drain.send_replace(true);
    close.send_replace(true);
    // Whoever still waits gets an answer; whoever does not read it is left behind.
    let _ = tokio::time::timeout(GRACE, server).await;
    background.stop();
    ended
}

/// Waits until the service is to end.
async fn drained(state: &AppState) {
    // The sender is in the state, so there is always one.
    let _ = state.drain.subscribe().wait_for(|drain| *drain).await;
}

/// Computes until the service is to end; a front alone just waits. Returns whether there was a job in hand then.
async fn work(state: &AppState, setup: &watch::Sender<Setup>) -> Result<bool> {
    if state.settings.workers == 0 {
        drained(state).await;
        return Ok(false);
    }
    let engine = state.engine.clone();
    let set_up = tokio::task::spawn_blocking(move || engine.set_up()).await;
    let problem = match set_up {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(e.to_string()),
        Err(e) => Some(format!("the model: {e}")),
    };
    let now = state.queue.now().await.ok();
    setup.send_modify(|setup| {
        setup.completed_at = now.or(Some(setup.started_at));
        setup.error = problem.clone();
    });
    if let Some(problem) = problem {
        return Err(Error::Settings(problem));
    }
    let (queue, storage, inputs) = (state.queue.clone(), state.storage.clone(), state.inputs.clone());
    let (settings, engine, drain) = (state.settings.clone(), state.engine.clone(), state.drain.subscribe());
    crate::worker::run(settings, queue, storage, inputs, engine, drain).await
}

/// Tasks that go on for as long as the service.
struct Background(Vec<tokio::task::JoinHandle<()>>);

impl Background {
    fn start(state: &AppState) -> Background {
        let (queue, storage) = (state.queue.clone(), state.storage.clone());
        let sweep = storage::sweep::run(storage, queue, state.settings.keep_days);
        let (client, renderer) = (state.inputs.client(), state.clone());
        let request: webhooks::Request = Arc::new(move |url: &str| client.request(Method::POST, url));
        let render: webhooks::Render = Arc::new(move |job| webhook_body(renderer.clone(), job));
        let sender = webhooks::sender(state.queue.clone(), request, render);
        let (counter, overdue) = (state.clone(), state.queue.clone());
        let count = async move { metrics::count(&counter.queue, &counter.metrics).await };
        Background(vec![
            tokio::spawn(sweep),
            tokio::spawn(sender),
            tokio::spawn(count),
            tokio::spawn(cancel_overdue(overdue)),
        ])
    }

    fn stop(&self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The body of a webhook: the job in the form of Replicate's API, which has what Cog's form has.
fn webhook_body(state: AppState, job: Job) -> BoxFuture<'static, Result<Value>> {
    Box::pin(async move { render::job(&state, &job, &View::webhook(&state)).await })
}

/// Ends jobs whose clients gave them less time than they take, for ever.
async fn cancel_overdue(queue: Queue) {
    loop {
        if let Err(e) = queue.cancel_overdue().await {
            tracing::warn!("{e}");
        }
        tokio::time::sleep(OVERDUE).await;
    }
}

/// Ends the service with the first signal. The future is over with the second, which ends the process at once.
#[cfg(unix)]
fn signals(drain: watch::Sender<bool>) -> Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Error::Settings(format!("signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        for message in ["ends when its jobs are over or released; again to end at once", "ends at once"] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("{message}");
            drain.send_replace(true);
        }
    })
}

/// As on Unix, with Ctrl-C alone.
#[cfg(not(unix))]
fn signals(drain: watch::Sender<bool>) -> Result<impl Future<Output = ()> + Send> {
    Ok(async move {
        for message in ["ends when its jobs are over or released; again to end at once", "ends at once"] {
            if tokio::signal::ctrl_c().await.is_err() {
                return std::future::pending().await;
            }
            tracing::info!("{message}");
            drain.send_replace(true);
        }
    })
}
