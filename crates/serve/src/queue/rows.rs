//! Rows of the database, and the types that they stand for.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::job::{Context, Job, Kind, NewJob, Status};

use super::{Delivery, Record};

/// A value of a column or of a statement's parameter: a number or a text, each of which may be null.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Int(Option<i64>),
    Text(Option<String>),
}

/// The values of a row, in the statement's order.
pub(super) type Row = Vec<Cell>;

/// A statement with its parameters `$1`, `$2`, …
pub(super) type Step = (String, Vec<Cell>);

/// Whether the steps change nothing.
pub(super) fn only_read(steps: &[Step]) -> bool {
    steps.iter().all(|(statement, _)| statement.starts_with("SELECT"))
}

impl From<i64> for Cell {
    fn from(number: i64) -> Cell {
        Cell::Int(Some(number))
    }
}

impl From<Option<i64>> for Cell {
    fn from(number: Option<i64>) -> Cell {
        Cell::Int(number)
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Cell {
        Cell::Int(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl From<Duration> for Cell {
    /// Milliseconds: some 300 years at most, so that a sum with the clock stays a number of 64 bits.
    fn from(time: Duration) -> Cell {
        Cell::Int(Some(i64::try_from(time.as_millis()).unwrap_or(i64::MAX).min(10_000_000_000_000)))
    }
}

impl From<&str> for Cell {
    /// Postgres has no text with the character 0, so that no database gets any.
    fn from(text: &str) -> Cell {
        Cell::Text(Some(text.replace('\0', "\u{fffd}")))
    }
}

impl From<Option<&str>> for Cell {
    fn from(text: Option<&str>) -> Cell {
        text.map_or(Cell::Text(None), Cell::from)
    }
}

impl From<&Option<String>> for Cell {
    fn from(text: &Option<String>) -> Cell {
        Cell::from(text.as_deref())
    }
}

impl From<&Value> for Cell {
    fn from(value: &Value) -> Cell {
        Cell::Text(Some(value.to_string()))
    }
}

impl From<&Option<Value>> for Cell {
    fn from(value: &Option<Value>) -> Cell {
        Cell::Text(value.as_ref().map(Value::to_string))
    }
}

impl From<&Context> for Cell {
    fn from(context: &Context) -> Cell {
        Cell::Text(Some(serde_json::to_string(context).expect("texts are JSON")))
    }
}

impl From<&Map<String, Value>> for Cell {
    fn from(map: &Map<String, Value>) -> Cell {
        Cell::Text(Some(serde_json::to_string(map).expect("a map of JSON values is JSON")))
    }
}

/// The columns that [`job`] reads.
pub(super) const JOB: &str = "id, kind, owner, model, version, input, destination, webhook, webhook_events, source, \
    cancel_after, context, status, attempt, logs, output, error, metrics, progress, created_at, started_at, completed_at";

/// The job of a row with the columns [`JOB`].
pub(super) fn job(row: Row) -> Result<Job> {
    let mut row = Reader::new("calotype_jobs", row);
    let made = NewJob {
        id: row.text()?,
        kind: row.named(Kind::of_name)?,
        owner: row.text()?,
        model: row.text()?,
        version: row.text()?,
        input: row.json()?,
        destination: row.text_or_null()?,
        webhook: row.text_or_null()?,
        webhook_events: row.json()?,
        source: row.text()?,
        cancel_after: row.number_or_null()?.map(|seconds| seconds.max(0) as u64),
        context: row.json()?,
    };
    let mut job = Job {
        made,
        status: row.named(Status::of_name)?,
        attempt: row.number()?,
        logs: row.text()?,
        output: row.json_or_null()?,
        error: row.text_or_null()?,
        metrics: row.json()?,
        progress: row.json_or_null()?,
        created_at: row.number()?,
        started_at: row.number_or_null()?,
        completed_at: row.number_or_null()?,
    };
    if let Some(end) = job.completed_at {
        let seconds = (end - job.created_at).max(0) as f64 / 1000.0;
        job.metrics.entry("total_time").or_insert_with(|| seconds.into());
    }
    Ok(job)
}

/// The columns that [`record`] reads.
pub(super) const RECORD: &str = "kind, id, parent, body, created_at";

/// The record of a row with the columns [`RECORD`].
pub(super) fn record(row: Row) -> Result<Record> {
    let mut row = Reader::new("calotype_records", row);
    Ok(Record {
        kind: row.text()?,
        id: row.text()?,
        parent: row.text()?,
        body: row.json()?,
        created_at: row.number()?,
    })
}

/// The columns that [`delivery`] reads.
pub(super) const DELIVERY: &str = "id, job, event, tries";

/// The delivery of a row with the columns [`DELIVERY`], whose `tries` counts this one.
pub(super) fn delivery(row: Row) -> Result<Delivery> {
    let mut row = Reader::new("calotype_outbox", row);
    let (id, job, event, tries) = (row.number()?, row.text()?, row.text()?, row.number()?);
    Ok(Delivery { id, job, event, tries: (tries - 1).clamp(0, 1000) as u32 })
}

/// Reads the values of a row, one after the other.
pub(super) struct Reader {
    table: &'static str,
    row: std::vec::IntoIter<Cell>,
}

impl Reader {
    pub(super) fn new(table: &'static str, row: Row) -> Reader {
        Reader { table, row: row.into_iter() }
    }

    fn wrong(&self, expected: &str) -> Error {
        Error::Database(format!("the table {} has a row with something else than {expected}", self.table))
    }

    pub(super) fn number_or_null(&mut self) -> Result<Option<i64>> {
        match self.row.next() {
            Some(Cell::Int(number)) => Ok(number),
            Some(Cell::Text(None)) => Ok(None),
            _ => Err(self.wrong("a number")),
        }
    }

    pub(super) fn number(&mut self) -> Result<i64> {
        self.number_or_null()?.ok_or_else(|| self.wrong("a number"))
    }

    pub(super) fn text_or_null(&mut self) -> Result<Option<String>> {
        match self.row.next() {
            Some(Cell::Text(text)) => Ok(text),
            _ => Err(self.wrong("a text")),
        }
    }

    pub(super) fn text(&mut self) -> Result<String> {
        self.text_or_null()?.ok_or_else(|| self.wrong("a text"))
    }

    /// A text that `of_name` knows.
    pub(super) fn named<T>(&mut self, of_name: impl Fn(&str) -> Option<T>) -> Result<T> {
        let name = self.text()?;
        of_name(&name).ok_or_else(|| self.wrong("a name that this version knows"))
    }

    fn json_or_null<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some(text) = self.text_or_null()? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|_| self.wrong("JSON"))
    }

    fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.json_or_null()?.ok_or_else(|| self.wrong("JSON"))
    }
}
