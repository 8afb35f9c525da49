//! SQLite, on two threads: one owns the connection that writes, the other one that reads, which waits for no writer.
//!
//! Several processes of one host may have the same file open: one writes at a time, and the others wait. Each commit is on the disk
//! before it is acknowledged (WAL, synchronous=FULL).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::{broadcast, oneshot};

use crate::error::{Error, Result};

use super::rows::{Cell, Row, Step, only_read};
use super::schema;

/// The name of the file in the folder of data.
pub(super) const FILE: &str = "calotype.sqlite";

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(5);

/// How long a statement waits for those before it. With [`BUSY`], the time until a client hears of a database that does not answer.
const IN_LINE: Duration = Duration::from_secs(10);

/// How often the thread looks for changes by other processes.
const WATCH: Duration = Duration::from_millis(100);

/// The database's clock. `unixepoch` keeps its value within a statement.
const NOW: &str = "CAST(round(unixepoch('subsec') * 1000) AS INTEGER)";

/// A statement as SQLite reads it.
pub(super) fn dialect(statement: &str) -> String {
    statement.replace("{now}", NOW).replace("{lock}", "").replace('$', "?")
}

struct Request {
    steps: Vec<Step>,
    since: Instant,
    reply: oneshot::Sender<Result<Vec<Row>>>,
}

/// The connections, by their threads. The threads end with the last handle.
pub(super) struct Sqlite {
    writes: mpsc::Sender<Request>,
    reads: mpsc::Sender<Request>,
}

impl Sqlite {
    /// Opens the file in the folder `data`, or makes both. The ids of jobs that other processes change go to `changes`.
    pub(super) async fn open(data: &Path, changes: broadcast::Sender<String>) -> Result<Sqlite> {
        let path = super::sqlite_file(data);
        make_private(data, &path)?;
        let writes = Store::start(Store::new(path.clone(), false, changes)).await?;
        // Nobody hears of changes from this one.
        let reads = Store::start(Store::new(path, true, broadcast::channel(1).0)).await?;
        Ok(Sqlite { writes, reads })
    }

    /// Runs statements in one transaction; see [`Database::run_all`](super::database::Database::run_all).
    pub(super) async fn run(&self, steps: Vec<Step>) -> Result<Vec<Row>> {
        let (reply, answer) = oneshot::channel();
        let requests = if only_read(&steps) { &self.reads } else { &self.writes };
        requests.send(Request { steps, since: Instant::now(), reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn gone() -> Error {
    Error::Database("the thread of the database has ended".into())
}

/// Makes the folder and the file. The file has secrets in it: others do not read it.
fn make_private(folder: &Path, path: &Path) -> Result<()> {
    let problem = |error: std::io::Error| Error::Database(format!("{}: {error}", path.display()));
    fs::create_dir_all(folder).map_err(problem)?;
    let mut options = fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(problem)
}

/// What a thread has.
struct Store {
    path: PathBuf,
    /// The file that was opened first, by its device and number. Another one, or none, in its place is an error until it is back.
    file: Option<(u64, u64)>,
    /// Whether the thread only reads.
    reads: bool,
    /// `None` after an error: the next statement opens the file again.
    connection: Option<Connection>,
    /// SQLite's number of the last change by another connection that was seen.
    version: i64,
    /// The `updated_at` of the last job that was seen to change.
    newest: i64,
    changes: broadcast::Sender<String>,
}

impl Store {
    fn new(path: PathBuf, reads: bool, changes: broadcast::Sender<String>) -> Store {
        Store { path, file: None, reads, connection: None, version: 0, newest: 0, changes }
    }

    /// Opens the file on a thread of its own, which then takes requests.
    async fn start(mut self) -> Result<mpsc::Sender<Request>> {
        let (requests, incoming) = mpsc::channel();
        let (opened, ready) = oneshot::channel();
        let name = if self.reads { "sqlite reads" } else { "sqlite" };
        thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let result = self.connection().map(drop);
                let is_open = result.is_ok();
                if opened.send(result).is_ok() && is_open {
                    self.serve(&incoming);
                }
            })
            .map_err(|error| Error::Database(format!("no thread: {error}")))?;
        ready.await.map_err(|_| gone())??;
        Ok(requests)
    }

    /// Answers requests until there is nobody left to ask.
    fn serve(&mut self, requests: &mpsc::Receiver<Request>) {
        let mut watched = Instant::now();
        loop {
            if watched.elapsed() >= WATCH {
                self.watch();
                watched = Instant::now();
            }
            match requests.recv_timeout(WATCH) {
                // Who asked has hung up meanwhile.
                Ok(request) if request.reply.is_closed() => {}
                Ok(request) => {
                    let result = match request.since.elapsed() > IN_LINE {
                        true => Err(self.slow()),
                        false => self.transaction(&request.steps),
                    };
                    // Who asked may have hung up.
                    let _ = request.reply.send(result);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn connection(&mut self) -> Result<&mut Connection> {
        if self.connection.is_none() {
            let connection = if self.reads { open_to_read(&self.path)? } else { open(&self.path)? };
            let number = |statement| connection.query_row(statement, [], |row| row.get(0));
            let read = number("PRAGMA data_version").and_then(|version| {
                Ok((version, number("SELECT coalesce(max(updated_at), 0) FROM calotype_jobs")?))
            });
            (self.version, self.newest) = read.map_err(|error| problem(&self.path, &error))?;
            self.file = self.file.or_else(|| file(&self.path));
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("it was opened above"))
    }

    fn slow(&self) -> Error {
        Error::Database(format!("{}: no answer within {} s", self.path.display(), IN_LINE.as_secs()))
    }

    /// Whether the file is still the one that was opened: what is written into a file without a name is lost.
    fn check_file(&self) -> Result<()> {
        match self.file.is_some() && file(&self.path) != self.file {
            true => {
                let what = "the file was removed, or replaced by another, while it was in use";
                Err(Error::Database(format!("{}: {what}", self.path.display())))
            }
            false => Ok(()),
        }
    }

    fn transaction(&mut self, steps: &[Step]) -> Result<Vec<Row>> {
        self.check_file()?;
        let path = self.path.clone();
        let result = transaction(self.connection()?, steps);
        result.map_err(|error| {
            // Another process that writes, or a disk that is full, does the connection no harm.
            let harmless = [
                ErrorCode::DatabaseBusy,
                ErrorCode::DiskFull,
                ErrorCode::ConstraintViolation,
                ErrorCode::TooBig,
            ];
            if !error.sqlite_error_code().is_some_and(|code| harmless.contains(&code)) {
                self.connection = None;
            }
            problem(&path, &error)
        })
    }

    /// Tells of the jobs that other processes have changed. A failure shows at the next statement.
    fn watch(&mut self) {
        if self.changes.receiver_count() == 0 {
            return;
        }
        let Some(connection) = &self.connection else { return };
        let version =
            connection.query_row("PRAGMA data_version", [], |row| row.get(0)).unwrap_or(self.version);
        if version == self.version {
            return;
        }
        self.version = version;
        let steps = [(
            "SELECT id, updated_at FROM calotype_jobs WHERE updated_at >= ?1 ORDER BY updated_at DESC LIMIT 1000".to_owned(),
            vec![self.newest.into()],
        )];
        for row in self.transaction(&steps).unwrap_or_default() {
            if let [Cell::Text(Some(id)), Cell::Int(Some(updated))] = row.as_slice() {
                self.newest = self.newest.max(*updated);
                let _ = self.changes.send(id.clone());
            }
        }
    }
}

/// What an error says, without the statement.
fn problem(path: &Path, error: &rusqlite::Error) -> Error {
    let what = match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        error => error.to_string(),
    };
    Error::Database(format!("{}: {what}", path.display()))
}

fn open(path: &Path) -> Result<Connection> {
    let set_up = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(connection)
    };
    let mut connection = set_up().map_err(|error: rusqlite::Error| problem(path, &error))?;
    migrate(&mut connection).map_err(|error| match error {
        MigrateError::Sqlite(error) => problem(path, &error),
        MigrateError::Version(error) => error,
    })?;
    Ok(connection)
}

/// Opens a file that is there, with its tables, to read.
fn open_to_read(path: &Path) -> Result<Connection> {
    let set_up = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    set_up().map_err(|error: rusqlite::Error| problem(path, &error))
}

/// A file by its device and number. `None`: there is none, or the system has no such numbers.
#[cfg(unix)]
fn file(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((std::os::unix::fs::MetadataExt::dev(&found), std::os::unix::fs::MetadataExt::ino(&found)))
}

#[cfg(not(unix))]
fn file(_path: &Path) -> Option<(u64, u64)> {
    None
}

enum MigrateError {
    Sqlite(rusqlite::Error),
    Version(Error),
}

impl From<rusqlite::Error> for MigrateError {
    fn from(error: rusqlite::Error) -> MigrateError {
        MigrateError::Sqlite(error)
    }
}

/// Brings the tables to the present version.
fn migrate(connection: &mut Connection) -> std::result::Result<(), MigrateError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(schema::VERSION)?;
    let version = transaction.query_row("SELECT max(version) FROM calotype_schema", [], |row| row.get(0))?;
    let missing = schema::missing(version).map_err(MigrateError::Version)?;
    for text in missing.iter().flat_map(|migration| migration.sqlite) {
        transaction.execute_batch(&dialect(text))?;
    }
    if !missing.is_empty() {
        transaction.execute(
            "INSERT INTO calotype_schema (version) VALUES (?1)",
            [schema::MIGRATIONS.len() as i64],
        )?;
    }
    Ok(transaction.commit()?)
}

fn transaction(connection: &mut Connection, steps: &[Step]) -> rusqlite::Result<Vec<Row>> {
    if let [(statement, parameters)] = steps {
        return query(connection, statement, parameters);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut first = None;
    for (statement, parameters) in steps {
        let rows = query(&transaction, statement, parameters)?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        first.get_or_insert(rows);
    }
    transaction.commit()?;
    Ok(first.unwrap_or_default())
}

fn query(connection: &Connection, statement: &str, parameters: &[Cell]) -> rusqlite::Result<Vec<Row>> {
    let mut statement = connection.prepare(statement)?;
    let columns = statement.column_count();
    let mut found = statement.query(rusqlite::params_from_iter(parameters))?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push(
            (0..columns).map(|column| row.get_ref(column).map(cell)).collect::<rusqlite::Result<Row>>()?,
        );
    }
    Ok(rows)
}

/// A value of SQLite. The tables have numbers and texts only.
fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Integer(number) => number.into(),
        ValueRef::Text(text) => Cell::Text(Some(String::from_utf8_lossy(text).into_owned())),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Cell::Text(None),
    }
}

impl rusqlite::ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Cell::Int(Some(number)) => ToSqlOutput::Owned(Value::Integer(*number)),
            Cell::Text(Some(text)) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Cell::Int(None) | Cell::Text(None) => ToSqlOutput::Owned(Value::Null),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects clients of a database that another process keeps busy: a statement that has stood in line for long is answered at once, and is
    /// not done.
    #[test]
    fn a_statement_that_has_waited() {
        let here = tempfile::tempdir().expect("a folder");
        let mut store = Store::new(here.path().join(FILE), false, broadcast::channel(1).0);
        let (requests, incoming) = mpsc::channel();
        let mut answers = [Instant::now().checked_sub(2 * IN_LINE), Some(Instant::now())].map(|since| {
            let (reply, answer) = oneshot::channel();
            let steps = vec![("SELECT 1".to_owned(), Vec::new())];
            let request = Request { steps, since: since.expect("the machine has run for a while"), reply };
            requests.send(request).expect("there");
            answer
        });
        drop(requests);
        store.serve(&incoming);
        assert!(answers[0].try_recv().expect("an answer").is_err());
        assert_eq!(answers[1].try_recv().expect("an answer").expect("rows"), [[Cell::Int(Some(1))]]);
    }
}
