//! Connections: accepted, served and ended.
//!
//! `axum::serve` does the same, but waits for a request's headers for ever: whoever opens connections and says nothing would have them all.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long the headers of a request may take, and how long a connection may be idle before the next.
const HEADERS: Duration = Duration::from_secs(30);
/// The pause after a connection that could not be accepted: there are too many, or the network is down.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves connections until `end` turns true, and those that have a request then until it is answered.
pub async fn serve(listener: TcpListener, app: Router, mut end: watch::Receiver<bool>) {
    let mut server = Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let mut connections = JoinSet::new();
    let ends = end.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(server.clone(), stream, app.clone(), ends.clone()));
                }
                Err(e) => {
                    tracing::warn!("a connection: {e}");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = ended(&mut end) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(server: Builder, stream: TcpStream, app: Router, mut end: watch::Receiver<bool>) {
    // Short answers go at once. Where the system cannot do that, they go a little later.
    let _ = stream.set_nodelay(true);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = ended(&mut end) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = done {
        // Clients hang up; that is their affair.
        tracing::debug!("a connection: {e}");
    }
}

/// Waits until there is nothing more to wait for.
async fn ended(end: &mut watch::Receiver<bool>) {
    // What it returns is a lock, which may not be kept.
    drop(end.wait_for(|end| *end).await);
}
