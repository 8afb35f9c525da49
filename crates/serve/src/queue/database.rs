//! A statement goes to one of the two databases.
//!
//! SQLite and Postgres read the same statements, but for the names in braces: `{now}` is the database's clock in milliseconds since
//! 1970, `{lock}` takes the rows that nobody else takes at the time (SQLite has one writer, and needs none), and `{job}`, `{record}`
//! and `{delivery}` are the columns that `rows.rs` reads.

use tokio::sync::broadcast;

use crate::error::Result;
use crate::settings::Settings;

use super::rows::{Cell, DELIVERY, JOB, RECORD, Row, Step};
use super::{postgres, sqlite};

/// The database.
pub(super) enum Database {
    Sqlite(sqlite::Sqlite),
    Postgres(Box<postgres::Postgres>),
}

impl Database {
    /// Opens the database that the settings name. The ids of jobs that others change go to `changes`.
    pub(super) async fn open(settings: &Settings, changes: &broadcast::Sender<String>) -> Result<Database> {
        match &settings.database {
            None => Ok(Database::Sqlite(sqlite::Sqlite::open(&settings.data, changes.clone()).await?)),
            Some(url) => {
                Ok(Database::Postgres(Box::new(postgres::Postgres::open(url, changes.clone()).await?)))
            }
        }
    }

    /// Runs a statement, which is a transaction of its own. Returns its rows.
    pub(super) async fn run(&self, statement: &str, parameters: Vec<Cell>) -> Result<Vec<Row>> {
        self.run_all(vec![(statement.to_owned(), parameters)]).await
    }

    /// Runs statements in one transaction. A statement without rows ends the transaction, and nothing is changed. Returns the
    /// rows of the first statement.
    pub(super) async fn run_all(&self, mut steps: Vec<Step>) -> Result<Vec<Row>> {
        for (statement, _) in &mut steps {
            let columns =
                statement.replace("{job}", JOB).replace("{record}", RECORD).replace("{delivery}", DELIVERY);
            *statement = match self {
                Database::Sqlite(_) => sqlite::dialect(&columns),
                Database::Postgres(_) => postgres::dialect(&columns),
            };
        }
        match self {
            Database::Sqlite(database) => database.run(steps).await,
            Database::Postgres(database) => database.run(steps).await,
        }
    }

    /// Whether the database tells this process of its own changes too.
    pub(super) fn tells_own_changes(&self) -> bool {
        match self {
            Database::Sqlite(_) => false,
            Database::Postgres(database) => database.listens(),
        }
    }
}
