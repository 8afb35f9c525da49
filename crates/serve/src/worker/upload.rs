//! What a job has made → where its client, or the operator, wants to have it, as Cog sends outputs. The files are in the storage as well.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use object_store::GetOptions;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};
use serde_json::{Value, json};

use super::attempt::Attempt;
use super::{Ended, Worker};
use crate::inputs::{CheckedClient, cause};
use crate::job::{Context, Job, SENT_WEIGHTS};

/// How often a file is sent before the job fails.
const TRIES: u32 = 4;
/// The pause before the second try. It doubles with each.
const PAUSE: Duration = Duration::from_millis(200);
/// The most redirects.
const REDIRECTS: usize = 5;
/// How long a file may take in all.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// What separates the parts of a form. No picture and no archive has it.
const BOUNDARY: &str = "calotype-7d1b0c6e5f0a4a2f9f6c3f0d2b8e4a17";

/// Where the files of a job are sent.
struct Place<'a> {
    client: CheckedClient,
    /// The URL without the name of a file.
    base: String,
    /// Whether a file is sent as a form, and not as it is.
    as_form: bool,
    job: &'a Job,
}

/// Why a file was not sent.
enum Failure {
    /// Another try may do.
    Passing(String),
    Final(String),
}

impl Worker {
    /// Sends the files of a job that succeeded, if they are wanted anywhere. A place that does not take them is an error of the job.
    pub(super) async fn sent(&self, job: &Job, attempt: &Attempt, ended: Ended) -> Ended {
        let Ended::Done(mut done) = ended else { return ended };
        let sending = async {
            if let Some(place) = Place::of(job, self.settings.allow_private_networks)? {
                self.send_output(&place, &mut done.output).await?;
            }
            Ok::<(), String>(())
        };
        let sent = tokio::select! {
            sent = sending => sent,
            () = attempt.canceled() => return Ended::Canceled,
        };
        sent.map_or_else(Ended::Failed, |()| Ended::Done(done))
    }

    /// Sends the files of an output, and writes their URLs beside their keys.
    async fn send_output(&self, place: &Place<'_>, output: &mut Value) -> Result<(), String> {
        if let Some(key) = output.get("weights").and_then(Value::as_str).map(String::from) {
            output[SENT_WEIGHTS] = self.send(place, &key).await?.into();
        }
        for file in output.as_array_mut().into_iter().flatten() {
            let Some(key) = file.as_str().map(String::from) else { continue };
            *file = json!({ "key": key, "url": self.send(place, &key).await? });
        }
        Ok(())
    }

    /// Sends a file, some times if need be. Returns its URL.
    async fn send(&self, place: &Place<'_>, key: &str) -> Result<String, String> {
        let name = key.rsplit('/').next().unwrap_or(key);
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.send_once(place, key, name).await {
                Ok(url) => return Ok(url),
                Err(Failure::Final(problem)) => return Err(format!("upload of {name}: {problem}")),
                Err(Failure::Passing(problem)) => {
                    tracing::info!(job = place.job.id(), "upload of {name}: {problem}; tried again");
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let last = self.send_once(place, key, name).await;
        last.map_err(|(Failure::Passing(problem) | Failure::Final(problem))| {
            format!("upload of {name}: {problem}")
        })
    }

    /// Sends a file to where redirects lead. Returns its URL, without the query, in which signatures are.
    async fn send_once(&self, place: &Place<'_>, key: &str, name: &str) -> Result<String, Failure> {
        let mut url = format!("{}{name}", place.base);
        for _ in 0..=REDIRECTS {
            let answer = self.put(place, key, name, &url).await?;
            let status = answer.status();
            let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let location = location.and_then(|location| answer.url().join(location).ok());
            match (status, location) {
                (StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT, Some(location)) => {
                    url = location.into();
                }
                (status, location) if status.is_success() => {
                    // Of a form, Cog says where it was sent.
                    let location = location.filter(|_| !place.as_form);
                    return Ok(without_query(location.unwrap_or_else(|| answer.url().clone())));
                }
                (status, _) => {
                    let passes = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
                    let problem = format!("the host answers {status}");
                    return Err(if passes { Failure::Passing(problem) } else { Failure::Final(problem) });
                }
            }
        }
        Err(Failure::Final(format!("more than {REDIRECTS} redirects")))
    }

    /// Sends a file to a URL.
    async fn put(&self, place: &Place<'_>, key: &str, name: &str, url: &str) -> Result<Response, Failure> {
        let file = self.storage.get(key, GetOptions::default()).await;
        let file = file.map_err(|e| Failure::Passing(e.to_string()))?;
        let file = file.ok_or_else(|| Failure::Final("the file is gone".into()))?;
        let kind = if name.ends_with(".png") { "image/png" } else { "application/octet-stream" };
        let (head, tail) = match place.as_form {
            true => (
                format!(
                    "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n"
                ),
                format!("\r\n--{BOUNDARY}--\r\n"),
            ),
            false => Default::default(),
        };
        let length = file.meta.size + (head.len() + tail.len()) as u64;
        let [head, tail] = [head, tail].map(|text| stream::iter([Ok(Bytes::from(text))]));
        let kind =
            if place.as_form { format!("multipart/form-data; boundary={BOUNDARY}") } else { kind.into() };
        let mut request = place.client.request(Method::PUT, url).map_err(Failure::Final)?;
        for (header, value) in place.job.made.context.trace.headers() {
            request = request.header(header, value);
        }
        let request = request
            .header("x-prediction-id", place.job.id())
            .header(CONTENT_TYPE, kind)
            .header(CONTENT_LENGTH, length)
            .timeout(LIMIT)
            .body(Body::wrap_stream(head.chain(file.into_stream()).chain(tail)));
        request.send().await.map_err(|e| Failure::Passing(cause(&e)))
    }
}

impl<'a> Place<'a> {
    /// Where the files of a job are to be sent. The operator's own URL may be on a private network. `None`: nowhere.
    fn of(job: &'a Job, with_private: bool) -> Result<Option<Place<'a>>, String> {
        let Context { upload_url, output_file_prefix, .. } = &job.made.context;
        let (base, as_form, with_private) = match (output_file_prefix, upload_url) {
            (Some(prefix), _) => (prefix.clone(), true, with_private),
            (None, Some(url)) => (format!("{}/", url.trim_end_matches('/')), false, true),
            (None, None) => return Ok(None),
        };
        let client = CheckedClient::for_uploads(with_private).map_err(|e| e.to_string())?;
        Ok(Some(Place { client, base, as_form, job }))
    }
}

fn without_query(mut url: Url) -> String {
    url.set_query(None);
    url.into()
}
