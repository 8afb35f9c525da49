//! Webhooks: what is told of jobs' events.
//!
//! The queue writes down what is to be sent, together with the change of the job ([`Queue::due_webhooks`]). The sender sends it, at
//! least once, in order. `completed` is tried again where the receiver does not answer; the other events are tried once. Requests
//! are signed as Standard Webhooks are.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::job::{Job, Status};
use crate::queue::{Delivery, Queue, Record};

/// A request to the address of a webhook, or why there is none to be made, in one line.
pub type Request = Arc<dyn Fn(&str) -> std::result::Result<RequestBuilder, String> + Send + Sync>;

/// The body that tells of a job.
pub type Render = Arc<dyn Fn(Job) -> BoxFuture<'static, Result<Value>> + Send + Sync>;

/// The longest that a receiver may take.
const TIME_OUT: Duration = Duration::from_secs(30);

/// How long a webhook belongs to the process that sends it, unless the process prolongs that time.
const LEASE: Duration = Duration::from_secs(5);

/// How often it does.
const PROLONG: Duration = Duration::from_secs(2);

/// How often the outbox is looked at, besides changes that this process hears of.
const POLL: Duration = Duration::from_millis(500);

/// Webhooks at once.
const AT_ONCE: usize = 32;

/// How often `completed` is tried again.
const RETRIES: u32 = 12;

/// The secret that signs webhooks: `whsec_` and 32 bytes in base64. The first call makes the secret.
///
/// # Errors
/// The database does not answer.
pub async fn secret(queue: &Queue) -> Result<String> {
    let mut key = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut key)
        .map_err(|_| Error::Settings("the system has no random numbers".into()))?;
    let body = json!({"key": format!("whsec_{}", STANDARD.encode(key))});
    let (kind, id) = ("secret".to_owned(), "webhooks".to_owned());
    queue.put_record(Record { kind, id, parent: String::new(), body, created_at: 0 }).await?;
    let record = queue.record("secret", "webhooks").await?;
    let key = record.as_ref().and_then(|record| record.body["key"].as_str());
    key.map(str::to_owned).ok_or_else(|| Error::Database("the secret of the webhooks is gone".into()))
}

/// Sends the webhooks of the queue, for ever.
///
/// `request` makes a `POST` to an address, and refuses addresses that are not to be reached. `render` makes the body.
pub async fn sender(queue: Queue, request: Request, render: Render) {
    let token = std::env::var("WEBHOOK_AUTH_TOKEN").ok().filter(|token| !token.is_empty());
    let sender = Arc::new(Sender { queue: queue.clone(), request, render, token });
    let mut changes = queue.changes();
    let mut sending = JoinSet::new();
    loop {
        match queue.due_webhooks(AT_ONCE - sending.len(), LEASE).await {
            Ok(due) => due.into_iter().for_each(|delivery| {
                sending.spawn(sender.clone().deliver(delivery));
            }),
            Err(error) => tracing::warn!("webhooks wait: {error}"),
        }
        tokio::select! {
            // What changed does not matter: the outbox says what is due. A reader that is behind looks too.
            _ = changes.recv(), if sending.len() < AT_ONCE => {}
            Some(_) = sending.join_next() => {}
            () = tokio::time::sleep(POLL), if sending.len() < AT_ONCE => {}
        }
        while sending.try_join_next().is_some() {}
    }
}

struct Sender {
    queue: Queue,
    request: Request,
    render: Render,
    /// `WEBHOOK_AUTH_TOKEN`, as Cog has it.
    token: Option<String>,
}

/// Why a webhook was not sent.
#[derive(Debug)]
enum Failure {
    /// Another try may do.
    Passing(String),
    /// The receiver does not want the webhook, or is not to be reached.
    Final(String),
}

impl Sender {
    /// Sends a webhook, and says in the outbox what became of it. Where the database does not answer, the webhook is sent again
    /// after its lease.
    async fn deliver(self: Arc<Self>, delivery: Delivery) {
        let Delivery { id, job, event, tries } = &delivery;
        let sent = tokio::select! {
            sent = self.send(&delivery) => sent,
            () = self.prolong(*id) => return,
        };
        let result = match sent {
            Ok(()) => self.queue.webhook_sent(*id).await,
            Err(Failure::Passing(problem)) if event == "completed" && *tries < RETRIES => {
                tracing::info!("webhook {event} of {job}: {problem}; tried again");
                self.queue.webhook_failed(*id, Some(pause(*tries))).await
            }
            Err(Failure::Passing(problem) | Failure::Final(problem)) => {
                tracing::warn!("webhook {event} of {job}: {problem}; not tried again");
                self.queue.webhook_failed(*id, None).await
            }
        };
        if let Err(error) = result {
            tracing::warn!("webhook {event} of {job} may come twice: {error}");
        }
    }

    /// Keeps a webhook from other senders, for ever.
    async fn prolong(&self, id: i64) {
        loop {
            tokio::time::sleep(PROLONG).await;
            if let Err(error) = self.queue.webhook_failed(id, Some(LEASE)).await {
                tracing::debug!("a webhook may come twice: {error}");
            }
        }
    }

    async fn send(&self, delivery: &Delivery) -> std::result::Result<(), Failure> {
        let database = |error: Error| Failure::Passing(error.to_string());
        let Some(job) = self.queue.find(&delivery.job, None).await.map_err(database)? else { return Ok(()) };
        let Some(address) = job.made.webhook.clone() else { return Ok(()) };
        let trace = job.made.context.trace.clone();
        let value = (self.render)(as_of(job, &delivery.event)).await.map_err(database)?;
        let body = value.to_string();
        let secret = secret(&self.queue).await.map_err(database)?;
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let id = format!("msg_{}", delivery.id);
        let signature =
            sign(&secret, &id, time, &body).ok_or_else(|| Failure::Final("the secret is wrong".into()))?;
        let mut request = (self.request)(&address)
            .map_err(Failure::Final)?
            .timeout(TIME_OUT)
            .header("content-type", "application/json")
            .header("user-agent", concat!("calotype/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", time.to_string())
            .header("webhook-signature", signature)
            .body(body);
        for (name, value) in trace.headers() {
            request = request.header(name, value);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        match request.send().await {
            Ok(response) => judge(response.status()),
            Err(error) if error.is_builder() => Err(Failure::Final(error.without_url().to_string())),
            Err(error) => Err(Failure::Passing(error.without_url().to_string())),
        }
    }
}

/// What an answer means.
fn judge(status: StatusCode) -> std::result::Result<(), Failure> {
    match status.as_u16() {
        200..=299 => Ok(()),
        429 | 500 | 502 | 503 | 504 => Err(Failure::Passing(format!("the receiver answers {status}"))),
        _ => Err(Failure::Final(format!("the receiver answers {status}"))),
    }
}

/// The pause before another try, after `tries` tries: from 0.2 s, twice as long each time, up to 102 s.
fn pause(tries: u32) -> Duration {
    Duration::from_millis(200 << tries.min(9))
}

/// The job as it was at the event: one that has ended since is not over when it starts.
fn as_of(mut job: Job, event: &str) -> Job {
    if event != "completed" && job.status.is_over() {
        job.status = Status::Processing;
        (job.completed_at, job.error) = (None, None);
        job.metrics.clear();
    }
    if event == "start" {
        job.logs.clear();
        job.output = None;
    }
    job
}

/// The header `webhook-signature`. `None`: the secret is no secret of webhooks.
fn sign(secret: &str, id: &str, time: u64, body: &str) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{time}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: the signature, by the example of the Standard Webhooks' specification.
    #[test]
    fn signature_of_the_specification() {
        let signature = sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(sign("whsec_*", "", 0, ""), None);
    }

    /// Protects: the pauses between tries, and which answers end them.
    #[test]
    fn tries_and_answers() {
        assert_eq!(pause(0), Duration::from_millis(200));
        assert_eq!(pause(3), Duration::from_millis(1600));
        assert_eq!(pause(RETRIES), Duration::from_millis(102_400));
        assert!(judge(StatusCode::NO_CONTENT).is_ok());
        assert!(matches!(judge(StatusCode::BAD_GATEWAY), Err(Failure::Passing(_))));
        assert!(matches!(judge(StatusCode::FOUND), Err(Failure::Final(_))));
        assert!(matches!(judge(StatusCode::NOT_FOUND), Err(Failure::Final(_))));
    }
}
