//! Streamed answers: server-sent events with previews on the way, and one with each picture.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use axum::response::Response;
use axum::response::sse::Event;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::Utc;
use futures_util::stream::unfold;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::encoded;
use super::request::{self, Answer};
use crate::api::pictures::{self, Waiting};
use crate::api::refusal::Refusal;
use crate::api::state::AppState;
use crate::api::submit::changed;
use crate::api::{events, masks};
use crate::job::{Job, Kind};

/// How long a stream waits for a change until it looks by itself.
const POLL: Duration = Duration::from_secs(1);

/// The events of a request's pictures. `partial_images`: the most previews of each; `prefix`: how the events' names begin.
pub(super) fn answer(
    state: &AppState,
    waiting: Waiting,
    how: Answer,
    partial_images: u64,
    prefix: &'static str,
) -> Response {
    let (sender, receiver) = mpsc::channel(1);
    let teller = Teller { state: state.clone(), how, partial_images, prefix, sender };
    tokio::spawn(async move {
        tokio::select! {
            // The client has hung up: the predictions that it waits for are canceled.
            () = teller.sender.closed() => {}
            () = teller.tell(waiting) => {}
        }
    });
    events::sse(unfold(receiver, |mut receiver| async move {
        let event: Event = receiver.recv().await?;
        Some((Ok(event), receiver))
    }))
}

struct Teller {
    state: AppState,
    how: Answer,
    partial_images: u64,
    prefix: &'static str,
    sender: mpsc::Sender<Event>,
}

impl Teller {
    /// Tells of all pictures, or of what went wrong.
    async fn tell(&self, waiting: Waiting) {
        if let Err(refusal) = self.pictures(waiting).await {
            let refusal = pictures::renamed(refusal, request::theirs);
            self.send("error", json!({ "type": "error", "error": refusal.openai_error() })).await;
        }
    }

    async fn pictures(&self, waiting: Waiting) -> Result<(), Refusal> {
        for (job, guard) in waiting.into_jobs() {
            let made = tokio::select! {
                made = pictures::finished(&self.state, job.clone(), guard) => made?,
                never = self.previews(&job) => match never {},
            };
            let picture = made.ok_or_else(super::canceled)?;
            let png = pictures::read(&self.state, &picture).await?;
            let size = masks::png_size(&png);
            // Nothing is counted here, but clients expect the numbers.
            let usage = json!({ "total_tokens": 0, "input_tokens": 0, "output_tokens": 0,
                "input_tokens_details": { "text_tokens": 0, "image_tokens": 0 } });
            let more = json!({ "size": shown(size), "usage": usage });
            self.picture("completed", png, more).await?;
        }
        Ok(())
    }

    /// Tells of previews as long as the prediction goes on: of each share of the steps, the first.
    async fn previews(&self, job: &Job) -> Infallible {
        let mut changes = self.state.queue.changes();
        let mut told = 0;
        while told < self.partial_images {
            match self.preview(job.id(), told).await {
                Ok(is_told) => told += u64::from(is_told),
                Err(refusal) => tracing::warn!(job = job.id(), "no preview: {}", refusal.message),
            }
            tokio::select! {
                () = changed(&mut changes, job.id()) => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
        pending().await
    }

    /// Tells of the newest preview, if it is time for the one with the number. Returns whether it was.
    async fn preview(&self, id: &str, number: u64) -> Result<bool, Refusal> {
        let Some(job) = self.state.queue.get(Kind::Prediction, id).await? else { return Ok(false) };
        let step = |name: &str| job.progress.as_ref()?.get(name)?.as_u64();
        let (Some(done), Some(total)) = (step("done"), step("total")) else { return Ok(false) };
        if job.status.is_over() || done * (self.partial_images + 1) < total * (number + 1) {
            return Ok(false);
        }
        let Some(png) = pictures::preview(&self.state, &job).await? else { return Ok(false) };
        let more = json!({ "size": shown(self.how.size), "partial_image_index": number });
        self.picture("partial_image", png, more).await?;
        Ok(true)
    }

    /// Sends an event with a picture, and with more fields.
    async fn picture(&self, name: &str, png: Bytes, more: Value) -> Result<(), Refusal> {
        let kind = format!("{}.{name}", self.prefix);
        let bytes = encoded(png, self.how.format).await?;
        let mut data = json!({
            "type": kind,
            "b64_json": STANDARD.encode(bytes),
            "created_at": Utc::now().timestamp(),
            "output_format": self.how.format.name(),
            "background": "opaque",
            "quality": self.how.quality.unwrap_or("auto"),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            data[name] = value.clone();
        }
        self.send(&kind, data).await;
        Ok(())
    }

    async fn send(&self, name: &str, data: Value) {
        // A value that was made as JSON is JSON.
        let event = Event::default().event(name).json_data(data).unwrap_or_default();
        // If the client has hung up, whoever runs this stops.
        let _ = self.sender.send(event).await;
    }
}

fn shown(size: Option<(u32, u32)>) -> String {
    size.map_or("auto".into(), |(width, height)| format!("{width}x{height}"))
}
