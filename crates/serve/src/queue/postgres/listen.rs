//! A connection that hears of jobs that change, and is made again where it ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio_postgres::{AsyncMessage, Client};

use crate::error::{Error, Result};

use super::problem;
use super::url::Server;

/// The pause before a new connection.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the connection is tried: a server that vanished says nothing.
const TRY: Duration = Duration::from_secs(20);

/// Listens for ever. `listening` is true while changes come: through a pooler of connections they may not, and nothing says so.
pub(super) async fn run(server: Server, changes: broadcast::Sender<String>, listening: Arc<AtomicBool>) {
    loop {
        let Err(error) = listen(&server, &changes, &listening).await;
        listening.store(false, Ordering::Relaxed);
        tracing::debug!("no changes of jobs are heard of for now: {error}");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen(
    server: &Server,
    changes: &broadcast::Sender<String>,
    listening: &AtomicBool,
) -> Result<Infallible> {
    let (client, mut connection) = server.connect().await?;
    let hear = async {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(notice))) if notice.payload().is_empty() => {
                    listening.store(true, Ordering::Relaxed);
                }
                Some(Ok(AsyncMessage::Notification(notice))) => {
                    // An error means that nobody reads.
                    let _ = changes.send(notice.payload().to_owned());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(problem(&error)),
                None => return Err(Error::Database("the connection was closed".into())),
            }
        }
    };
    tokio::select! {
        error = hear => error,
        error = keep(&client) => error,
    }
}

/// Asks for the notices, and makes sure of the connection from time to time.
async fn keep(client: &Client) -> Result<Infallible> {
    loop {
        // A notice without an id shows that notices come.
        tokio::time::timeout(super::PATIENCE, client.batch_execute("LISTEN calotype; NOTIFY calotype"))
            .await
            .map_err(|_| super::slow())?
            .map_err(|error| problem(&error))?;
        tokio::time::sleep(TRY).await;
    }
}
