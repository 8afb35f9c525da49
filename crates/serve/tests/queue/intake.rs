//! What becomes of new jobs: each is there once, whole, and within the limits.

use calotype_serve::job::{Kind, NewJob, Status};
use calotype_serve::queue::{Cap, Counts, Inserted, Update};
use serde_json::json;

use crate::common::{Bench, job};
use crate::{LONG, claim, get, insert};

/// Protects: a job comes back as it was made, a second one of its id does not count, and a full queue takes no more.
pub async fn inserts(bench: &Bench) {
    let queue = bench.open().await;
    let mut full = job("a");
    full.kind = Kind::Training;
    full.destination = Some("me/mine".into());
    full.webhook = Some("https://example.com/hook".into());
    full.webhook_events = vec!["start".into(), "completed".into()];
    full.cancel_after = Some(300);
    full.context.trace.traceparent = Some("00-1-2-01".into());
    full.context.output_file_prefix = Some("https://example.com/\"ü\"".into());
    full.context.warnings = vec!["warning: one".into(), "warning: two".into()];
    full.input.insert("z before a".into(), json!({"nested": [1, 2.5, null, "ü"]}));
    let made = insert(&queue, full.clone()).await;
    assert_eq!(made.made, full);
    assert_eq!(
        (made.status, made.attempt, made.logs.as_str()),
        (Status::Starting, 0, "warning: one\nwarning: two\n")
    );
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

/// Protects: so many jobs of an owner wait, of all kinds; those of others, and those that compute, do not count.
pub async fn waiting_of_an_owner(bench: &Bench) {
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

/// Protects: texts with all kinds of characters come back; the character 0, which Postgres lacks, is replaced.
pub async fn odd_texts(bench: &Bench) {
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
