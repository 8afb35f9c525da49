//! A file from a foreign host.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::client::{CheckedClient, cause};
use super::{Problem, data_uri, file_name, shown};

/// The most redirects.
const REDIRECTS: usize = 5;
/// How long the files of an input may take in all.
pub(super) const LIMIT: Duration = Duration::from_secs(30 * 60);
/// How long the files of a prediction may take, beside the time for what has arrived: other predictions wait for the worker.
pub(super) const PREDICTION: Duration = Duration::from_secs(2 * 60);
/// The least speed beyond that time, in bytes a second.
const SPEED: u64 = 1 << 20;

/// The time for all files of an input.
pub(super) struct Pace {
    start: Instant,
    patience: Duration,
    /// Bytes that have arrived.
    arrived: AtomicU64,
}

impl Pace {
    /// The time begins now. `patience`: how long it is if nothing arrives.
    pub(super) fn new(patience: Duration) -> Pace {
        Pace { start: Instant::now(), patience, arrived: AtomicU64::new(0) }
    }

    /// How long the files may take by what has arrived of them.
    fn limit(&self) -> Duration {
        let more = Duration::from_secs(self.arrived.load(Ordering::Relaxed) / SPEED);
        (self.patience + more).min(LIMIT)
    }

    /// Waits for more of a file.
    async fn wait<T>(&self, more: impl Future<Output = T>) -> Result<T, Problem> {
        let limit = self.limit();
        let late = |_| Problem::Client(format!("not there after {limit:?}"));
        timeout_at(self.start + limit, more).await.map_err(late)
    }
}

/// Fetches a file of at most `most` bytes into a folder.
pub(super) async fn fetch(
    client: &CheckedClient,
    url: &str,
    folder: &Path,
    most: u64,
    pace: &Pace,
) -> Result<PathBuf, Problem> {
    let fetching = async {
        let answer = pace.wait(follow(client, url)).await?.map_err(Problem::Client)?;
        let path = folder.join(name(url, &answer));
        save(answer, &path, most, pace).await.map(|()| path)
    };
    fetching.await.map_err(|problem| match problem {
        Problem::Client(problem) => Problem::Client(format!("{}: {problem}", shown(url))),
        ours => ours,
    })
}

/// The answer behind all redirects. Each address is checked like the first.
async fn follow(client: &CheckedClient, url: &str) -> Result<Response, String> {
    let mut url = url.to_string();
    for _ in 0..=REDIRECTS {
        let answer = client.request(Method::GET, &url)?.send().await.map_err(|e| cause(&e))?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let target = answer.headers().get(LOCATION).filter(|_| status.is_redirection());
        let Some(target) = target else { return Err(format!("the host answers {status}")) };
        let target = target.to_str().ok().and_then(|target| answer.url().join(target).ok());
        url = target.ok_or("the host redirects to what is no URL")?.into();
    }
    Err(format!("more than {REDIRECTS} redirects"))
}

/// The name of the local file: that of the URL, with an extension by the media type where the URL has none.
fn name(url: &str, answer: &Response) -> String {
    let parsed = Url::parse(url).ok();
    let last = parsed.as_ref().and_then(|url| url.path_segments()?.next_back()).unwrap_or_default();
    let name = file_name(&percent_encoding::percent_decode_str(last).decode_utf8_lossy());
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if name.contains('.') { name } else { format!("{name}.{}", data_uri::extension(&kind)) }
}

/// Writes an answer's body to a file.
async fn save(mut answer: Response, path: &Path, most: u64, pace: &Pace) -> Result<(), Problem> {
    let too_large = || Problem::Client(format!("more than {most} bytes"));
    if answer.content_length().is_some_and(|size| size > most) {
        return Err(too_large());
    }
    let failed = |e| Problem::file(path, e);
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let mut size = 0;
    while let Some(bytes) = pace.wait(answer.chunk()).await?.map_err(|e| Problem::Client(cause(&e)))? {
        size += bytes.len() as u64;
        pace.arrived.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if size > most {
            return Err(too_large());
        }
        file.write_all(&bytes).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects predictions with large weights: who sends fast has more time, but not for ever.
    #[test]
    fn time_for_what_arrives() {
        for (patience, arrived, seconds) in [
            (PREDICTION, 0, 120),
            (PREDICTION, 100 << 20, 220),
            (PREDICTION, 1 << 40, 1800),
            (LIMIT, 1 << 30, 1800),
        ] {
            let pace = Pace { arrived: arrived.into(), ..Pace::new(patience) };
            assert_eq!(pace.limit(), Duration::from_secs(seconds), "{patience:?}, {arrived}");
        }
    }
}
