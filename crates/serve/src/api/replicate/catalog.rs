//! Models and versions in the database.
//!
//! The base model and its version are records like the others. A model may also be known by its versions alone: the record of a
//! training's destination is made after the training.

use serde_json::{Map, Value, json};

use crate::api::refusal::Refusal;
use crate::api::state::{ALIASES, AppState, BASE};
use crate::error::Result;
use crate::queue::{Queue, Record};

/// Records that are asked for at once.
const AT_ONCE: usize = 500;
/// What [`is_model`] expects.
pub const EXPECTED: &str =
    "expected owner/name of small letters, digits and -_., each with a letter or a digit first";
/// The most characters of an owner or a name.
const MAX_NAME: usize = 100;

/// A version that a request names.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// The id, as the client named it.
    pub id: String,
    /// `owner/name`.
    pub model: String,
    /// When the version was made.
    pub created_at: i64,
    /// Whether the version is one of the base model.
    pub is_base: bool,
}

/// Makes the records of the base model and its version.
///
/// # Errors
/// The database does not answer.
pub async fn set_up(queue: &Queue, version: &str) -> Result<()> {
    let body =
        json!({ "description": "Stable Diffusion XL, and what is trained from it", "visibility": "public" });
    put(queue, "model", BASE, "", body).await?;
    put(queue, "version", version, BASE, json!({ "model": BASE })).await?;
    Ok(())
}

/// Makes a record, unless it is there. Returns whether it was made.
async fn put(queue: &Queue, kind: &str, id: &str, parent: &str, body: Value) -> Result<bool> {
    let (kind, id, parent) = (kind.into(), id.into(), parent.into());
    // The database sets the time.
    queue.put_record(Record { kind, id, parent, body, created_at: 0 }).await
}

/// Makes a model, unless it is there. Returns whether it was made.
///
/// # Errors
/// The database does not answer.
pub async fn put_model(state: &AppState, model: &str, body: Map<String, Value>) -> Result<bool> {
    let owner = model.split('/').next().unwrap_or_default();
    put(&state.queue, "model", model, owner, body.into()).await
}

/// Whether a text is `owner/name`.
pub fn is_model(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let first = part.chars().next();
        part.len() <= MAX_NAME
            && part.chars().all(is_plain)
            && first.is_some_and(|c| c.is_ascii_alphanumeric())
    };
    text.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name))
}

/// The model `owner/name`.
///
/// # Errors
/// There is none, or the database does not answer.
pub async fn model(state: &AppState, model: &str) -> std::result::Result<Record, Refusal> {
    if let Some(record) = state.queue.record("model", model).await? {
        return Ok(record);
    }
    // A training that has just begun, or whose model could not be written.
    let mut versions = state.queue.records("version", Some(model), None, 1).await?;
    let Some(version) = versions.pop() else {
        return Err(Refusal::not_found(format!("There is no model {model}")));
    };
    let parent = model.split('/').next().unwrap_or_default().to_owned();
    Ok(Record {
        kind: "model".into(),
        id: model.into(),
        parent,
        body: json!({}),
        created_at: version.created_at,
    })
}

/// All models, the newest first.
///
/// # Errors
/// The database does not answer.
pub async fn models(state: &AppState) -> Result<Vec<Record>> {
    all(&state.queue, "model", None).await
}

/// The versions of a model, the newest first.
///
/// # Errors
/// The database does not answer.
pub async fn versions(state: &AppState, model: &str) -> Result<Vec<Version>> {
    let records = all(&state.queue, "version", Some(model)).await?;
    // Of the base model, this program's: others of its versions made those before.
    let is_shown = |record: &Record| model != BASE || record.id == state.version;
    Ok(records.into_iter().filter(is_shown).map(Version::of).collect())
}

async fn all(queue: &Queue, kind: &str, parent: Option<&str>) -> Result<Vec<Record>> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let after = all.last().map(|last| (last.created_at, last.id.clone()));
        let page = queue.records(kind, parent, after, AT_ONCE).await?;
        let is_last = page.len() < AT_ONCE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// The newest version of a model.
///
/// # Errors
/// The database does not answer.
pub async fn latest(state: &AppState, model: &str) -> Result<Option<Version>> {
    if model == BASE {
        return version(state, &state.version).await;
    }
    let newest = state.queue.records("version", Some(model), None, 1).await?;
    Ok(newest.into_iter().next().map(Version::of))
}

/// The version with an id. Published versions of the base model stand for our own.
///
/// # Errors
/// The database does not answer.
pub async fn version(state: &AppState, id: &str) -> Result<Option<Version>> {
    let known = if ALIASES.contains(&id) { &state.version } else { id };
    let record = state.queue.record("version", known).await?;
    Ok(record.map(|record| Version { id: id.into(), ..Version::of(record) }))
}

/// The version that a request names: an id, `owner/name`, or `owner/name:id`.
///
/// # Errors
/// There is none, or the database does not answer.
pub async fn named(state: &AppState, name: &str) -> std::result::Result<Version, Refusal> {
    let (model, id) = match name.split_once(':') {
        Some((model, id)) => (Some(model), Some(id)),
        None if name.contains('/') => (Some(name), None),
        None => (None, Some(name)),
    };
    let found = match (model, id) {
        (_, Some(id)) => version(state, id).await?,
        (Some(model), None) => latest(state, model).await?,
        (None, None) => None,
    };
    found.filter(|version| model.is_none_or(|model| model == version.model)).ok_or_else(|| {
        Refusal::body(
            "version",
            "The specified version does not exist (expected an id, owner/name or owner/name:id)",
        )
    })
}

impl Version {
    fn of(record: Record) -> Version {
        Version {
            is_base: record.parent == BASE,
            id: record.id,
            model: record.parent,
            created_at: record.created_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_model;

    /// Protects names in URLs: one owner and one name of plain characters.
    #[test]
    fn names_of_models() {
        for good in ["a/b", "stability-ai/sdxl", "me/fox_2.1"] {
            assert!(is_model(good), "{good}");
        }
        for bad in
            ["", "a", "a/", "/b", "a/b/c", "A/b", "a/b c", "a/é", "../b", "a/..", "<input destination>"]
        {
            assert!(!is_model(bad), "{bad}");
        }
    }
}
