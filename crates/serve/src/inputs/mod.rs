//! Files that requests name: as data URIs, as URLs, as files of the service itself. They become local files.
//!
//! ```text
//! resolve.rs    all files of an input
//! own.rs        URLs of the service itself, answered from the storage
//! mapped.rs     URLs that a folder stands for
//! fetch.rs      http and https
//! client.rs, address.rs   the HTTP client, which reaches public addresses alone
//! data_uri.rs   files within the text
//! large.rs      those of them that are too large for a job's row
//! stored.rs     an uploaded file's record
//! ```

mod address;
mod client;
pub(crate) mod data_uri;
mod fetch;
mod large;
mod mapped;
mod own;
mod resolve;
mod stored;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use client::{CheckedClient, cause};
pub use large::{store_large, with_base};
use reqwest::Url;
pub use resolve::{check, resolve};
pub(crate) use stored::StoredFile;

use self::fetch::Pace;
use crate::error::{Error, Result};
use crate::job::Kind;
use crate::queue::Queue;
use crate::settings::Settings;
use crate::storage::{Links, Storage};

/// The most characters of a URL that a message shows.
const SHOWN: usize = 120;

/// Why a file of a request cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum InputProblem {
    /// The request is wrong, or the host that it names does not answer well.
    #[error("{field}: {problem}")]
    Client {
        /// The field of the input.
        field: String,
        /// What is wrong, in one line.
        problem: String,
    },
    /// The service cannot do it now.
    #[error(transparent)]
    Ours(#[from] Error),
}

/// [`InputProblem`] without the field.
#[derive(Debug)]
enum Problem {
    Client(String),
    Ours(Error),
}

impl Problem {
    fn of_field(self, field: &str) -> InputProblem {
        match self {
            Problem::Client(problem) => InputProblem::Client { field: field.into(), problem },
            Problem::Ours(error) => InputProblem::Ours(error),
        }
    }

    /// A local file cannot be written.
    fn file(path: &Path, e: std::io::Error) -> Problem {
        Problem::Ours(Error::Storage(format!("{}: {e}", path.display())))
    }
}

/// Turns URLs into local files.
#[derive(Clone)]
pub struct Inputs {
    parts: Arc<Parts>,
    /// How long the files of an input may take if nothing arrives.
    patience: Duration,
}

struct Parts {
    client: CheckedClient,
    storage: Storage,
    queue: Queue,
    links: Links,
    /// Prefixes of URLs, and their folders.
    maps: Vec<(String, PathBuf)>,
    /// The most bytes of a file.
    most: u64,
    /// Whether jobs are computed here. A worker elsewhere may read other URLs, and reach other addresses.
    are_read_here: bool,
}

impl Inputs {
    /// Inputs by the settings.
    ///
    /// # Errors
    /// A folder that stands for URLs is not there, or TLS does not start.
    pub fn new(settings: &Settings, storage: Storage, queue: Queue, links: Links) -> Result<Inputs> {
        let client = CheckedClient::new(settings.allow_private_networks)?;
        let maps = settings.map_urls.iter().map(|(prefix, folder)| {
            let shown = folder.display();
            let folder =
                folder.canonicalize().map_err(|e| Error::Settings(format!("{prefix}={shown}: {e}")))?;
            Ok((prefix.clone(), folder))
        });
        let maps = maps.collect::<Result<Vec<_>>>()?;
        let (most, are_read_here) = (settings.max_file, settings.workers > 0);
        let parts = Parts { client, storage, queue, links, maps, most, are_read_here };
        Ok(Inputs { parts: Arc::new(parts), patience: fetch::PREDICTION })
    }

    /// The inputs of a kind of jobs: those of predictions are to be there sooner.
    pub fn of_kind(&self, kind: Kind) -> Inputs {
        let patience = if kind == Kind::Prediction { fetch::PREDICTION } else { fetch::LIMIT };
        Inputs { parts: self.parts.clone(), patience }
    }

    /// The time for the files of an input, which begins now.
    fn pace(&self) -> Pace {
        Pace::new(self.patience)
    }

    /// The client for foreign URLs.
    pub fn client(&self) -> CheckedClient {
        self.parts.client.clone()
    }

    /// The folders that stand for URLs.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.parts.maps.iter().map(|(_, folder)| folder.as_path())
    }

    /// Checks a URL as far as its text tells.
    fn check(&self, url: &str) -> std::result::Result<(), String> {
        if data_uri::is_data_uri(url) {
            return data_uri::check(url, self.parts.most);
        }
        if mapped::has(&self.parts.maps, url) {
            return Ok(());
        }
        if let Some(own) = own::parse(url) {
            return own.check(&self.parts.links);
        }
        if Url::parse(url).is_err() {
            let found = shown(url);
            return Err(format!(
                "expected an http or https URL, a file of the service or a data URI, found {found:?}"
            ));
        }
        match self.parts.are_read_here {
            true => self.parts.client.check_url(url).map(drop),
            false => Ok(()),
        }
    }

    /// Makes a local file of a URL, below `folder` or where it lies already. Data URIs, URLs of the service itself, mapped ones, and
    /// those of http and https are taken. The local file has the URL's name, as far as it is a plain one.
    ///
    /// # Errors
    /// See [`InputProblem`].
    async fn fetch(
        &self,
        field: &str,
        url: &str,
        folder: &Path,
        pace: &Pace,
    ) -> std::result::Result<PathBuf, InputProblem> {
        self.local(field, url.trim(), folder, pace).await.map_err(|problem| problem.of_field(field))
    }

    async fn local(
        &self,
        field: &str,
        url: &str,
        folder: &Path,
        pace: &Pace,
    ) -> std::result::Result<PathBuf, Problem> {
        if data_uri::is_data_uri(url) {
            let data = data_uri::read(url, self.parts.most).map_err(Problem::Client)?;
            let path =
                new_folder(folder, field).await?.join(format!("{field}.{}", data_uri::extension(&data.kind)));
            tokio::fs::write(&path, data.bytes).await.map_err(|e| Problem::file(&path, e))?;
            return Ok(path);
        }
        if let Some(path) = mapped::find(&self.parts.maps, url).map_err(Problem::Client)? {
            return Ok(path);
        }
        if let Some(own) = own::parse(url) {
            let (key, name) = own.find(&self.parts.links, &self.parts.queue).await?;
            let path = new_folder(folder, field).await?.join(file_name(&name));
            let found = self.parts.storage.get_to(&key, &path).await.map_err(Problem::Ours)?;
            return if found {
                Ok(path)
            } else {
                Err(Problem::Client(format!("{}: {}", shown(url), own::GONE)))
            };
        }
        let folder = new_folder(folder, field).await?;
        fetch::fetch(&self.parts.client, url, &folder, self.parts.most, pace).await
    }
}

/// A new folder for the file of a field, which may have several.
async fn new_folder(folder: &Path, field: &str) -> std::result::Result<PathBuf, Problem> {
    let folder = std::path::absolute(folder).map_err(|e| Problem::file(folder, e))?;
    tokio::fs::create_dir_all(&folder).await.map_err(|e| Problem::file(&folder, e))?;
    for number in 1.. {
        let path = folder.join(format!("{}-{number}", file_name(field)));
        match tokio::fs::create_dir(&path).await {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Problem::file(&path, e)),
        }
    }
    unreachable!("there are more numbers than folders")
}

/// A plain file name out of a foreign one: its last part, ASCII letters, digits, `.`, `_` and `-`, not hidden, of at most 100 characters.
pub(crate) fn file_name(text: &str) -> String {
    let last = text.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    let plain = plain.trim_start_matches('.');
    // The end says what kind of file it is.
    let name = &plain[plain.len().saturating_sub(100)..];
    let name = name.trim_start_matches('.');
    if name.is_empty() { "file".into() } else { name.into() }
}

/// A URL for a message: its beginning, without the query, which may have a signature.
fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default().replace(char::is_control, " ");
    match plain.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &plain[..end]),
        None => plain,
    }
}
