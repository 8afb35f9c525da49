//! What readers find: lists, searches, records, numbers, and changes.

use std::collections::BTreeSet;
use std::time::Duration;

use calotype_serve::job::{Job, Kind, NewJob};
use calotype_serve::queue::{Filter, Record};
use serde_json::json;

use crate::common::{Bench, job};
use crate::{insert, record};

/// Protects: pages of a list have each job once, in both directions, and filters let the right ones through.
pub async fn pages(bench: &Bench) {
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
pub async fn search(bench: &Bench) {
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

/// Protects: records are made once, replaced when that is asked for, listed by page, and deleted.
pub async fn records(bench: &Bench) {
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

/// Protects: a model's number of predictions counts each once, and those that are gone.
pub async fn runs(bench: &Bench) {
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

/// Protects: changes by this process and by others are heard of.
pub async fn changes(bench: &Bench) {
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
