//! Postgres, over a small pool, and a connection that listens for changes by others.

mod listen;
mod pool;
mod tls;
mod url;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::{Error, Result};

use super::rows::{Cell, Row, Step, only_read};
use super::schema;

use self::pool::Pool;

/// The longest that a statement may take. A database that takes longer counts as one that does not answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// The server gives up a changing statement after this time, its waits for locks included. The time is less than [`PATIENCE`]: a client that got
/// an error must not find the change made later.
const LIMIT: &str = "SET LOCAL statement_timeout = '10s'";

/// The number of the lock under which tables are made: the letters "calo".
const MIGRATION_LOCK: i64 = 0x6361_6c6f;

/// The database's clock. The time is that of the statement's start, the same within the statement.
const NOW: &str = "(extract(epoch from statement_timestamp()) * 1000)::bigint";

/// A statement as Postgres reads it.
pub(super) fn dialect(statement: &str) -> String {
    statement.replace("{now}", NOW).replace("{lock}", "FOR UPDATE SKIP LOCKED")
}

/// The database.
pub(super) struct Postgres {
    pool: Pool,
    listening: Arc<AtomicBool>,
    listener: JoinHandle<()>,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Postgres {
    /// Connects to the database of a URL. The ids of jobs that change go to `changes`.
    pub(super) async fn open(url: &str, changes: broadcast::Sender<String>) -> Result<Postgres> {
        let server = url::parse(url)?;
        let pool = Pool::new(server.clone());
        let mut client = pool.get().await?;
        tokio::time::timeout(PATIENCE, migrate(&mut client)).await.map_err(|_| slow())??;
        client.keep();
        let listening = Arc::new(AtomicBool::new(false));
        let listener = tokio::spawn(listen::run(server, changes, listening.clone()));
        Ok(Postgres { pool, listening, listener })
    }

    /// Whether the listener hears of changes now, those of this process among them.
    pub(super) fn listens(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    /// Runs statements in one transaction; see [`Database::run_all`](super::database::Database::run_all).
    pub(super) async fn run(&self, steps: Vec<Step>) -> Result<Vec<Row>> {
        let mut client = self.pool.get().await?;
        // A connection on which a statement failed, or was abandoned, is not used again.
        let rows =
            tokio::time::timeout(PATIENCE, transaction(&mut client, &steps)).await.map_err(|_| slow())?;
        let rows = rows.map_err(|error| problem(&error))?;
        client.keep();
        Ok(rows)
    }
}

fn slow() -> Error {
    Error::Database(format!("no answer within {} s", PATIENCE.as_secs()))
}

/// What an error says. Its own text leaves out the cause.
fn problem(error: &tokio_postgres::Error) -> Error {
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    let message =
        error.as_db_error().map_or_else(|| format!("{error}{cause}"), |error| error.message().to_owned());
    Error::Database(message)
}

/// Brings the tables to the present version.
async fn migrate(client: &mut Client) -> Result<()> {
    let transaction = client.transaction().await.map_err(|error| problem(&error))?;
    let run = async |text: &str| transaction.simple_query(text).await.map_err(|error| problem(&error));
    // Of two processes that start at once, one makes the tables.
    run(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
    run(schema::VERSION).await?;
    let found = run("SELECT max(version) FROM calotype_schema").await?;
    let version = found.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).and_then(|version| version.parse().ok()),
        _ => None,
    });
    let missing = schema::missing(version)?;
    for text in missing.iter().flat_map(|migration| migration.postgres) {
        run(&dialect(text)).await?;
    }
    if !missing.is_empty() {
        run(&format!("INSERT INTO calotype_schema (version) VALUES ({})", schema::MIGRATIONS.len())).await?;
    }
    transaction.commit().await.map_err(|error| problem(&error))
}

async fn transaction(
    client: &mut Client,
    steps: &[Step],
) -> std::result::Result<Vec<Row>, tokio_postgres::Error> {
    if let ([(statement, parameters)], true) = (steps, only_read(steps)) {
        return client.query_typed(statement, &typed(parameters)).await?.iter().map(row).collect();
    }
    // Also of one statement: without its end, the server takes back what a connection that was given up has changed.
    let transaction = client.transaction().await?;
    transaction.batch_execute(LIMIT).await?;
    let mut first = None;
    for (statement, parameters) in steps {
        let rows = transaction.query_typed(statement, &typed(parameters)).await?;
        if rows.is_empty() {
            transaction.rollback().await?;
            return Ok(Vec::new());
        }
        first.get_or_insert(rows);
    }
    transaction.commit().await?;
    first.unwrap_or_default().iter().map(row).collect()
}

/// Parameters with their types, so that the server is not asked for the types first.
fn typed(parameters: &[Cell]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    fn typed(cell: &Cell) -> (&(dyn ToSql + Sync), Type) {
        match cell {
            Cell::Int(number) => (number, Type::INT8),
            Cell::Text(text) => (text, Type::TEXT),
        }
    }
    parameters.iter().map(typed).collect()
}

/// A row. The tables have numbers of 64 bits and texts only.
fn row(row: &tokio_postgres::Row) -> std::result::Result<Row, tokio_postgres::Error> {
    let cell = |(index, column): (usize, &tokio_postgres::Column)| match *column.type_() {
        Type::INT8 => row.try_get(index).map(Cell::Int),
        _ => row.try_get(index).map(Cell::Text),
    };
    row.columns().iter().enumerate().map(cell).collect()
}
