//! The statements about jobs.

use std::time::Duration;

use serde_json::Value;

use crate::error::Result;
use crate::job::{Job, Kind, NewJob, Status};

use super::rows::{self, Cell, Reader};
use super::{Cap, Counts, Filter, Inserted, MAX_STARTS, Outcome, Queue, Update};

/// What a worker's statement asks of the job: the worker still has it.
macro_rules! own {
    () => {
        " WHERE id = $1 AND attempt = $2 AND status = 'processing' AND worker IS NOT NULL"
    };
}

/// The same of a job that was canceled in the worker's hands.
macro_rules! left {
    () => {
        " WHERE id = $1 AND attempt = $2 AND status = 'canceled' AND worker IS NOT NULL"
    };
}

const INSERT: &str = "INSERT INTO calotype_jobs (id, kind, owner, model, version, input, destination, webhook, webhook_events,
        source, cancel_after, context, cancel_at, status, attempt, starts, logs, metrics, created_at, updated_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, {now} + $13, 'starting', 0, 0, $16, '{}', {now}, {now}
    WHERE (SELECT count(*) FROM calotype_jobs WHERE completed_at IS NULL AND status = 'starting' AND kind = $2) < $14
        AND ($15 IS NULL
            OR (SELECT count(*) FROM calotype_jobs WHERE completed_at IS NULL AND status = 'starting' AND owner = $3) < $15)
    ON CONFLICT (id) DO NOTHING RETURNING {job}";

/// Jobs whose time is over, and those that have ended their worker as often as they may.
const END_OVERDUE: &str =
    "UPDATE calotype_jobs SET status = CASE WHEN cancel_at <= {now} THEN 'canceled' ELSE 'failed' END,
        error = CASE WHEN cancel_at <= {now} THEN error ELSE $1 END, completed_at = {now}, updated_at = {now}
    WHERE id IN (SELECT id FROM calotype_jobs WHERE completed_at IS NULL
        AND (cancel_at <= {now} OR (status = 'processing' AND lease_until <= {now} AND starts >= $2)) {lock})
    RETURNING {job}";

/// `processing` comes before `starting`: a job whose worker is gone before those that wait.
const CLAIM: &str =
    "UPDATE calotype_jobs SET status = 'processing', attempt = attempt + 1, starts = starts + 1, worker = $1,
        lease_until = {now} + $2, started_at = coalesce(started_at, {now}), updated_at = {now}
    WHERE id = (SELECT id FROM calotype_jobs WHERE completed_at IS NULL AND kind IN ($3, $4, $5) AND starts < $6
        AND (status = 'starting' OR lease_until <= {now}) AND (cancel_at IS NULL OR cancel_at > {now})
        ORDER BY status, seq LIMIT 1 {lock})
    RETURNING {job}";

/// A bare heartbeat changes nothing that anybody waits for: `updated_at` stays.
const HEARTBEAT: &str = concat!(
    "UPDATE calotype_jobs SET lease_until = {now} + $3",
    own!(),
    " AND (cancel_at IS NULL OR cancel_at > {now}) RETURNING id"
);
const UPDATE: &str = concat!(
    "UPDATE calotype_jobs SET lease_until = {now} + $3, logs = logs || $4, progress = coalesce($5, progress),
        output = coalesce($6, output), updated_at = {now}",
    own!(),
    " AND (cancel_at IS NULL OR cancel_at > {now}) RETURNING id"
);

const FINISH: &str = concat!(
    "UPDATE calotype_jobs SET status = $3, output = $4, error = $5, metrics = $6, logs = logs || $7,
        completed_at = {now}, updated_at = {now}",
    own!(),
    " RETURNING id"
);

const RELEASE: &str = concat!(
    "UPDATE calotype_jobs SET lease_until = {now}, starts = starts - 1, worker = NULL, updated_at = {now}",
    own!(),
    " RETURNING id"
);

const CANCEL: &str = "UPDATE calotype_jobs SET status = 'canceled', completed_at = {now}, updated_at = {now}
    WHERE id = $1 AND kind = $2 AND completed_at IS NULL RETURNING {job}";

/// A canceled training stays with its worker until the last checkpoint is stored.
const STAY: &str = concat!("UPDATE calotype_jobs SET lease_until = {now} + $3", left!(), " RETURNING id");
const LEAVE: &str = concat!("UPDATE calotype_jobs SET worker = NULL", left!(), " RETURNING id");
const LEAVING: &str = "SELECT count(*) FROM calotype_jobs
    WHERE id = $1 AND status = 'canceled' AND worker IS NOT NULL AND lease_until > {now}";

const GET: &str = "SELECT {job} FROM calotype_jobs WHERE id = $1 AND ($2 IS NULL OR kind = $2)";

/// `{beyond}` and `{order}` are as the direction says.
const LIST: &str = "SELECT {job} FROM calotype_jobs WHERE ($1 IS NULL OR kind = $1) AND ($2 IS NULL OR model = $2)
        AND ($3 IS NULL OR created_at >= $3) AND ($4 IS NULL OR created_at < $4) AND ($5 IS NULL OR source = $5)
        AND ($6 IS NULL OR (created_at, id) {beyond} ($6, $7))
    ORDER BY created_at {order}, id {order} LIMIT $8";

const SEARCH: &str = "SELECT {job} FROM calotype_jobs
    WHERE lower(input) LIKE lower($1) ESCAPE '!' OR lower(model) LIKE lower($1) ESCAPE '!' OR lower(id) LIKE lower($1) ESCAPE '!'
    ORDER BY created_at DESC, id DESC LIMIT $2";

const COUNTS: &str =
    "SELECT kind, status, count(*) FROM calotype_jobs WHERE completed_at IS NULL GROUP BY kind, status";

const WAITING: &str =
    "SELECT count(*) FROM calotype_jobs WHERE completed_at IS NULL AND status = 'starting' AND owner = $1";

/// Those that are there, and those that were deleted.
const RUNS: &str = "SELECT (SELECT count(*) FROM calotype_jobs WHERE kind = 'prediction' AND model = $1)
    + coalesce((SELECT runs FROM calotype_runs WHERE model = $1), 0)";

const DELETE_BEFORE: &str = "DELETE FROM calotype_jobs WHERE id IN (SELECT id FROM calotype_jobs
        WHERE completed_at IS NOT NULL AND completed_at < $1 ORDER BY completed_at LIMIT $2 {lock}) RETURNING {job}";

impl Queue {
    /// Puts a job into the queue, if fewer wait there than `cap` allows: a number of its kind, or [`Cap`]. The id is unique over all
    /// kinds: the job that [`Inserted::Exists`] returns may be of another kind.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn insert(&self, job: NewJob, cap: impl Into<Cap>) -> Result<Inserted> {
        let cap = cap.into();
        // Some 300 years: a sum with the clock stays a number of 64 bits.
        let limit =
            job.cancel_after.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).min(10_000_000_000));
        let events = Value::from(job.webhook_events.clone());
        let parameters = vec![
            job.id.as_str().into(),
            job.kind.name().into(),
            job.owner.as_str().into(),
            job.model.as_str().into(),
            job.version.as_str().into(),
            (&job.input).into(),
            (&job.destination).into(),
            (&job.webhook).into(),
            (&events).into(),
            job.source.as_str().into(),
            limit.into(),
            (&job.context).into(),
            job.cancel_after.map_or(Cell::Int(None), |seconds| Duration::from_secs(seconds).into()),
            cap.of_kind.into(),
            cap.of_owner.map_or(Cell::Int(None), Cell::from),
            job.context.first_lines().as_str().into(),
        ];
        if let Some(row) = self.database.run(INSERT, parameters).await?.pop() {
            self.changed(&job.id);
            return Ok(Inserted::New(rows::job(row)?));
        }
        if let Some(found) = self.find(&job.id, None).await? {
            return Ok(Inserted::Exists(found));
        }
        let Some(most) = cap.of_owner else { return Ok(Inserted::Full) };
        let is_full = self.number(WAITING, vec![job.owner.as_str().into()]).await? >= most;
        Ok(if is_full { Inserted::OwnerFull } else { Inserted::Full })
    }

    /// How many predictions of a model were made, those that retention has deleted among them.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn runs(&self, model: &str) -> Result<usize> {
        self.number(RUNS, vec![model.into()]).await
    }

    /// Gives the worker `worker` a job of the kinds `kinds`, for the time `lease`: one whose worker is gone, or the one that waits longest.
    /// Its webhook is told that it starts. The caller does not drop the future before its end: a job that was taken by then waits
    /// for the end of its lease.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn claim(&self, worker: &str, kinds: &[Kind], lease: Duration) -> Result<Option<Job>> {
        let Some(last) = kinds.last() else { return Ok(None) };
        self.cancel_overdue().await?;
        let mut parameters: Vec<Cell> = vec![worker.into(), lease.into()];
        parameters.extend((0..Kind::ALL.len()).map(|at| kinds.get(at).unwrap_or(last).name().into()));
        parameters.push(MAX_STARTS.into());
        let job = self.database.run(CLAIM, parameters).await?.pop().map(rows::job).transpose()?;
        if let Some(job) = &job {
            self.changed(job.id());
        }
        Ok(job)
    }

    /// Ends the jobs whose time is over (`cancel_after`), and those that have ended their worker [`MAX_STARTS`] times. Each claim does so
    /// too; a service whose workers are elsewhere calls this function every second or so. Returns the jobs that it ended.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn cancel_overdue(&self) -> Result<Vec<Job>> {
        let error = format!(
            "The worker ended {MAX_STARTS} times while it computed this job. The job is not started again."
        );
        let parameters = vec![error.as_str().into(), MAX_STARTS.into()];
        let jobs = self.jobs(END_OVERDUE, parameters).await?;
        jobs.iter().for_each(|job| self.changed(job.id()));
        Ok(jobs)
    }

    /// Prolongs the lease of a job to `lease` from now, and tells how far the job is. `false`: the attempt `attempt` does not have the
    /// job any more. It was canceled, its time is over, or another worker has it.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn heartbeat(&self, id: &str, attempt: i64, lease: Duration, update: Update) -> Result<bool> {
        let mut parameters = vec![id.into(), attempt.into(), lease.into()];
        if update == Update::default() {
            return self.change(id, HEARTBEAT, parameters, false).await;
        }
        let more: [Cell; 3] =
            [update.logs.as_str().into(), (&update.progress).into(), (&update.output).into()];
        parameters.extend(more);
        self.change(id, UPDATE, parameters, true).await
    }

    /// Ends a job, and makes the record of its outcome in the same transaction. `false`: the attempt `attempt` does not have the
    /// job any more, and nothing is changed.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn finish(&self, id: &str, attempt: i64, outcome: Outcome) -> Result<bool> {
        debug_assert!(outcome.status.is_over());
        let parameters = vec![
            id.into(),
            attempt.into(),
            outcome.status.name().into(),
            (&outcome.output).into(),
            (&outcome.error).into(),
            (&outcome.metrics).into(),
            outcome.logs.as_str().into(),
        ];
        let mut steps = vec![(FINISH.to_owned(), parameters)];
        steps.extend(outcome.record.map(super::records::replace));
        let done = !self.database.run_all(steps).await?.is_empty();
        if done {
            self.changed(id);
        }
        Ok(done)
    }

    /// Gives a job back to the queue, as a worker does that is to end. The start does not count. `false`: the attempt `attempt` does not
    /// have the job any more.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn release(&self, id: &str, attempt: i64) -> Result<bool> {
        self.change(id, RELEASE, vec![id.into(), attempt.into()], true).await
    }

    /// Cancels a job at once, whoever has it. A job that is over stays as it is. `None`: there is no such job.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn cancel(&self, kind: Kind, id: &str) -> Result<Option<Job>> {
        let canceled = self.jobs(CANCEL, vec![id.into(), kind.name().into()]).await?.pop();
        if canceled.is_some() {
            self.changed(id);
            return Ok(canceled);
        }
        self.get(kind, id).await
    }

    /// Tells that the attempt's worker is not done with a job that was canceled, for the time `lease`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn stay(&self, id: &str, attempt: i64, lease: Duration) -> Result<bool> {
        self.change(id, STAY, vec![id.into(), attempt.into(), lease.into()], false).await
    }

    /// Tells that the attempt's worker is done with a job that was canceled.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn leave(&self, id: &str, attempt: i64) -> Result<bool> {
        self.change(id, LEAVE, vec![id.into(), attempt.into()], false).await
    }

    /// Whether a worker is not done with a job that was canceled: a training's last checkpoint may come yet.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn is_leaving(&self, id: &str) -> Result<bool> {
        Ok(self.number(LEAVING, vec![id.into()]).await? > 0)
    }

    /// The job of an id. `None`: there is no such job of the kind.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn get(&self, kind: Kind, id: &str) -> Result<Option<Job>> {
        self.find(id, Some(kind)).await
    }

    /// The job of an id, of whichever kind.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn find(&self, id: &str, kind: Option<Kind>) -> Result<Option<Job>> {
        Ok(self.jobs(GET, vec![id.into(), kind.map(Kind::name).into()]).await?.pop())
    }

    /// The jobs that the filter lets through, by time and id.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Job>> {
        let (time, id) = filter.after.clone().map_or((None, None), |(time, id)| (Some(time), Some(id)));
        let parameters = vec![
            filter.kind.map(Kind::name).into(),
            (&filter.model).into(),
            filter.created_after.into(),
            filter.created_before.into(),
            (&filter.source).into(),
            time.into(),
            (&id).into(),
            filter.limit.into(),
        ];
        let (beyond, order) = if filter.ascending { (">", "ASC") } else { ("<", "DESC") };
        self.jobs(&LIST.replace("{beyond}", beyond).replace("{order}", order), parameters).await
    }

    /// The newest jobs with `text` in their input, their model or their id, without regard to the case of Latin letters.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn search(&self, text: &str, limit: usize) -> Result<Vec<Job>> {
        // The input is kept as JSON, so that the text is looked for as it is written there.
        let json = Value::from(text).to_string();
        let inner = &json[1..json.len() - 1];
        let escaped = inner.replace('!', "!!").replace('%', "!%").replace('_', "!_");
        self.jobs(SEARCH, vec![format!("%{escaped}%").as_str().into(), limit.into()]).await
    }

    /// How many jobs wait and compute, of each kind.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn counts(&self) -> Result<[(Kind, Counts); Kind::ALL.len()]> {
        let mut counts = Kind::ALL.map(|kind| (kind, Counts::default()));
        for row in self.database.run(COUNTS, Vec::new()).await? {
            let mut row = Reader::new("calotype_jobs", row);
            let (kind, status) = (row.named(Kind::of_name)?, row.named(Status::of_name)?);
            let count = usize::try_from(row.number()?).unwrap_or(0);
            for (_, counts) in counts.iter_mut().filter(|(other, _)| *other == kind) {
                match status {
                    Status::Starting => counts.queued = count,
                    _ => counts.running = count,
                }
            }
        }
        Ok(counts)
    }

    /// Deletes jobs that ended before the time `time`, at most `limit`, the oldest first. Returns those that were deleted.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn delete_before(&self, time: i64, limit: usize) -> Result<Vec<Job>> {
        self.jobs(DELETE_BEFORE, vec![time.into(), limit.into()]).await
    }

    /// The time by the database's clock.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn now(&self) -> Result<i64> {
        let mut rows = self.database.run("SELECT {now}", Vec::new()).await?;
        Reader::new("clock", rows.pop().unwrap_or_default()).number()
    }

    /// The number that a statement counts.
    async fn number(&self, statement: &str, parameters: Vec<Cell>) -> Result<usize> {
        let mut rows = self.database.run(statement, parameters).await?;
        let count = Reader::new("calotype_jobs", rows.pop().unwrap_or_default()).number()?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The jobs that a statement returns.
    async fn jobs(&self, statement: &str, parameters: Vec<Cell>) -> Result<Vec<Job>> {
        self.database.run(statement, parameters).await?.into_iter().map(rows::job).collect()
    }

    /// Runs a statement that changes the job `id` or, with `false`, nothing. `visible`: others wait for such changes.
    async fn change(&self, id: &str, statement: &str, parameters: Vec<Cell>, visible: bool) -> Result<bool> {
        let done = !self.database.run(statement, parameters).await?.is_empty();
        if done && visible {
            self.changed(id);
        }
        Ok(done)
    }
}
