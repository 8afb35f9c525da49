//! A few connections, which are made where they are missing and thrown away where they fail.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::Client;

use crate::error::{Error, Result};

use super::url::Server;

/// Connections at once. More statements wait.
const SIZE: usize = 8;

/// How long a statement waits for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Pool {
    server: Server,
    idle: Mutex<Vec<Client>>,
    permits: Semaphore,
}

impl Pool {
    pub(super) fn new(server: Server) -> Pool {
        Pool { server, idle: Mutex::default(), permits: Semaphore::new(SIZE) }
    }

    /// A connection, for its holder alone.
    pub(super) async fn get(&self) -> Result<Lent<'_>> {
        let lend = async {
            let permit = self.permits.acquire().await.expect("the semaphore is never closed");
            let client = match self.last() {
                Some(client) => client,
                None => self.connect().await?,
            };
            Ok(Lent { pool: self, client: Some(client), keep: false, _permit: permit })
        };
        let late = |_| Error::Database(format!("no connection within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, lend).await.map_err(late)?
    }

    /// The idle connection that was used last, if the server has not closed it.
    fn last(&self) -> Option<Client> {
        let mut idle = self.idle();
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Client> {
        let (client, connection) = self.server.connect().await?;
        // Ends with the client. Statements hear of its errors.
        tokio::spawn(connection);
        Ok(client)
    }
}

/// A connection of the pool. It goes back there only after [`Lent::keep`].
pub(super) struct Lent<'a> {
    pool: &'a Pool,
    client: Option<Client>,
    keep: bool,
    _permit: SemaphorePermit<'a>,
}

impl Lent<'_> {
    /// Says that the connection is in order.
    pub(super) fn keep(mut self) {
        self.keep = true;
    }
}

impl Deref for Lent<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().expect("only drop takes the client")
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.client.as_mut().expect("only drop takes the client")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let client = self.client.take().filter(|client| !client.is_closed());
        let mut idle = self.pool.idle();
        match client {
            Some(client) if self.keep => idle.push(client),
            // The others are as old, and have the same server.
            None => idle.clear(),
            Some(_) => {}
        }
    }
}
