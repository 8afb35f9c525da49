//! What webhooks are told of: each change, in order.

use std::collections::BTreeSet;

use calotype_serve::job::{Kind, NewJob};
use calotype_serve::queue::{Delivery, Outcome, Queue, Update};

use crate::common::{Bench, job};
use crate::{LONG, SHORT, claim, insert, outlive, succeeded};

/// The webhooks that are due, taken and sent.
pub async fn events(queue: &Queue) -> Vec<String> {
    let due = queue.due_webhooks(100, LONG).await.unwrap();
    for delivery in &due {
        assert_eq!(delivery.tries, 0);
        queue.webhook_sent(delivery.id).await.unwrap();
    }
    due.into_iter().map(|Delivery { event, job, .. }| format!("{event} {job}")).collect()
}

/// Protects: each change is told of once, in order, with the change itself, and not too often.
pub async fn outbox(bench: &Bench) {
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
pub async fn outbox_of_some_events(bench: &Bench) {
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
pub async fn outbox_again(bench: &Bench) {
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
