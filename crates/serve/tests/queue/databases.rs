//! The databases themselves: opened, away, slow, newer.

use calotype_serve::error::Error;
use calotype_serve::queue::{Inserted, Queue};
use serde_json::json;

use crate::common::{Bench, Cluster, job};
use crate::readers::changes;
use crate::{LONG, claim, get, insert, record};

/// Protects: all is there when the database is opened again.
pub async fn reopened(bench: &Bench) {
    let queue = bench.open().await;
    let made = insert(&queue, job("a")).await;
    queue.put_record(record("model", "me/mine", "", json!(1))).await.unwrap();
    drop(queue);
    let queue = bench.open().await;
    assert_eq!(get(&queue, "a").await, made);
    assert!(queue.record("model", "me/mine").await.unwrap().is_some());
}

/// Protects: tables of a newer program are left alone.
pub async fn newer_tables(bench: &Bench) {
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
pub async fn opened_at_once(bench: &Bench) {
    let opened = (0..8).map(|_| {
        let settings = bench.settings.clone();
        tokio::spawn(async move { Queue::open(&settings).await.unwrap().now().await.unwrap() })
    });
    for queue in opened.collect::<Vec<_>>() {
        queue.await.unwrap();
    }
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

/// Protects: a database that is away is an error, and works again when it is there again, with all that was acknowledged.
pub fn database_that_goes_and_comes(cluster: &mut Cluster) {
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
pub fn given_up(cluster: &Cluster) {
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
pub fn tls(cluster: &Cluster) {
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
