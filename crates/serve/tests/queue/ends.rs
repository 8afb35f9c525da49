//! How jobs end: once, by their worker, a cancel or their time; and when they go.

use std::collections::BTreeSet;

use calotype_serve::job::{Job, Kind, NewJob, Status};
use calotype_serve::queue::{Outcome, Update};
use serde_json::json;

use crate::common::{Bench, job, wait_for};
use crate::outbox::events;
use crate::{LONG, SHORT, claim, get, insert, outlive, record, succeeded};

/// Protects: a cancel counts at once, whether the job waits or runs, and the first end stands.
pub async fn cancel(bench: &Bench) {
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
pub async fn cancel_after(bench: &Bench) {
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

/// Protects: the version that a training makes is there with the training's end, and not without.
pub async fn record_with_the_end(bench: &Bench) {
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
pub async fn retention(bench: &Bench) {
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
