//! The queue, over SQLite and over Postgres: the same list of tests on each.
//!
//! ```text
//! intake.rs      new jobs
//! leases.rs      which worker has a job
//! ends.rs        how jobs end
//! outbox.rs      what webhooks are told of
//! readers.rs     lists, searches, records, changes
//! databases.rs   the databases themselves
//! ```

#[path = "../common/mod.rs"]
mod common;
mod databases;
mod ends;
mod intake;
mod leases;
mod outbox;
mod readers;

use std::time::Duration;

use calotype_serve::job::{Job, Kind, NewJob, Status};
use calotype_serve::queue::{Inserted, Outcome, Queue, Record};
use serde_json::{Map, Value, json};

use crate::common::{Bench, Cluster, wait_for};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

/// Runs each test with a database of its own, by its name.
macro_rules! on_both {
    ($($room:ident::$name:ident,)*) => {
        /// Protects: the queue on SQLite.
        #[test]
        fn sqlite() {
            $(run(stringify!($name), Bench::sqlite(), |bench| Box::pin(async move { $room::$name(&bench).await }));)*
        }

        /// Protects: the queue on Postgres.
        #[test]
        fn postgres() {
            let Some(mut cluster) = Cluster::start() else { return };
            $({
                let bench = Bench::postgres(&cluster, stringify!($name));
                run(stringify!($name), bench, |bench| Box::pin(async move { $room::$name(&bench).await }));
            })*
            databases::given_up(&cluster);
            databases::database_that_goes_and_comes(&mut cluster);
            databases::tls(&cluster);
        }
    };
}

on_both! {
    intake::inserts, intake::waiting_of_an_owner, intake::odd_texts,
    leases::order, leases::expired_lease, leases::zombie, leases::starts, leases::release, leases::claims_at_once,
    ends::cancel, ends::cancel_after, ends::record_with_the_end, ends::retention,
    outbox::outbox, outbox::outbox_of_some_events, outbox::outbox_again,
    readers::pages, readers::search, readers::records, readers::runs, readers::changes,
    databases::reopened, databases::newer_tables, databases::opened_at_once,
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

fn record(kind: &str, id: &str, parent: &str, body: Value) -> Record {
    Record { kind: kind.into(), id: id.into(), parent: parent.into(), body, created_at: 0 }
}
