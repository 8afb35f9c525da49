//! The tables, and how a database comes to their present form.
//!
//! A version of the schema is a text of statements for each database. A database keeps the number of its version in the table
//! `calotype_schema`; opening it runs the texts that it lacks, in one transaction. A text that was released never changes.
//!
//! Times are milliseconds since 1970. `{now}` stands for the database's clock.

use crate::error::{Error, Result};

/// One version of the schema, for each database.
pub(super) struct Migration {
    pub(super) sqlite: &'static [&'static str],
    pub(super) postgres: &'static [&'static str],
}

/// The versions, from the first.
pub(super) const MIGRATIONS: [Migration; 2] = [
    Migration {
        sqlite: &[JOBS_SQLITE, OUTBOX_SQLITE, TABLES, EVENTS_SQLITE],
        postgres: &[JOBS_POSTGRES, OUTBOX_POSTGRES, TABLES, EVENTS_POSTGRES],
    },
    Migration { sqlite: &[CONTEXT, RUNS_SQLITE], postgres: &[CONTEXT, RUNS_POSTGRES] },
];

/// The table with the number of the schema's version.
pub(super) const VERSION: &str = "CREATE TABLE IF NOT EXISTS calotype_schema (version BIGINT NOT NULL)";

/// The migrations that a database of the version `version` lacks.
///
/// # Errors
/// The version is newer than this program.
pub(super) fn missing(version: Option<i64>) -> Result<&'static [Migration]> {
    usize::try_from(version.unwrap_or(0)).ok().and_then(|done| MIGRATIONS.get(done..)).ok_or_else(|| {
        let (has, knows) = (version.unwrap_or(0), MIGRATIONS.len());
        Error::Settings(format!(
            "the database has tables of version {has}, and this program knows version {knows}: take a newer calotype"
        ))
    })
}

/// `seq` is the order in the queue. `starts` counts what the limit of starts is about: claims, less releases.
macro_rules! jobs {
    ($seq:literal) => {
        concat!(
            "CREATE TABLE calotype_jobs (seq ",
            $seq,
            ", id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, owner TEXT NOT NULL, model TEXT NOT NULL,
            version TEXT NOT NULL, input TEXT NOT NULL, destination TEXT, webhook TEXT, webhook_events TEXT NOT NULL,
            source TEXT NOT NULL, cancel_after BIGINT, cancel_at BIGINT, status TEXT NOT NULL, attempt BIGINT NOT NULL,
            starts BIGINT NOT NULL, worker TEXT, lease_until BIGINT, logs TEXT NOT NULL, output TEXT, error TEXT,
            metrics TEXT NOT NULL, progress TEXT, created_at BIGINT NOT NULL, started_at BIGINT, completed_at BIGINT,
            updated_at BIGINT NOT NULL);"
        )
    };
}
const JOBS_SQLITE: &str = jobs!("INTEGER PRIMARY KEY AUTOINCREMENT");
const JOBS_POSTGRES: &str = jobs!("BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY");

/// Webhooks that are to be sent at `due` or later. `tries` is 0 until somebody has begun to send the webhook.
macro_rules! outbox {
    ($id:literal) => {
        concat!(
            "CREATE TABLE calotype_outbox (id ",
            $id,
            ", job TEXT NOT NULL REFERENCES calotype_jobs (id) ON DELETE CASCADE, event TEXT NOT NULL,
            due BIGINT NOT NULL, tries BIGINT NOT NULL);"
        )
    };
}
const OUTBOX_SQLITE: &str = outbox!("INTEGER PRIMARY KEY AUTOINCREMENT");
const OUTBOX_POSTGRES: &str = outbox!("BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY");

const TABLES: &str = "
    CREATE TABLE calotype_records (kind TEXT NOT NULL, id TEXT NOT NULL, parent TEXT NOT NULL, body TEXT NOT NULL,
        created_at BIGINT NOT NULL, PRIMARY KEY (kind, id));
    CREATE INDEX calotype_records_newest ON calotype_records (kind, created_at, id);
    CREATE INDEX calotype_jobs_open ON calotype_jobs (status, seq) WHERE completed_at IS NULL;
    CREATE INDEX calotype_jobs_newest ON calotype_jobs (created_at, id);
    CREATE INDEX calotype_jobs_over ON calotype_jobs (completed_at) WHERE completed_at IS NOT NULL;
    CREATE INDEX calotype_jobs_updated ON calotype_jobs (updated_at);
    CREATE INDEX calotype_outbox_due ON calotype_outbox (due);
    CREATE INDEX calotype_outbox_job ON calotype_outbox (job, id);";

/// What a change of a job adds to the outbox: rows for the events that the webhook is told of.
///
/// A row that waits stands for all changes until it is sent, so that one for logs or output on the way waits half a second. When
/// the job ends, `completed` tells of the last lines, unless the webhook is not told of that event.
macro_rules! events {
    () => {
        "DELETE FROM calotype_outbox WHERE job = NEW.id AND event = 'logs' AND tries = 0 AND NEW.completed_at IS NOT NULL
            AND (NEW.webhook_events = '[]' OR NEW.webhook_events LIKE '%\"completed\"%');
        INSERT INTO calotype_outbox (job, event, due, tries)
        SELECT NEW.id, e.event, {now} + e.pause, 0 FROM (
            SELECT 1 AS place, 'start' AS event, 0 AS pause, OLD.started_at IS NULL AND NEW.started_at IS NOT NULL AS happens
            UNION ALL SELECT 2, 'logs', 500, NEW.logs <> OLD.logs AND NOT (NEW.completed_at IS NOT NULL
                AND (NEW.webhook_events = '[]' OR NEW.webhook_events LIKE '%\"completed\"%'))
            UNION ALL SELECT 3, 'output', CASE WHEN NEW.completed_at IS NULL THEN 500 ELSE 0 END,
                NEW.output IS NOT NULL AND NEW.output IS DISTINCT FROM OLD.output
            UNION ALL SELECT 4, 'completed', 0, OLD.completed_at IS NULL AND NEW.completed_at IS NOT NULL
        ) AS e
        WHERE e.happens AND (NEW.webhook_events = '[]' OR NEW.webhook_events LIKE '%\"' || e.event || '\"%')
            AND NOT EXISTS (SELECT 1 FROM calotype_outbox AS o WHERE o.job = NEW.id AND o.event = e.event AND o.tries = 0)
        ORDER BY e.place;"
    };
}

const EVENTS_SQLITE: &str = concat!(
    "CREATE TRIGGER calotype_events AFTER UPDATE OF updated_at ON calotype_jobs WHEN NEW.webhook IS NOT NULL BEGIN ",
    events!(),
    " END;"
);

/// A notice has at most 8,000 bytes. It only wakes, so that the beginning of a long id will do.
const EVENTS_POSTGRES: &str = concat!(
    "CREATE FUNCTION calotype_events() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ",
    events!(),
    " RETURN NULL; END $$;
    CREATE FUNCTION calotype_notify() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_notify('calotype', left(NEW.id, 1000)); RETURN NULL; END $$;
    CREATE TRIGGER calotype_events AFTER UPDATE OF updated_at ON calotype_jobs
        FOR EACH ROW WHEN (NEW.webhook IS NOT NULL) EXECUTE FUNCTION calotype_events();
    CREATE TRIGGER calotype_notify AFTER INSERT OR UPDATE OF updated_at ON calotype_jobs
        FOR EACH ROW EXECUTE FUNCTION calotype_notify();"
);

/// What a job carries along, and the number of each model's predictions that were deleted. Those that are there are counted: a number that
/// each insert changed would have them wait for each other.
const CONTEXT: &str = "
    ALTER TABLE calotype_jobs ADD COLUMN context TEXT NOT NULL DEFAULT '{}';
    CREATE INDEX calotype_jobs_runs ON calotype_jobs (model, kind);
    CREATE TABLE calotype_runs (model TEXT PRIMARY KEY, runs BIGINT NOT NULL);";

macro_rules! deleted {
    () => {
        "INSERT INTO calotype_runs (model, runs) VALUES (OLD.model, 1)
            ON CONFLICT (model) DO UPDATE SET runs = calotype_runs.runs + 1;"
    };
}

const RUNS_SQLITE: &str = concat!(
    "CREATE TRIGGER calotype_deleted AFTER DELETE ON calotype_jobs WHEN OLD.kind = 'prediction' BEGIN ",
    deleted!(),
    " END;"
);
const RUNS_POSTGRES: &str = concat!(
    "CREATE FUNCTION calotype_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ",
    deleted!(),
    " RETURN NULL; END $$;
    CREATE TRIGGER calotype_deleted AFTER DELETE ON calotype_jobs
        FOR EACH ROW WHEN (OLD.kind = 'prediction') EXECUTE FUNCTION calotype_deleted();"
);
