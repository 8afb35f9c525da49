//! Large data URIs of a new job become files of the service. So a job's row in the database stays small: it is read at each change and at
//! each poll, and answers show the input.

use std::borrow::Cow;

use calotype_request::schema::Schema;
use serde_json::{Map, Value};

use super::resolve::{text_of, text_with, urls_of};
use super::{InputProblem, Inputs, Problem, data_uri};
use crate::storage::{Links, Storage};

/// The most bytes of a data URI that stays in an input.
const INLINE: usize = 16 << 10;

/// The files that data URIs of an input became.
#[must_use]
pub struct StoredData {
    storage: Storage,
    keys: Vec<String>,
}

impl StoredData {
    /// Deletes the files: no job names them. A file that cannot be deleted now is left to the clean-up.
    pub async fn discard(self) {
        for key in &self.keys {
            if let Err(e) = self.storage.delete(key).await {
                tracing::warn!("not deleted: {e}");
            }
        }
    }

    /// Stores a data URI of at most `most` bytes below `folder`. Returns its key.
    async fn put(&mut self, folder: &str, field: &str, url: &str, most: u64) -> Result<&str, Problem> {
        let data = data_uri::read(url, most).map_err(Problem::Client)?;
        let (number, extension) = (self.keys.len(), data_uri::extension(&data.kind));
        self.keys.push(format!("{folder}/{field}-{number}.{extension}"));
        let key = &self.keys[number];
        self.storage.put(key, data.bytes.into()).await.map_err(Problem::Ours)?;
        Ok(key)
    }
}

/// Stores the data URIs of more than 16 KiB that an input names, below `folder`, and puts signed URLs in their places, relative to the service.
///
/// # Errors
/// A data URI is invalid, or the storage does not take it. Then the input is as it was, and no file is left.
pub async fn store_large(
    inputs: &Inputs,
    schema: &Schema,
    input: &mut Map<String, Value>,
    folder: &str,
) -> Result<StoredData, InputProblem> {
    let parts = &inputs.parts;
    let mut stored = StoredData { storage: parts.storage.clone(), keys: Vec::new() };
    match store_all(&mut stored, &parts.links, parts.most, schema, input, folder).await {
        Ok(changed) => {
            input.extend(changed);
            Ok(stored)
        }
        Err(problem) => {
            stored.discard().await;
            Err(problem)
        }
    }
}

/// The fields that have other texts once their large data URIs are stored.
async fn store_all(
    stored: &mut StoredData,
    links: &Links,
    most: u64,
    schema: &Schema,
    input: &Map<String, Value>,
    folder: &str,
) -> Result<Map<String, Value>, InputProblem> {
    let mut changed = Map::new();
    for field in schema.fields() {
        let Some(text) = text_of(field, input).filter(|text| text.len() > INLINE) else { continue };
        let (mut files, before) = (Vec::new(), stored.keys.len());
        for (mut url, scale) in urls_of(field, text) {
            if data_uri::is_data_uri(&url) && url.len() > INLINE {
                let key = stored.put(folder, &field.name, &url, most).await;
                url = links.url("", key.map_err(|problem| problem.of_field(&field.name))?).into();
            }
            files.push(format!("{url}{scale}"));
        }
        if stored.keys.len() > before {
            changed.insert(field.name.clone(), text_with(field, &files).into());
        }
    }
    Ok(changed)
}

/// An input as an answer shows it: URLs of files of the service begin with its URL, `base`.
pub fn with_base(schema: &Schema, input: &Map<String, Value>, base: &str) -> Map<String, Value> {
    let mut shown = input.clone();
    for field in schema.fields() {
        let urls = text_of(field, input).map(|text| urls_of(field, text)).unwrap_or_default();
        let is_relative = |url: &str| url.starts_with('/');
        if urls.iter().any(|(url, _)| is_relative(url)) {
            let base_of = |url: &str| if is_relative(url) { base } else { "" };
            let full = |(url, scale): &(Cow<'_, str>, String)| format!("{}{url}{scale}", base_of(url));
            let files: Vec<String> = urls.iter().map(full).collect();
            shown.insert(field.name.clone(), text_with(field, &files).into());
        }
    }
    shown
}
