//! What is being made: progress and interrupt. Both concern the requests of the caller to this process.

use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Answer;
use crate::api::pictures;
use crate::api::state::AppState;
use crate::api::tokens::Caller;
use crate::error::Result;
use crate::job::{Kind, Status};

/// The requests that wait for their pictures.
#[derive(Clone, Default)]
pub(super) struct Live(Arc<Mutex<Vec<Entry>>>);

/// A request.
#[derive(Clone)]
struct Entry {
    number: u64,
    owner: String,
    ids: Vec<String>,
}

/// A request that is in the list for as long as this value lives.
pub(super) struct Guard {
    live: Live,
    number: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.live.entries().retain(|entry| entry.number != self.number);
    }
}

impl Live {
    fn entries(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        // Whoever panicked with the lock had at most pushed or removed an entry.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Enters a request.
    pub(super) fn enter(&self, owner: &str, ids: Vec<String>) -> Guard {
        let mut entries = self.entries();
        let number = entries.last().map_or(0, |last| last.number + 1);
        entries.push(Entry { number, owner: owner.into(), ids });
        drop(entries);
        Guard { live: self.clone(), number }
    }

    /// The requests of a caller, the oldest first.
    fn of(&self, owner: &str) -> Vec<Entry> {
        self.entries().iter().filter(|entry| entry.owner == owner).cloned().collect()
    }
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    skip_current_image: bool,
}

/// How far the oldest request of the caller is.
pub(super) async fn progress(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Extension(live): Extension<Live>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let requests = live.of(&caller.name);
    Ok(Json(shown(&state, &requests, wanted.skip_current_image).await?).into_response())
}

async fn shown(state: &AppState, requests: &[Entry], without_image: bool) -> Result<Value> {
    // A picture whose steps are done is not finished: interrupted now, it is lost.
    let (mut finished, mut running, mut eta, mut current) = (0_usize, 0.0, 0.0, None);
    let ids = requests.first().map_or(&[][..], |request| &request.ids);
    for id in ids {
        let Some(job) = state.queue.get(Kind::Prediction, id).await? else { continue };
        match job.status {
            status if status.is_over() => finished += 1,
            Status::Processing => {
                let number = |name: &str| job.progress.as_ref()?.get(name)?.as_f64();
                running += number("done").unwrap_or(0.0) / number("total").unwrap_or(1.0).max(1.0);
                eta += number("seconds_left").unwrap_or(0.0);
                current = Some(job);
            }
            _ => {}
        }
    }
    let step = |name: &str| current.as_ref()?.progress.as_ref()?.get(name)?.as_u64();
    let state_of = json!({
        "skipped": false,
        "interrupted": false,
        "stopping_generation": false,
        "job": if ids.is_empty() { "" } else { "generate" },
        "job_count": ids.len(),
        "job_timestamp": "0",
        "job_no": finished,
        "sampling_step": step("done").unwrap_or(0),
        "sampling_steps": step("total").unwrap_or(0),
    });
    let image = match &current {
        Some(job) if !without_image => pictures::preview(state, job).await?.map(|png| STANDARD.encode(png)),
        _ => None,
    };
    let progress = (finished as f64 + running) / ids.len().max(1) as f64;
    Ok(
        json!({ "progress": progress, "eta_relative": eta, "state": state_of, "current_image": image, "textinfo": null }),
    )
}

/// Cancels all requests of the caller.
pub(super) async fn interrupt(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Extension(live): Extension<Live>,
) -> Answer {
    for id in live.of(&caller.name).iter().flat_map(|entry| &entry.ids) {
        state.queue.cancel(Kind::Prediction, id).await?;
    }
    Ok(Json(json!({})).into_response())
}
