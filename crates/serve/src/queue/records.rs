//! The statements about records and about the outbox of webhooks.

use std::time::Duration;

use serde_json::Value;

use crate::error::Result;

use super::rows::{self, Cell, Step};
use super::{Delivery, Queue, Record};

/// A new record. `{if_there}` says what becomes of one that is there.
const PUT: &str = "INSERT INTO calotype_records ({record})
    SELECT $1, $2, $3, $4, CASE WHEN $5 = 0 THEN {now} ELSE $5 END WHERE true
    ON CONFLICT (kind, id) DO {if_there} RETURNING id";

const GET: &str = "SELECT {record} FROM calotype_records WHERE kind = $1 AND id = $2";

const LIST: &str = "SELECT {record} FROM calotype_records WHERE kind = $1 AND ($2 IS NULL OR parent = $2)
        AND ($3 IS NULL OR (created_at, id) < ($3, $4))
    ORDER BY created_at DESC, id DESC LIMIT $5";

const DELETE: &str = "DELETE FROM calotype_records WHERE kind = $1 AND id = $2 RETURNING id";

/// Of each job the webhook that was written first, so that none overtakes another.
const DUE: &str = "UPDATE calotype_outbox SET tries = tries + 1, due = {now} + $2 WHERE id IN (
        SELECT id FROM calotype_outbox AS o WHERE o.due <= {now}
            AND NOT EXISTS (SELECT 1 FROM calotype_outbox AS p WHERE p.job = o.job AND p.id < o.id)
        ORDER BY o.due, o.id LIMIT $1 {lock})
    RETURNING {delivery}";

const SENT: &str = "DELETE FROM calotype_outbox WHERE id = $1 RETURNING id";

const AGAIN: &str = "UPDATE calotype_outbox SET due = {now} + $2 WHERE id = $1 RETURNING id";

/// The statement that writes a record, over one of its id if there is one.
pub(super) fn replace(record: Record) -> Step {
    (
        PUT.replace("{if_there}", "UPDATE SET parent = excluded.parent, body = excluded.body"),
        parameters(record),
    )
}

fn parameters(record: Record) -> Vec<Cell> {
    let Record { kind, id, parent, body, created_at } = record;
    vec![kind.as_str().into(), id.as_str().into(), parent.as_str().into(), (&body).into(), created_at.into()]
}

/// The kind of records about resumed trainings. A record has the id of the new training; its parent is the training whose checkpoint the new one
/// begins from.
pub const RESUMES: &str = "resumes";

impl Queue {
    /// Has the training `id` begin from the last checkpoint of another.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn set_resumes(&self, id: &str, earlier: &str) -> Result<()> {
        let (kind, id, parent) = (RESUMES.into(), id.into(), earlier.into());
        self.replace_record(Record { kind, id, parent, body: Value::Null, created_at: 0 }).await
    }

    /// The training from whose last checkpoint the training `id` begins, if there is one.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn resumes(&self, id: &str) -> Result<Option<String>> {
        Ok(self.record(RESUMES, id).await?.map(|record| record.parent))
    }

    /// Makes a record. `false`: one of its kind and id is there already, and is unchanged.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn put_record(&self, record: Record) -> Result<bool> {
        Ok(!self.database.run(&PUT.replace("{if_there}", "NOTHING"), parameters(record)).await?.is_empty())
    }

    /// Makes a record, or replaces the parent and the content of the one that is there.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn replace_record(&self, record: Record) -> Result<()> {
        self.database.run_all(vec![replace(record)]).await.map(drop)
    }

    /// The record of a kind and an id.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn record(&self, kind: &str, id: &str) -> Result<Option<Record>> {
        self.database.run(GET, vec![kind.into(), id.into()]).await?.pop().map(rows::record).transpose()
    }

    /// The records of a kind, the newest first: at most `limit`, of the parent `parent` if one is named, and from behind the place `after`
    /// (time and id of a record).
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn records(
        &self,
        kind: &str,
        parent: Option<&str>,
        after: Option<(i64, String)>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let (time, id) = after.map_or((None, None), |(time, id)| (Some(time), Some(id)));
        let parameters = vec![kind.into(), parent.into(), time.into(), (&id).into(), limit.into()];
        self.database.run(LIST, parameters).await?.into_iter().map(rows::record).collect()
    }

    /// Deletes a record. `false`: there was none.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn delete_record(&self, kind: &str, id: &str) -> Result<bool> {
        Ok(!self.database.run(DELETE, vec![kind.into(), id.into()]).await?.is_empty())
    }

    /// Takes webhooks that are to be sent now, at most `limit`. Who took one says within the time `lease` what became of it; else
    /// it is sent again.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn due_webhooks(&self, limit: usize, lease: Duration) -> Result<Vec<Delivery>> {
        let taken = self.database.run(DUE, vec![limit.into(), lease.into()]).await?;
        let mut deliveries = taken.into_iter().map(rows::delivery).collect::<Result<Vec<_>>>()?;
        deliveries.sort_by_key(|delivery| delivery.id);
        Ok(deliveries)
    }

    /// Takes a webhook that was sent out of the outbox.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn webhook_sent(&self, id: i64) -> Result<()> {
        self.database.run(SENT, vec![id.into()]).await.map(drop)
    }

    /// Says that a webhook could not be sent, and when to try again. `None`: never.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn webhook_failed(&self, id: i64, again_in: Option<Duration>) -> Result<()> {
        let Some(pause) = again_in else { return self.webhook_sent(id).await };
        self.database.run(AGAIN, vec![id.into(), pause.into()]).await.map(drop)
    }
}
