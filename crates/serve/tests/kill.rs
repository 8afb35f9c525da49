//! Workers and servers are killed with -9 at random moments: no acknowledged job is lost, none stays open, none ends twice, and
//! each end is told of.
//!
//! `CALOTYPE_KILLS` is the number of kills on each database: 12 if it is not set. The processes are this test, started again.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use calotype_serve::job::{Job, Kind, NewJob, Status};
use calotype_serve::queue::{Inserted, Outcome, Queue, Update};
use calotype_serve::webhooks;
use serde_json::{Map, Value, json};

use common::{Bench, Cluster, job, settings};

const LEASE: Duration = Duration::from_millis(1000);
const WORKERS: usize = 3;
const SERVERS: usize = 2;
/// Jobs that may wait: servers stop there.
const CAP: usize = 20;

#[test]
fn kills_on_sqlite() {
    disturbed(&Bench::sqlite(), "SQLite");
}

#[test]
fn kills_on_postgres() {
    let Some(cluster) = Cluster::start() else { return };
    disturbed(&Bench::postgres(&cluster, "kills"), "Postgres");
}

/// What the processes were told by the environment.
struct Part {
    role: String,
    folder: PathBuf,
    queue: Queue,
    hook: String,
}

/// Not a test, but what a process does that the tests have started.
#[test]
fn process() {
    let Ok(role) = std::env::var("CALOTYPE_KILL_ROLE") else { return };
    let folder = PathBuf::from(std::env::var("CALOTYPE_KILL_FOLDER").unwrap());
    let hook = std::env::var("CALOTYPE_KILL_HOOK").unwrap();
    let settings = settings(&folder, std::env::var("CALOTYPE_KILL_DATABASE").ok());
    let parent = std::os::unix::process::parent_id();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let queue = Queue::open(&settings).await.unwrap();
        let part = Part { role, folder, queue, hook };
        let orphan = async {
            while std::os::unix::process::parent_id() == parent {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            () = orphan => {}
            () = part.work() => {}
            () = part.serve() => {}
        }
    });
}

impl Part {
    /// Notes an event in the journal of this process: what is there happened, and was acknowledged.
    fn note(&self, line: &str) {
        let name = format!("{}-{}.journal", self.role, std::process::id());
        let mut journal = File::options().create(true).append(true).open(self.folder.join(name)).unwrap();
        journal.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    async fn work(&self) {
        if self.role != "worker" {
            return std::future::pending().await;
        }
        loop {
            match self.queue.claim(&self.role, &Kind::ALL, LEASE).await.unwrap() {
                Some(job) => self.compute(&job).await,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn compute(&self, job: &Job) {
        self.note(&format!("start {} {}", job.id(), job.attempt));
        for step in 0..4 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let update = Update { logs: format!("{step}\n"), ..Update::default() };
            if !self.queue.heartbeat(job.id(), job.attempt, LEASE, update).await.unwrap() {
                return;
            }
        }
        let outcome = Outcome {
            status: Status::Succeeded,
            output: Some(json!([job.attempt])),
            error: None,
            metrics: Map::new(),
            logs: String::new(),
            record: None,
        };
        if self.queue.finish(job.id(), job.attempt, outcome).await.unwrap() {
            self.note(&format!("done {} {}", job.id(), job.attempt));
        }
    }

    /// Takes jobs in, cancels some, and sends webhooks.
    async fn serve(&self) {
        if self.role != "server" {
            return std::future::pending().await;
        }
        tokio::spawn(send(self.queue.clone()));
        for number in 0.. {
            let id = format!("{}-{number}", std::process::id());
            let hook = NewJob {
                webhook: Some(self.hook.clone()),
                webhook_events: vec!["completed".into()],
                ..job(&id)
            };
            match self.queue.insert(hook, CAP).await.unwrap() {
                Inserted::New(_) => self.note(&format!("made {id} 0")),
                other => assert_eq!(other, Inserted::Full),
            }
            if number % 7 == 3 && self.queue.cancel(Kind::Prediction, &id).await.unwrap().is_some() {
                self.note(&format!("canceled {id} 0"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Sends webhooks, for ever.
async fn send(queue: Queue) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let render: webhooks::Render = Arc::new(|job| {
        let end = json!({"id": job.id(), "status": job.status.name(), "attempt": job.attempt, "at": job.completed_at});
        Box::pin(async move { Ok(end) })
    });
    webhooks::sender(queue, Arc::new(move |url| Ok(client.post(url))), render).await;
}

/// What the receiver of webhooks was told: by job, each different body.
type Told = Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>;

/// Listens for webhooks on a free port. Returns the address.
fn receiver(runtime: &tokio::runtime::Runtime, told: Told) -> String {
    async fn hear(State(told): State<Told>, Json(body): Json<Value>) {
        let id = body["id"].as_str().unwrap().to_owned();
        told.lock().unwrap().entry(id).or_default().insert(body.to_string());
    }
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().route("/", post(hear)).with_state(told);
    runtime.spawn(async { axum::serve(listener, router).await });
    address
}

/// The lines of all journals that begin with `word`: a job and an attempt each.
fn noted(folder: &Path, word: &str) -> Vec<(String, String)> {
    let files = fs::read_dir(folder).unwrap().flatten().map(|file| file.path());
    let journals = files.filter(|path| path.extension().is_some_and(|extension| extension == "journal"));
    let text = journals.map(|path| fs::read_to_string(path).unwrap()).collect::<String>();
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines
        .filter(|line| line.len() == 3 && line[0] == word)
        .map(|line| (line[1].to_owned(), line[2].to_owned()))
        .collect()
}

/// Numbers that look random: the same ones each time, so that a failure depends on the machine's timing alone.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Processes that end with the value.
struct Crew(Vec<Child>);

impl Drop for Crew {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Protects: leases, fences and the outbox under kills.
fn disturbed(bench: &Bench, name: &str) {
    let kills = std::env::var("CALOTYPE_KILLS").map_or(12, |kills| kills.parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let told = Told::default();
    let hook = receiver(&runtime, told.clone());
    let folder = bench.settings.data.as_path();
    let queue = runtime.block_on(bench.open());
    let start = |role: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["process", "--exact", "--nocapture"]).stdin(Stdio::null()).stdout(Stdio::null());
        command
            .env("CALOTYPE_KILL_ROLE", role)
            .env("CALOTYPE_KILL_FOLDER", folder)
            .env("CALOTYPE_KILL_HOOK", &hook);
        command.envs(bench.settings.database.iter().map(|url| ("CALOTYPE_KILL_DATABASE", url)));
        command.spawn().unwrap()
    };
    let role = |place: usize| if place < WORKERS { "worker" } else { "server" };
    let mut crew = Crew((0..WORKERS + SERVERS).map(|place| start(role(place))).collect());
    let mut random = Random(1);
    for _ in 0..kills {
        // Some starts later, at some moment within a job.
        let before = noted(folder, "start").len();
        let after = before + 1 + random.below(3);
        let end = Instant::now() + Duration::from_secs(60);
        while noted(folder, "start").len() < after {
            assert!(Instant::now() < end, "no job has started for a minute");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(random.below(120) as u64));
        let place = random.below(crew.0.len());
        assert_eq!(crew.0[place].try_wait().unwrap(), None, "a {} ended by itself", role(place));
        crew.0[place].kill().unwrap();
        crew.0[place].wait().unwrap();
        crew.0[place] = start(role(place));
    }
    settle(&runtime, &queue, folder, &told, &mut crew);
    let ends = check(&runtime, &queue, folder, &told);
    eprintln!("{name}: {kills} kills; {ends}");
}

/// Waits until all jobs are over and all ends are told of.
fn settle(runtime: &tokio::runtime::Runtime, queue: &Queue, folder: &Path, told: &Told, crew: &mut Crew) {
    let end = Instant::now() + Duration::from_secs(120);
    // Servers make jobs for as long as they live. Their webhooks are sent from here.
    for server in crew.0.drain(WORKERS..) {
        drop(Crew(vec![server]));
    }
    let sender = runtime.spawn(send(queue.clone()));
    loop {
        let open = runtime
            .block_on(queue.counts())
            .unwrap()
            .iter()
            .map(|(_, c)| c.queued + c.running)
            .sum::<usize>();
        let made = noted(folder, "made");
        let untold = made.iter().filter(|(id, _)| !told.lock().unwrap().contains_key(id)).count();
        if open == 0 && untold == 0 {
            break;
        }
        assert!(Instant::now() < end, "{open} jobs stay open, {untold} ends are not told of");
        std::thread::sleep(Duration::from_millis(20));
    }
    sender.abort();
}

/// Compares the journals with the database and with what was told.
fn check(runtime: &tokio::runtime::Runtime, queue: &Queue, folder: &Path, told: &Told) -> String {
    let (made, starts, done) = (noted(folder, "made"), noted(folder, "start"), noted(folder, "done"));
    let canceled = noted(folder, "canceled").into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>();
    let (mut succeeded, mut at_limit) = (0, 0);
    for (id, _) in &made {
        let job = runtime.block_on(queue.find(id, None)).unwrap().unwrap_or_else(|| panic!("{id} is lost"));
        let ends = done.iter().filter(|(other, _)| other == id).collect::<Vec<_>>();
        assert!(ends.len() <= 1, "{id} ended more than once: {ends:?}");
        let bodies = &told.lock().unwrap()[id];
        assert_eq!(bodies.len(), 1, "{id}: different ends were told of: {bodies:?}");
        match job.status {
            Status::Succeeded => {
                succeeded += 1;
                assert_eq!(job.output, Some(json!([job.attempt])), "{id}: another attempt's output");
                assert!(
                    ends.iter().all(|(_, attempt)| *attempt == job.attempt.to_string()),
                    "{id}: {ends:?}"
                );
            }
            Status::Failed => at_limit += 1,
            Status::Canceled => assert!(ends.is_empty(), "{id} was canceled, and ended: {ends:?}"),
            open => panic!("{id} is {open:?}"),
        }
        // A cancel that was acknowledged found the job over, or ended it.
        assert!(!canceled.contains(id) || job.status.is_over());
    }
    let again = starts.iter().filter(|(_, attempt)| attempt != "1").count();
    format!(
        "{} jobs acknowledged: {succeeded} succeeded, {} canceled, {at_limit} at the limit of starts; {} starts, {again} after a kill",
        made.len(),
        made.len() - succeeded - at_limit,
        starts.len(),
    )
}
