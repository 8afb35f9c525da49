//! The queue: jobs as rows of a database, with leases.
//!
//! A worker takes a job for some seconds (the lease) and prolongs the lease with heartbeats. A job whose lease is over belongs to whoever
//! takes it next. Every change by a worker names the attempt that it has: a worker that lost its job changes nothing. Each step is
//! one statement or one transaction, by the database's clock. Triggers of the tables write the outbox of webhooks, within the
//! statement that changes the job.
//!
//! ```text
//! jobs.rs       the statements about jobs, which SQLite and Postgres both read
//! records.rs    those about records and the outbox
//! schema.rs     tables, indexes, triggers; versions of the schema
//! database.rs   a statement goes to one of the two databases
//! rows.rs       rows of the database and what they stand for
//! sqlite.rs     SQLite, on one thread that owns the connection
//! postgres/     Postgres, over a small pool, and a connection that listens
//! ```

mod database;
mod jobs;
mod postgres;
mod records;
mod rows;
mod schema;
mod sqlite;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::broadcast;

use crate::error::{Error, Result};
use crate::job::{Job, Kind, Status};
use crate::settings::Settings;

use self::database::Database;
pub use self::records::RESUMES;

/// The jobs, the records and the webhooks of a service, in its database. A clone is another handle of the same queue.
///
/// A function fails with [`Error::Database`](crate::error::Error::Database) where the database does not answer, and works again when the
/// database does.
#[derive(Clone)]
pub struct Queue {
    database: Arc<Database>,
    changes: broadcast::Sender<String>,
}

impl Queue {
    /// Checks that the settings do not name a file of SQLite that is not there. [`Queue::open`] would make the file, and a worker would wait for
    /// jobs that no service puts there.
    ///
    /// # Errors
    /// [`Error::Settings`](crate::error::Error::Settings): there is no such file.
    pub fn check_there(settings: &Settings) -> Result<()> {
        let file = sqlite_file(&settings.data);
        if settings.database.is_some() || file.is_file() {
            return Ok(());
        }
        Err(Error::Settings(format!(
            "--data {}: expected the folder of `calotype serve` with its {}, found none; start the service first, or name its --database",
            settings.data.display(),
            sqlite::FILE
        )))
    }

    /// Opens the database that the settings name, and makes or upgrades the tables.
    ///
    /// # Errors
    /// [`Error::Settings`](crate::error::Error::Settings): the address is no address of a database, or a newer program made the tables.
    /// [`Error::Database`](crate::error::Error::Database): the database does not answer.
    pub async fn open(settings: &Settings) -> Result<Queue> {
        let changes = broadcast::channel(CHANGES).0;
        let database = Arc::new(Database::open(settings, &changes).await?);
        Ok(Queue { database, changes })
    }

    /// The ids of jobs that changed, from now on: those of this process at once, those of others soon after. Some may be missing,
    /// and some come twice: readers look at the database every second too.
    pub fn changes(&self) -> broadcast::Receiver<String> {
        self.changes.subscribe()
    }

    /// Tells the readers of [`Queue::changes`] of a change by this process.
    fn changed(&self, id: &str) {
        if !self.database.tells_own_changes() {
            // An error means that nobody reads.
            let _ = self.changes.send(id.to_owned());
        }
    }
}

/// The file of SQLite in a folder for data.
pub fn sqlite_file(data: &Path) -> PathBuf {
    data.join(sqlite::FILE)
}

/// Changes that a slow reader may be behind.
const CHANGES: usize = 1024;

/// How many jobs may wait where a new one is put into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// Jobs of the new one's kind.
    pub of_kind: usize,
    /// Jobs of the new one's owner, of all kinds. `None`: as many as may wait.
    pub of_owner: Option<usize>,
}

impl From<usize> for Cap {
    fn from(of_kind: usize) -> Cap {
        Cap { of_kind, of_owner: None }
    }
}

/// What became of a new job.
#[derive(Debug, Clone, PartialEq)]
pub enum Inserted {
    /// The job waits in the queue.
    New(Job),
    /// A job with the id was there already.
    Exists(Job),
    /// As many jobs of the kind wait as may. Nothing was made.
    Full,
    /// As many jobs of the owner wait as may. Nothing was made.
    OwnerFull,
}

/// What a worker tells with a heartbeat.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// Text that is added to the log.
    pub logs: String,
    /// The progress from now on. `None`: as before.
    pub progress: Option<Value>,
    /// The output from now on, for `output` events. `None`: as before.
    pub output: Option<Value>,
}

/// The end of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Succeeded, failed or canceled.
    pub status: Status,
    /// The output.
    pub output: Option<Value>,
    /// The error.
    pub error: Option<String>,
    /// Numbers for the metrics; `total_time` is added by the database.
    pub metrics: Map<String, Value>,
    /// The rest of the log.
    pub logs: String,
    /// A record that is made in the same transaction: the version that a training makes.
    pub record: Option<Record>,
}

/// Which jobs, in which order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// The kind. `None`: all.
    pub kind: Option<Kind>,
    /// The model.
    pub model: Option<String>,
    /// Jobs made at this time or later.
    pub created_after: Option<i64>,
    /// Jobs made before this time.
    pub created_before: Option<i64>,
    /// `api` or `web`.
    pub source: Option<String>,
    /// The oldest first, instead of the newest.
    pub ascending: bool,
    /// The place of the last job of the page before: its time and id.
    pub after: Option<(i64, String)>,
    /// The most jobs.
    pub limit: usize,
}

/// Something else that is kept: a model, a version, a file, a secret. Its content is JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// `model`, `version`, `file`, `secret`, [`RESUMES`].
    pub kind: String,
    /// The id: unique within the kind.
    pub id: String,
    /// What the record belongs to: of a version its model, of a file its owner.
    pub parent: String,
    /// The content.
    pub body: Value,
    /// When the record was made, in milliseconds since 1970. 0 in a new record: now.
    pub created_at: i64,
}

/// A webhook that is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The number in the outbox.
    pub id: i64,
    /// The job.
    pub job: String,
    /// `start`, `output`, `logs` or `completed`.
    pub event: String,
    /// How often sending was tried before.
    pub tries: u32,
}

/// The jobs that wait and compute now, of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that wait.
    pub queued: usize,
    /// Those that a worker has.
    pub running: usize,
}

/// How often a job may be started before it counts as one that kills its worker.
pub const MAX_STARTS: i64 = 3;
