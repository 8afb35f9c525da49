//! The queue, over SQLite and over Postgres: the same list of tests on each.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use calotype_serve::error::Error;
use calotype_serve::job::{Job, Kind, NewJob, Status};
use calotype_serve::queue::{
    Cap, Counts, Delivery, Filter, Inserted, MAX_STARTS, Outcome, Queue, Record, Update,
};
use serde_json::{Map, Value, json};

use common::{Bench, Cluster, job, wait_for};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

/// Runs each test with a database of its own, by its name.
macro_rules! on_both {
    ($($name:ident,)*) => {
        /// Protects: the queue on SQLite.
        #[test]
        fn sqlite() {
            $(run(stringify!($name), Bench::sqlite(), |bench| Box::pin(async move { $name(&bench).await }));)*
        }

        /// Protects: the queue on Postgres.
        #[test]
        fn postgres() {
            let Some(mut cluster) = Cluster::start() else { return };
            $({
                let bench = Bench::postgres(&cluster, stringify!($name));
                run(stringify!($name), bench, |bench| Box::pin(async move { $name(&bench).await }));
            })*
            given_up(&cluster);
            database_that_goes_and_comes(&mut cluster);
            tls(&cluster);
        }
    };
}

on_both! {
    inserts, order, expired_lease, zombie, starts, release, cancel, cancel_after, outbox, outbox_of_some_events,
    outbox_again, pages, search, records, record_with_the_end, retention, claims_at_once, reopened, changes,
    odd_texts, newer_tables, opened_at_once, waiting_of_an_owner, runs,
}

/// Protects readers from a process that writes for long: they wait for nothing, and see what was written before.
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_with_a_slow_writer() {
    let bench = Bench::sqlite();
    let queue = bench.open().await;
    insert(&queue, job("a")).await;
    let writer = rusqlite::Connection::open(bench.settings.data.join("calotype.sqlite")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let own = queue.clone();
    let waits = tokio::spawn(async move { own.insert(job("b"), 10).await });
    for _ in 0..20 {
        assert!(queue.find("a", None).await.unwrap().is_some());
    }
    assert!(!waits.is_finished());
    writer.execute_batch("COMMIT").unwrap();
    assert!(matches!(waits.await.unwrap().unwrap(), Inserted::New(_)));
    assert!(queue.find("b", None).await.unwrap().is_some());
}

/// Protects jobs from a file that was removed while it was in use: nothing is acknowledged, and all is there when the file is back.
#[cfg(unix)]
#[tokio::test]
async fn sqlite_without_its_file() {
    let bench = Bench::sqlite();
    let queue = bench.open().await;
    insert(&queue, job("a")).await;
    let (path, aside) = (bench.settings.data.join("calotype.sqlite"), bench.settings.data.join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    assert!(matches!(queue.insert(job("b"), 10).await, Err(Error::Database(_))));
    assert!(matches!(queue.find("a", None).await, Err(Error::Database(_))));
    assert!(!path.exists(), "none is made in its place");
    std::fs::rename(&aside, &path).unwrap();
    assert!(queue.find("a", None).await.unwrap().is_some());
    insert(&queue, job("b")).await;
}

fn run(name: &str, bench: Bench, test: impl FnOnce(Bench) -> futures_util::future::BoxFuture<'static, ()>) {
    eprintln!("{name}");
    tokio::runtime::Runtime::new().unwrap().block_on(test(bench));
}

async fn insert(queue: &Queue, new: NewJob) -> Job {
    match queue.insert(new, 1000).await.unwrap() {
        Inserted::New(job) => job,
        other => panic!("{other:?}"),
    }
}

async fn claim(queue: &Queue, worker: &str, lease: Duration) -> Option<Job> {
    queue.claim(worker, &Kind::ALL, lease).await.unwrap()
}

/// Waits until leases of [`SHORT`] that were given before are over.
async fn outlive(queue: &Queue) {
    let now = queue.now().await.unwrap();
    wait_for(queue, now + SHORT.as_millis() as i64).await;
}

fn succeeded() -> Outcome {
    Outcome {
        status: Status::Succeeded,
        output: Some(json!(["jobs/a/1/out-0.png"])),
        error: None,
        metrics: Map::from_iter([("predict_time".to_owned(), json!(1.5))]),
        logs: "done\n".into(),
        record: None,
    }
}

async fn get(queue: &Queue, id: &str) -> Job {
    queue.find(id, None).await.unwrap().unwrap()
}

/// Protects: a job comes back as it was made, a second one of its id does not count, and a full queue takes no more.
async fn inserts(bench: &Bench) {
    let queue = bench.open().await;
    let mut full = job("a");
    full.kind = Kind::Training;
    full.destination = Some("me/mine".into());
    full.webhook = Some("https://example.com/hook".into());
    full.webhook_events = vec!["start".into(), "completed".into()];
    full.cancel_after = Some(300);
    full.context.trace.traceparent = Some("00-1-2-01".into());
    full.context.output_file_prefix = Some("https://example.com/\"ü\"".into());
    full.input.insert("z before a".into(), json!({"nested": [1, 2.5, null, "ü"]}));
    let made = insert(&queue, full.clone()).await;
    assert_eq!(made.made, full);
    assert_eq!((made.status, made.attempt, made.logs.as_str()), (Status::Starting, 0, ""));
    assert_eq!((made.started_at, made.completed_at, made.output.clone()), (None, None, None));
    assert!((queue.now().await.unwrap() - made.created_at).abs() < 60_000);
    assert_eq!(queue.get(Kind::Training, "a").await.unwrap(), Some(made.clone()));
    assert_eq!(queue.get(Kind::Prediction, "a").await.unwrap(), None);

    assert_eq!(queue.insert(job("a"), 1000).await.unwrap(), Inserted::Exists(made.clone()));
    insert(&queue, job("b")).await;
    // The training does not count among the predictions.
    assert!(matches!(queue.insert(job("c"), 2).await.unwrap(), Inserted::New(_)));
    assert_eq!(queue.insert(job("d"), 2).await.unwrap(), Inserted::Full);
    assert_eq!(queue.find("d", None).await.unwrap(), None);
    assert_eq!(queue.insert(job("a"), 0).await.unwrap(), Inserted::Exists(made));
    assert_eq!(queue.insert(job("e"), 0).await.unwrap(), Inserted::Full);
    // A job that is taken makes room.
    assert_eq!(claim(&queue, "w", LONG).await.unwrap().id(), "a");
    assert_eq!(claim(&queue, "w", LONG).await.unwrap().id(), "b");
    assert!(matches!(queue.insert(job("d"), 2).await.unwrap(), Inserted::New(_)));
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts[0], (Kind::Prediction, Counts { queued: 2, running: 1 }));
    assert_eq!(counts[1], (Kind::Training, Counts { queued: 0, running: 1 }));
}

/// Protects: the oldest first, of the kinds that the worker takes; before them one whose worker is gone.
async fn order(bench: &Bench) {
    let queue = bench.open().await;
    for (id, kind) in
        [("c", Kind::Training), ("b", Kind::Prediction), ("a", Kind::Prediction), ("d", Kind::Training)]
    {
        insert(&queue, NewJob { kind, ..job(id) }).await;
    }
    assert_eq!(queue.claim("w", &[], LONG).await.unwrap(), None);
    let first = queue.claim("w", &[Kind::Prediction], SHORT).await.unwrap().unwrap();
    assert_eq!((first.id(), first.status, first.attempt), ("b", Status::Processing, 1));
    assert!(first.started_at.is_some());
    outlive(&queue).await;
    assert_eq!(queue.claim("w", &[Kind::Training], LONG).await.unwrap().unwrap().id(), "c");
    let again = claim(&queue, "w", LONG).await.unwrap();
    assert_eq!((again.id(), again.attempt, again.started_at), ("b", 2, first.started_at));
    assert_eq!(claim(&queue, "w", LONG).await.unwrap().id(), "a");
    assert_eq!(claim(&queue, "w", LONG).await.unwrap().id(), "d");
    assert_eq!(claim(&queue, "w", LONG).await, None);
    insert(&queue, NewJob { kind: Kind::Preparation, ..job("e") }).await;
    assert_eq!(queue.claim("w", &[Kind::Prediction, Kind::Training], LONG).await.unwrap(), None);
    assert_eq!(queue.counts().await.unwrap()[2], (Kind::Preparation, Counts { queued: 1, running: 0 }));
    let trains = [Kind::Training, Kind::Preparation];
    assert_eq!(queue.claim("w", &trains, LONG).await.unwrap().unwrap().id(), "e");
}

/// Protects: a lease that is over gives the job to another worker, and one that is prolonged does not.
async fn expired_lease(bench: &Bench) {
    let (one, two) = (bench.open().await, bench.open().await);
    insert(&one, job("a")).await;
    assert_eq!(claim(&one, "one", SHORT).await.unwrap().attempt, 1);
    let lines = Update { logs: "one\n".into(), progress: Some(json!({"done": 1})), output: None };
    assert!(one.heartbeat("a", 1, LONG, lines).await.unwrap());
    outlive(&two).await;
    assert_eq!(claim(&two, "two", LONG).await, None);
    assert!(one.heartbeat("a", 1, SHORT, Update::default()).await.unwrap());
    outlive(&two).await;
    // Nobody has taken the job: a late worker goes on.
    assert!(
        one.heartbeat("a", 1, SHORT, Update { logs: "late\n".into(), ..Update::default() }).await.unwrap()
    );
    outlive(&two).await;
    let taken = claim(&two, "two", LONG).await.unwrap();
    assert_eq!(
        (taken.attempt, taken.logs.as_str(), taken.progress),
        (2, "one\nlate\n", Some(json!({"done": 1})))
    );
}

/// Protects: a worker that has lost its job changes nothing.
async fn zombie(bench: &Bench) {
    let queue = bench.open().await;
    insert(&queue, job("a")).await;
    claim(&queue, "zombie", SHORT).await.unwrap();
    outlive(&queue).await;
    let taken = claim(&queue, "other", LONG).await.unwrap();
    let lines = Update { logs: "from the grave\n".into(), ..Update::default() };
    assert!(!queue.heartbeat("a", 1, LONG, Update::default()).await.unwrap());
    assert!(!queue.heartbeat("a", 1, LONG, lines).await.unwrap());
    assert!(!queue.release("a", 1).await.unwrap());
    assert!(!queue.finish("a", 1, succeeded()).await.unwrap());
    assert_eq!(get(&queue, "a").await, taken);
    assert!(queue.finish("a", 2, succeeded()).await.unwrap());
    let done = get(&queue, "a").await;
    assert_eq!((done.status, done.logs.as_str()), (Status::Succeeded, "done\n"));
    assert_eq!(done.output, succeeded().output);
    let total = (done.completed_at.unwrap() - done.created_at) as f64 / 1000.0;
    assert_eq!(Value::Object(done.metrics.clone()), json!({"predict_time": 1.5, "total_time": total}));
    assert!(!queue.finish("a", 2, Outcome { status: Status::Failed, ..succeeded() }).await.unwrap());
    assert_eq!(get(&queue, "a").await, done);
    assert!(!queue.finish("nobody", 1, succeeded()).await.unwrap());
}

/// Protects: a job that ends its worker is started so often, and no more.
async fn starts(bench: &Bench) {
    let queue = bench.open().await;
    insert(&queue, NewJob { webhook: Some("https://example.com".into()), ..job("a") }).await;
    insert(&queue, job("b")).await;
    for attempt in 1..=MAX_STARTS {
        let taken = claim(&queue, "w", SHORT).await.unwrap();
        assert_eq!((taken.id(), taken.attempt), ("a", attempt));
        outlive(&queue).await;
    }
    assert_eq!(claim(&queue, "w", LONG).await.unwrap().id(), "b");
    let failed = get(&queue, "a").await;
    assert_eq!((failed.status, failed.attempt), (Status::Failed, MAX_STARTS));
    assert!(failed.error.unwrap().contains("3 times"));
    assert!(!queue.heartbeat("a", MAX_STARTS, LONG, Update::default()).await.unwrap());
    assert_eq!(events(&queue).await, ["start a"]);
    assert_eq!(events(&queue).await, ["completed a"]);
}

/// Protects: a worker that ends in order gives its job back at once, and the start does not count.
async fn release(bench: &Bench) {
    let queue = bench.open().await;
    insert(&queue, job("a")).await;
    for attempt in 1..=2 * MAX_STARTS {
        assert_eq!(claim(&queue, "w", LONG).await.unwrap().attempt, attempt);
        assert!(queue.release("a", attempt).await.unwrap());
        // Released is released.
        assert!(!queue.heartbeat("a", attempt, LONG, Update::default()).await.unwrap());
        assert!(!queue.release("a", attempt).await.unwrap());
        assert!(!queue.finish("a", attempt, succeeded()).await.unwrap());
    }
    let last = claim(&queue, "w", LONG).await.unwrap().attempt;
    assert!(queue.finish("a", last, succeeded()).await.unwrap());
}

/// Protects: a cancel counts at once, whether the job waits or runs, and the first end stands.
async fn cancel(bench: &Bench) {
    let queue = bench.open().await;
    insert(&queue, job("a")).await;
    insert(&queue, job("b")).await;
    claim(&queue, "w", LONG).await.unwrap();
    for id in ["a", "b"] {
        let canceled = queue.cancel(Kind::Prediction, id).await.unwrap().unwrap();
        assert_eq!((canceled.status, canceled.id()), (Status::Canceled, id));
        assert!(canceled.completed_at.is_some());
        assert_eq!(queue.cancel(Kind::Prediction, id).await.unwrap(), Some(canceled));
    }
    assert!(!queue.heartbeat("a", 1, LONG, Update::default()).await.unwrap());
    assert!(!queue.finish("a", 1, succeeded()).await.unwrap());
    assert_eq!(claim(&queue, "w", LONG).await, None);
    // The worker of the one that ran is at it until the worker says otherwise.
    assert!(queue.is_leaving("a").await.unwrap() && queue.stay("a", 1, LONG).await.unwrap());
    assert!(!queue.is_leaving("b").await.unwrap() && !queue.stay("b", 1, LONG).await.unwrap());
    assert!(queue.leave("a", 1).await.unwrap());
    assert!(!queue.is_leaving("a").await.unwrap() && !queue.stay("a", 1, LONG).await.unwrap());
    assert_eq!(queue.cancel(Kind::Training, "a").await.unwrap(), None);
    assert_eq!(queue.cancel(Kind::Prediction, "c").await.unwrap(), None);
    insert(&queue, job("d")).await;
    claim(&queue, "w", LONG).await.unwrap();
    assert!(queue.finish("d", 1, succeeded()).await.unwrap());
    assert_eq!(queue.cancel(Kind::Prediction, "d").await.unwrap().unwrap().status, Status::Succeeded);
}

/// Protects: a job with a limit of time ends by it, whether it waits or runs; others do not.
async fn cancel_after(bench: &Bench) {
    let queue = bench.open().await;
    insert(&queue, NewJob { cancel_after: Some(u64::MAX), ..job("endless") }).await;
    insert(
        &queue,
        NewJob { cancel_after: Some(0), webhook: Some("https://example.com".into()), ..job("waits") },
    )
    .await;
    assert_eq!(claim(&queue, "w", LONG).await.unwrap().id(), "endless");
    assert_eq!(claim(&queue, "w", LONG).await, None);
    let canceled = get(&queue, "waits").await;
    assert_eq!((canceled.status, canceled.error, canceled.attempt), (Status::Canceled, None, 0));
    assert_eq!(events(&queue).await, ["completed waits"]);

    let running = NewJob { cancel_after: Some(1), ..job("runs") };
    let end = insert(&queue, running).await.created_at + 1000;
    if claim(&queue, "w", LONG).await.is_some() {
        wait_for(&queue, end).await;
        assert!(!queue.heartbeat("runs", 1, LONG, Update::default()).await.unwrap());
        let ended = queue.cancel_overdue().await.unwrap();
        assert_eq!(ended.iter().map(Job::id).collect::<Vec<_>>(), ["runs"]);
    }
    assert_eq!(get(&queue, "runs").await.status, Status::Canceled);
    assert!(queue.cancel_overdue().await.unwrap().is_empty());
    assert_eq!(get(&queue, "endless").await.status, Status::Processing);
}

/// The webhooks that are due, taken and sent.
async fn events(queue: &Queue) -> Vec<String> {
    let due = queue.due_webhooks(100, LONG).await.unwrap();
    for delivery in &due {
        assert_eq!(delivery.tries, 0);
        queue.webhook_sent(delivery.id).await.unwrap();
    }
    due.into_iter().map(|Delivery { event, job, .. }| format!("{event} {job}")).collect()
}

/// Protects: each change is told of once, in order, with the change itself, and not too often.
async fn outbox(bench: &Bench) {
    let queue = bench.open().await;
    let hooked = |id: &str| NewJob { webhook: Some("https://example.com".into()), ..job(id) };
    insert(&queue, hooked("a")).await;
    insert(&queue, job("nobody asks")).await;
    assert!(events(&queue).await.is_empty());
    claim(&queue, "w", LONG).await.unwrap();
    assert_eq!(events(&queue).await, ["start a"]);
    let line = || Update { logs: "line\n".into(), ..Update::default() };
    let begin = queue.now().await.unwrap();
    queue.heartbeat("a", 1, LONG, Update::default()).await.unwrap();
    queue.heartbeat("a", 1, LONG, line()).await.unwrap();
    queue.heartbeat("a", 1, LONG, line()).await.unwrap();
    while events(&queue).await != ["logs a"] {}
    assert!(queue.now().await.unwrap() >= begin + 500);
    // Lines that wait when the job ends are told of by its end.
    queue.heartbeat("a", 1, LONG, line()).await.unwrap();
    queue.finish("a", 1, succeeded()).await.unwrap();
    assert!(!queue.finish("a", 1, succeeded()).await.unwrap());
    assert_eq!(events(&queue).await, ["output a"]);
    assert_eq!(events(&queue).await, ["completed a"]);
    // A zombie tells nothing.
    claim(&queue, "w", LONG).await.unwrap();
    queue.finish("nobody asks", 1, succeeded()).await.unwrap();
    assert!(!queue.heartbeat("a", 1, LONG, line()).await.unwrap());
    queue.cancel(Kind::Prediction, "a").await.unwrap();
    insert(&queue, hooked("c")).await;
    queue.cancel(Kind::Prediction, "c").await.unwrap();
    queue.cancel(Kind::Prediction, "c").await.unwrap();
    assert_eq!(events(&queue).await, ["completed c"]);
    assert!(events(&queue).await.is_empty());
}

/// Protects: a webhook is told of the events that it asked for.
async fn outbox_of_some_events(bench: &Bench) {
    let queue = bench.open().await;
    let of = |id: &str, events: &[&str]| NewJob {
        webhook: Some("https://example.com".into()),
        webhook_events: events.iter().map(ToString::to_string).collect(),
        ..job(id)
    };
    insert(&queue, of("end", &["completed"])).await;
    insert(&queue, of("lines", &["logs"])).await;
    let mut told = BTreeSet::new();
    for id in ["end", "lines"] {
        claim(&queue, "w", LONG).await.unwrap();
        queue.finish(id, 1, succeeded()).await.unwrap();
    }
    while told.len() < 2 {
        told.extend(events(&queue).await);
    }
    assert_eq!(told.into_iter().collect::<Vec<_>>(), ["completed end", "logs lines"]);
}

/// Protects: a webhook whose sender is gone is sent again, one that failed when it is told to, and none overtakes another.
async fn outbox_again(bench: &Bench) {
    let queue = bench.open().await;
    for id in ["a", "b"] {
        insert(&queue, NewJob { webhook: Some("https://example.com".into()), ..job(id) }).await;
        claim(&queue, "w", LONG).await.unwrap();
        queue.finish(id, 1, Outcome { output: None, ..succeeded() }).await.unwrap();
    }
    let taken = queue.due_webhooks(1, SHORT).await.unwrap();
    assert_eq!((taken.len(), taken[0].event.as_str(), taken[0].tries), (1, "start", 0));
    outlive(&queue).await;
    let both = queue.due_webhooks(100, LONG).await.unwrap();
    assert_eq!(
        both.iter().map(|d| (d.job.as_str(), d.event.as_str(), d.tries)).collect::<Vec<_>>(),
        [("a", "start", 1), ("b", "start", 0)]
    );
    assert!(queue.due_webhooks(100, LONG).await.unwrap().is_empty());
    queue.webhook_failed(both[0].id, Some(SHORT)).await.unwrap();
    queue.webhook_failed(both[1].id, None).await.unwrap();
    outlive(&queue).await;
    let next = queue.due_webhooks(100, LONG).await.unwrap();
    assert_eq!(
        next.iter().map(|d| (d.job.as_str(), d.event.as_str(), d.tries)).collect::<Vec<_>>(),
        [("a", "start", 2), ("b", "completed", 0)]
    );
}

/// Protects: pages of a list have each job once, in both directions, and filters let the right ones through.
async fn pages(bench: &Bench) {
    let queue = bench.open().await;
    let mut made = Vec::new();
    for number in 0..7 {
        let mut new = job(&format!("job{number}"));
        if number % 2 == 1 {
            new.kind = Kind::Training;
            new.model = "me/mine".into();
            new.source = "web".into();
        }
        made.push(insert(&queue, new).await);
    }
    made.sort_by_key(|job| (job.created_at, job.id().to_owned()));
    for ascending in [true, false] {
        let mut found: Vec<Job> = Vec::new();
        loop {
            let after = found.last().map(|job| (job.created_at, job.id().to_owned()));
            let page = queue.list(&Filter { ascending, after, limit: 3, ..Filter::default() }).await.unwrap();
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        if !ascending {
            found.reverse();
        }
        assert_eq!(found, made);
    }
    let count = async |filter: Filter| queue.list(&Filter { limit: 100, ..filter }).await.unwrap().len();
    assert_eq!(count(Filter { kind: Some(Kind::Training), ..Filter::default() }).await, 3);
    assert_eq!(count(Filter { model: Some("stability-ai/sdxl".into()), ..Filter::default() }).await, 4);
    assert_eq!(count(Filter { source: Some("web".into()), ..Filter::default() }).await, 3);
    assert_eq!(count(Filter { created_after: Some(made[0].created_at), ..Filter::default() }).await, 7);
    assert_eq!(count(Filter { created_before: Some(made[0].created_at), ..Filter::default() }).await, 0);
    assert_eq!(count(Filter { created_after: Some(made[6].created_at + 1), ..Filter::default() }).await, 0);
}

/// Protects: words are found as they are written, without their case, and without wild cards.
async fn search(bench: &Bench) {
    let queue = bench.open().await;
    let with = |id: &str, prompt: &str| {
        let mut new = job(id);
        new.input.insert("prompt".into(), prompt.into());
        new
    };
    insert(&queue, with("a", "A Red \"Fox\", 100% real")).await;
    insert(&queue, with("b", "a blue fox! C:\\new")).await;
    let found = async |text: &str| {
        let jobs = queue.search(text, 10).await.unwrap();
        jobs.iter().map(|job| job.id().to_owned()).collect::<BTreeSet<_>>().into_iter().collect::<String>()
    };
    for (text, ids) in [
        ("fox", "ab"),
        ("red \"fOX", "a"),
        ("100%", "a"),
        ("fox!", "b"),
        ("%", "a"),
        ("c:\\n", "b"),
        ("_", ""),
        ("SDXL", "ab"),
    ] {
        assert_eq!(found(text).await, ids, "{text}");
    }
    assert_eq!(queue.search("fox", 1).await.unwrap().len(), 1);
}

fn record(kind: &str, id: &str, parent: &str, body: Value) -> Record {
    Record { kind: kind.into(), id: id.into(), parent: parent.into(), body, created_at: 0 }
}

/// Protects: records are made once, replaced when that is asked for, listed by page, and deleted.
async fn records(bench: &Bench) {
    let queue = bench.open().await;
    assert!(queue.put_record(record("model", "me/mine", "", json!({"b": 1, "a": "x"}))).await.unwrap());
    assert!(!queue.put_record(record("model", "me/mine", "", json!({}))).await.unwrap());
    assert!(queue.put_record(record("file", "me/mine", "", json!(null))).await.unwrap());
    let kept = queue.record("model", "me/mine").await.unwrap().unwrap();
    assert_eq!(kept.body.to_string(), r#"{"b":1,"a":"x"}"#);
    assert!((queue.now().await.unwrap() - kept.created_at).abs() < 60_000);
    queue.replace_record(record("model", "me/mine", "p", json!(2))).await.unwrap();
    let replaced = queue.record("model", "me/mine").await.unwrap().unwrap();
    assert_eq!(replaced, Record { parent: "p".into(), body: json!(2), ..kept });
    assert_eq!(queue.record("model", "nobody/none").await.unwrap(), None);

    for number in 0..5 {
        let parent = if number == 4 { "q" } else { "p" };
        let version = record("version", &number.to_string(), parent, json!({}));
        queue.put_record(Record { created_at: 1000 + number / 2, ..version }).await.unwrap();
    }
    let mut ids = String::new();
    let mut after = None;
    loop {
        let page = queue.records("version", Some("p"), after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.id.clone()));
        page.iter().for_each(|record| ids.push_str(&record.id));
    }
    assert_eq!(ids, "3210");
    assert_eq!(queue.records("version", None, None, 10).await.unwrap().len(), 5);
    assert!(queue.delete_record("version", "4").await.unwrap());
    assert!(!queue.delete_record("version", "4").await.unwrap());
}

/// Protects: the version that a training makes is there with the training's end, and not without.
async fn record_with_the_end(bench: &Bench) {
    let queue = bench.open().await;
    insert(&queue, job("a")).await;
    claim(&queue, "w", SHORT).await.unwrap();
    outlive(&queue).await;
    claim(&queue, "w", LONG).await.unwrap();
    let outcome = |body| Outcome { record: Some(record("version", "v", "me/mine", body)), ..succeeded() };
    assert!(!queue.finish("a", 1, outcome(json!("zombie"))).await.unwrap());
    assert_eq!(queue.record("version", "v").await.unwrap(), None);
    assert!(queue.finish("a", 2, outcome(json!("real"))).await.unwrap());
    assert_eq!(queue.record("version", "v").await.unwrap().unwrap().body, json!("real"));
    assert_eq!(get(&queue, "a").await.status, Status::Succeeded);
    assert!(!queue.finish("a", 2, outcome(json!("twice"))).await.unwrap());
    assert_eq!(queue.record("version", "v").await.unwrap().unwrap().body, json!("real"));
}

/// Protects: old jobs go when they are over, with their webhooks, and no others.
async fn retention(bench: &Bench) {
    let queue = bench.open().await;
    for id in ["a", "b", "c", "runs"] {
        insert(&queue, NewJob { webhook: Some("https://example.com".into()), ..job(id) }).await;
    }
    for id in ["c", "a", "b"] {
        queue.cancel(Kind::Prediction, id).await.unwrap();
        outlive(&queue).await;
    }
    let ids = |jobs: Vec<Job>| jobs.iter().map(|job| job.id().to_owned()).collect::<BTreeSet<_>>();
    let end = get(&queue, "b").await.completed_at.unwrap();
    assert_eq!(ids(queue.delete_before(end, 1).await.unwrap()), BTreeSet::from(["c".to_owned()]));
    assert_eq!(ids(queue.delete_before(end, 10).await.unwrap()), BTreeSet::from(["a".to_owned()]));
    assert_eq!(ids(queue.delete_before(end + 1, 10).await.unwrap()), BTreeSet::from(["b".to_owned()]));
    assert!(queue.delete_before(i64::MAX, 10).await.unwrap().is_empty());
    assert_eq!(get(&queue, "runs").await.status, Status::Starting);
    assert!(events(&queue).await.is_empty());
}

/// Protects: of eight workers over two connections, each takes other jobs.
async fn claims_at_once(bench: &Bench) {
    let handles = [bench.open().await, bench.open().await];
    for number in 0..40 {
        insert(&handles[0], job(&number.to_string())).await;
    }
    let workers = (0..8).map(|worker| {
        let queue = handles[worker % 2].clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(job) = claim(&queue, &worker.to_string(), LONG).await {
                assert_eq!(job.attempt, 1);
                assert!(queue.finish(job.id(), job.attempt, succeeded()).await.unwrap());
                taken.push(job.id().to_owned());
            }
            taken
        })
    });
    let mut taken = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        taken.extend(worker.await.unwrap());
    }
    assert_eq!(taken.len(), 40);
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>().len(), 40);
}

/// Protects: all is there when the database is opened again.
async fn reopened(bench: &Bench) {
    let queue = bench.open().await;
    let made = insert(&queue, job("a")).await;
    queue.put_record(record("model", "me/mine", "", json!(1))).await.unwrap();
    drop(queue);
    let queue = bench.open().await;
    assert_eq!(get(&queue, "a").await, made);
    assert!(queue.record("model", "me/mine").await.unwrap().is_some());
}

/// Protects: changes by this process and by others are heard of.
async fn changes(bench: &Bench) {
    let (here, there) = (bench.open().await, bench.open().await);
    let (mut own, mut others) = (here.changes(), there.changes());
    // Who listens on a connection may have begun just now: until then nothing is heard.
    let heard = async |ids: &mut tokio::sync::broadcast::Receiver<String>| {
        tokio::time::timeout(Duration::from_millis(200), ids.recv()).await.is_ok_and(|id| id.is_ok())
    };
    for number in 0.. {
        assert!(number < 300);
        insert(&here, job(&number.to_string())).await;
        if heard(&mut others).await {
            break;
        }
    }
    assert!(heard(&mut own).await);
}

/// Protects: texts with all kinds of characters come back; the character 0, which Postgres lacks, is replaced.
async fn odd_texts(bench: &Bench) {
    let queue = bench.open().await;
    let text = "'; DROP TABLE calotype_jobs; -- \" \\ \u{1f600} %s $1 ?1 {now}\n\u{7f}";
    let mut new = job(text);
    new.owner = text.into();
    new.input.insert(format!("{text}\0"), format!("{text}\0").into());
    let made = insert(&queue, new.clone()).await;
    assert_eq!(made.made, new);
    claim(&queue, text, LONG).await.unwrap();
    let update = Update { logs: format!("{text}\0"), ..Update::default() };
    assert!(queue.heartbeat(text, 1, LONG, update).await.unwrap());
    assert_eq!(get(&queue, text).await.logs, format!("{text}\u{fffd}"));
    assert_eq!(queue.find("a\0b", None).await.unwrap(), None);
    assert!(matches!(queue.insert(job("a\0b"), 10).await.unwrap(), Inserted::New(_)));
    let long = "x".repeat(2000);
    insert(&queue, job(&long)).await;
    assert_eq!(get(&queue, &long).await.id(), long);
}

/// Protects: tables of a newer program are left alone.
async fn newer_tables(bench: &Bench) {
    drop(bench.open().await);
    let newer = "INSERT INTO calotype_schema (version) VALUES (1000)";
    match &bench.settings.database {
        None => {
            let file = rusqlite::Connection::open(bench.settings.data.join("calotype.sqlite")).unwrap();
            file.execute(newer, []).unwrap();
        }
        Some(url) => {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(newer).await.unwrap();
        }
    }
    match Queue::open(&bench.settings).await.map(drop) {
        Err(Error::Settings(problem)) => assert!(problem.contains("version 1000"), "{problem}"),
        other => panic!("{other:?}"),
    }
}

/// Protects: of processes that start at once, one makes the tables.
async fn opened_at_once(bench: &Bench) {
    let opened = (0..8).map(|_| {
        let settings = bench.settings.clone();
        tokio::spawn(async move { Queue::open(&settings).await.unwrap().now().await.unwrap() })
    });
    for queue in opened.collect::<Vec<_>>() {
        queue.await.unwrap();
    }
}

/// Protects: so many jobs of an owner wait, of all kinds; those of others, and those that compute, do not count.
async fn waiting_of_an_owner(bench: &Bench) {
    let queue = bench.open().await;
    let of = |id: &str, owner: &str, kind| NewJob { owner: owner.into(), kind, ..job(id) };
    let cap = Cap { of_kind: 3, of_owner: Some(2) };
    let added = async |new: NewJob| queue.insert(new, cap).await.unwrap();
    for new in
        [of("a", "ana", Kind::Prediction), of("b", "bo", Kind::Prediction), of("c", "ana", Kind::Training)]
    {
        assert!(matches!(added(new).await, Inserted::New(_)));
    }
    assert_eq!(added(of("d", "ana", Kind::Prediction)).await, Inserted::OwnerFull);
    assert!(matches!(added(of("a", "ana", Kind::Prediction)).await, Inserted::Exists(_)));
    assert!(matches!(added(of("e", "bo", Kind::Prediction)).await, Inserted::New(_)));
    claim(&queue, "w", LONG).await.unwrap();
    assert!(matches!(added(of("d", "ana", Kind::Prediction)).await, Inserted::New(_)));
    // Of its kind, as many wait as may.
    assert_eq!(added(of("f", "che", Kind::Prediction)).await, Inserted::Full);
}

/// Protects: a model's number of predictions counts each once, and those that are gone.
async fn runs(bench: &Bench) {
    let queue = bench.open().await;
    for (id, kind, model) in [
        ("a", Kind::Prediction, "me/fox"),
        ("b", Kind::Prediction, "me/fox"),
        ("c", Kind::Prediction, "me/other"),
        ("d", Kind::Training, "me/fox"),
    ] {
        insert(&queue, NewJob { kind, model: model.into(), ..job(id) }).await;
        queue.cancel(kind, id).await.unwrap();
    }
    let count = async || [queue.runs("me/fox").await.unwrap(), queue.runs("me/other").await.unwrap()];
    assert_eq!(count().await, [2, 1]);
    assert_eq!(queue.delete_before(i64::MAX, 3).await.unwrap().len(), 3);
    assert_eq!(count().await, [2, 1]);
    queue.delete_before(i64::MAX, 3).await.unwrap();
    insert(&queue, NewJob { model: "me/fox".into(), ..job("a") }).await;
    assert_eq!(count().await, [3, 1]);
    assert_eq!(queue.runs("nobody/none").await.unwrap(), 0);
}

/// Protects: a database that is away is an error, and works again when it is there again, with all that was acknowledged.
fn database_that_goes_and_comes(cluster: &mut Cluster) {
    let bench = Bench::postgres(cluster, "comes_and_goes");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let queue = runtime.block_on(bench.open());
    runtime.block_on(insert(&queue, job("a")));
    cluster.stop();
    for _ in 0..3 {
        assert!(matches!(runtime.block_on(queue.insert(job("b"), 10)), Err(Error::Database(_))));
    }
    assert!(matches!(runtime.block_on(Queue::open(&bench.settings)).map(drop), Err(Error::Database(_))));
    cluster.resume();
    assert_eq!(runtime.block_on(claim(&queue, "w", LONG)).unwrap().id(), "a");
    runtime.block_on(changes(&bench));
}

/// Protects whoever was told that nothing was made: a statement that was given up while it waited for a lock changes nothing later.
fn given_up(cluster: &Cluster) {
    let bench = Bench::postgres(cluster, "given_up");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let queue = bench.open().await;
        let url = bench.settings.database.clone().unwrap();
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("BEGIN; LOCK TABLE calotype_jobs IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'INSERT INTO calotype_jobs%'";
        let insert = queue.insert(job("ghost"), 10);
        let waits = async {
            while cluster.sql("given_up", waiting) == "0" {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            inserted = insert => panic!("{inserted:?}"),
            () = waits => {}
        }
        client.batch_execute("COMMIT").await.unwrap();
        while cluster.sql("given_up", waiting) != "0" {}
        assert_eq!(queue.find("ghost", None).await.unwrap(), None);
    });
}

/// Protects: `sslmode=require` encrypts, and `verify-full` refuses a certificate that it does not know.
fn tls(cluster: &Cluster) {
    if !cluster.make_certificate() {
        eprintln!("openssl is not installed: TLS to Postgres is not tested");
        return;
    }
    let bench = Bench::postgres(cluster, "tls");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let open = |options: &str| {
        let url = format!("{}&{options}", cluster.url("tls"));
        let settings = calotype_serve::settings::Settings { database: Some(url), ..bench.settings.clone() };
        runtime.block_on(Queue::open(&settings))
    };
    let encrypted = || {
        cluster.sql("tls", "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'calotype'")
    };
    let disabled = open("sslmode=disable").unwrap();
    assert_eq!(encrypted(), "0");
    drop(disabled);
    let required = open("sslmode=require").unwrap();
    assert_ne!(encrypted(), "0");
    drop(required);
    assert!(matches!(open("sslmode=verify-full").map(drop), Err(Error::Database(_))));
    let roots = cluster.data().join("server.crt");
    open(&format!("sslmode=verify-full&sslrootcert={}", roots.display())).map(drop).unwrap();
}
