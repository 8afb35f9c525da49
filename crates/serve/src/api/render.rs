//! Jobs as JSON: in the form of Replicate's API, which has all that Cog's form has.

use std::collections::HashMap;

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::input::wide_schema;
use super::state::AppState;
use super::submit::url_base;
use crate::error::Result;
use crate::inputs;
use crate::job::{Job, SENT_WEIGHTS, Status};

/// How an answer names files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// A prediction's pictures are in the answer, as data URIs. Weights and sets have URLs, as they are too large.
    DataUris,
    /// Files have signed URLs under this base: empty for URLs that are relative to the service.
    Urls(String),
}

/// What an answer depends on beside the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The service's URL.
    pub base: String,
    /// How files are named.
    pub files: Files,
    /// Whether the page asks.
    pub is_page: bool,
}

impl View {
    /// The view of a client of Replicate's API: URLs of `https`, which are all that clients take for files, else data URIs. The page asks for
    /// URLs with the query `file_urls=true`.
    pub fn of(state: &AppState, headers: &HeaderMap, query: &HashMap<String, String>) -> View {
        let base = url_base(state, headers);
        let is_page = query.get("file_urls").is_some_and(|value| value == "true");
        let files = match is_page {
            true => Files::Urls(String::new()),
            false if base.starts_with("https://") => Files::Urls(base.clone()),
            false => Files::DataUris,
        };
        View { base, files, is_page }
    }

    /// The view of a client of Cog's API: data URIs.
    pub fn cog(state: &AppState, headers: &HeaderMap) -> View {
        View { base: url_base(state, headers), files: Files::DataUris, is_page: false }
    }

    /// The view of a webhook's receiver, whom no request has told the service's URL.
    pub fn webhook(state: &AppState) -> View {
        let base = url_base(state, &HeaderMap::new());
        let files = match state.settings.public_url {
            Some(_) => Files::Urls(base.clone()),
            None => Files::DataUris,
        };
        View { base, files, is_page: false }
    }

    /// What URLs of files begin with.
    fn base_of_files(&self) -> &str {
        match &self.files {
            Files::DataUris => &self.base,
            Files::Urls(base) => base,
        }
    }

    /// The same view with URLs in place of data URIs: a page of a hundred jobs would not fit into memory otherwise.
    pub fn with_urls(mut self) -> View {
        if self.files == Files::DataUris {
            self.files = Files::Urls(self.base.clone());
        }
        self
    }
}

/// A time of the database as RFC 3339.
pub fn time(milliseconds: i64) -> String {
    let time = DateTime::<Utc>::from_timestamp_millis(milliseconds).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The URL of a stored file.
pub fn file_url(state: &AppState, view: &View, key: &str) -> String {
    state.links.url(view.base_of_files(), key)
}

/// The output of a job, with files as `view` names them. `Value::Null`: there is none.
///
/// # Errors
/// The storage does not answer.
pub async fn output(state: &AppState, job: &Job, view: &View) -> Result<Value> {
    match &job.output {
        Some(Value::Array(keys)) => {
            let mut files = Vec::with_capacity(keys.len());
            for key in keys {
                files.push(Value::from(match sent(key, "url", view) {
                    Some(url) => url.to_owned(),
                    None => file(state, view, stored(key)).await?,
                }));
            }
            Ok(files.into())
        }
        Some(Value::Object(output)) => {
            let mut shown = Value::Object(output.clone());
            with_urls(&mut shown, &|key: &str| file_url(state, view, key));
            let sent = sent(&Value::Object(output.clone()), SENT_WEIGHTS, view).map(Value::from);
            if let Some(shown) = shown.as_object_mut() {
                shown.extend(sent.map(|url| ("weights".into(), url)));
                shown.shift_remove(SENT_WEIGHTS);
            }
            Ok(shown)
        }
        _ => Ok(Value::Null),
    }
}

/// The key of a file in the output of a prediction.
fn stored(file: &Value) -> &str {
    file.as_str().or_else(|| file["key"].as_str()).unwrap_or_default()
}

/// The URL of a file that was uploaded to the client's own place. `None` for the page, which shows only files of the service.
fn sent<'a>(file: &'a Value, field: &str, view: &View) -> Option<&'a str> {
    file.get(field)?.as_str().filter(|_| !view.is_page)
}

/// The fields of an output whose values are storage keys.
const KEYS: [&str; 5] = ["weights", "set", "contact_sheet", "picture", "mask"];

/// Puts URLs in the place of the storage keys of an output that is an object.
fn with_urls(output: &mut Value, url: &impl Fn(&str) -> String) {
    match output {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(key) if KEYS.contains(&name.as_str()) => *value = url(key).into(),
                    value => with_urls(value, url),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| with_urls(value, url)),
        _ => {}
    }
}

/// A picture as `view` names it.
async fn file(state: &AppState, view: &View, key: &str) -> Result<String> {
    if view.files == Files::DataUris {
        // A file that is gone has at least the URL where it was.
        if let Some(bytes) = state.storage.read(key).await? {
            let kind = if key.ends_with(".png") { "image/png" } else { "application/octet-stream" };
            return Ok(format!("data:{kind};base64,{}", STANDARD.encode(&bytes)));
        }
    }
    Ok(file_url(state, view, key))
}

/// The input of a job, in which files of the service have URLs as `view` begins them.
pub fn input(job: &Job, view: &View) -> Map<String, Value> {
    inputs::with_base(wide_schema(job.made.kind), &job.made.input, view.base_of_files())
}

/// A job in the form of Replicate's API.
///
/// # Errors
/// The storage does not answer.
pub async fn job(state: &AppState, job: &Job, view: &View) -> Result<Value> {
    let output = output(state, job, view).await?;
    Ok(json_of(job, output, view))
}

/// A job as it was when it was made, whatever has become of it since: what a create answers where nobody waits, or in vain. Clients take any
/// other status for the end.
pub fn starting(job: &Job, view: &View) -> Value {
    let job = Job {
        status: Status::Starting,
        logs: job.made.context.first_lines(),
        error: None,
        metrics: Map::new(),
        started_at: None,
        completed_at: None,
        ..job.clone()
    };
    json_of(&job, Value::Null, view)
}

fn json_of(job: &Job, output: Value, view: &View) -> Value {
    let made = &job.made;
    let url = format!("{}/v1/{}/{}", view.base, made.kind.names(), job.id());
    let mut body = json!({
        "id": job.id(),
        "model": made.model,
        "version": made.version,
        "input": input(job, view),
        "output": output,
        "logs": job.logs,
        "error": job.error,
        "status": job.status.name(),
        "metrics": job.metrics,
        "created_at": time(job.created_at),
        "started_at": job.started_at.map(time),
        "completed_at": job.completed_at.map(time),
        "source": made.source,
        "data_removed": false,
        "urls": {
            "get": url,
            "cancel": format!("{url}/cancel"),
            "web": format!("{}/#history", view.base),
        },
    });
    if let Some(destination) = &made.destination {
        body["destination"] = destination.as_str().into();
    }
    if let Some(webhook) = &made.webhook {
        body["webhook"] = webhook.as_str().into();
        body["webhook_events_filter"] = made.webhook_events.clone().into();
    }
    body
}
