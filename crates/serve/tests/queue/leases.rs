//! Which worker has a job: one at a time, and none for ever.

use std::collections::BTreeSet;

use calotype_serve::job::{Kind, NewJob, Status};
use calotype_serve::queue::{Counts, MAX_STARTS, Outcome, Update};
use serde_json::{Value, json};

use crate::common::{Bench, job};
use crate::outbox::events;
use crate::{LONG, SHORT, claim, get, insert, outlive, succeeded};

/// Protects: the oldest first, of the kinds that the worker takes; before them one whose worker is gone.
pub async fn order(bench: &Bench) {
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
pub async fn expired_lease(bench: &Bench) {
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
pub async fn zombie(bench: &Bench) {
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
pub async fn starts(bench: &Bench) {
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
pub async fn release(bench: &Bench) {
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

/// Protects: of eight workers over two connections, each takes other jobs.
pub async fn claims_at_once(bench: &Bench) {
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
