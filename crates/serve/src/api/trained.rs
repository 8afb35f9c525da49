//! Trained models by the names that requests give them.

use super::state::AppState;
use crate::error::Result;
use crate::queue::Record;

/// The most versions that are looked through.
const MOST: usize = 10_000;

/// A trained version of a model.
pub(super) struct Version {
    /// The hexadecimal id.
    id: String,
    /// `owner/name` of the model.
    pub model: String,
    /// The storage key of the weights.
    pub weights: String,
}

impl Version {
    fn of(record: Record) -> Option<Version> {
        let weights = record.body.get("weights")?.as_str()?.to_string();
        Some(Version { id: record.id, model: record.parent, weights })
    }

    /// The model's name without its owner.
    pub(super) fn short_name(&self) -> &str {
        self.model.rsplit('/').next().unwrap_or(&self.model)
    }

    /// Whether the version is meant by `owner/name`, `name`, `owner/name:id` or the id.
    fn has_name(&self, name: &str) -> bool {
        let of_model = name.strip_prefix(self.model.as_str()).and_then(|rest| rest.strip_prefix(':'));
        [self.model.as_str(), self.short_name(), self.id.as_str()].contains(&name)
            || of_model == Some(self.id.as_str())
    }
}

/// All versions, the newest first.
pub(super) async fn versions(state: &AppState) -> Result<Vec<Version>> {
    let records = state.queue.records("version", None, None, MOST).await?;
    Ok(records.into_iter().filter_map(Version::of).collect())
}

/// The newest version with a name.
pub(super) fn find<'a>(versions: &'a [Version], name: &str) -> Option<&'a Version> {
    versions.iter().find(|version| version.has_name(name))
}
