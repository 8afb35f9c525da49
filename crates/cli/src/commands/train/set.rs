//! The set of a run. What networks make for it is kept in the run's folder.

use std::fs;
use std::path::{Path, PathBuf};

use calotype_train::Error;
use calotype_train::dataset::{Dataset, INDEX};
use calotype_train::preprocess::Writer;
use calotype_train::run::RunDir;
use serde_json::{Map, Value};

use super::record::Record;
use super::run_dir::{self, PREPROCESSED};
use crate::commands::set::{self, Source};
use crate::failure::Failure;
use crate::output;

/// Where a run keeps what networks make for its set.
fn made_set(dir: &RunDir) -> PathBuf {
    dir.path().join(PREPROCESSED)
}

/// The set of a run that goes on.
///
/// # Errors
/// As [`Source::list`] and [`set::Listed::prepare`].
pub fn again(source: &Source, dir: &RunDir) -> Result<Dataset, Failure> {
    let made_set = Some(made_set(dir)).filter(|path| path.is_dir());
    Ok(source.list(made_set.as_deref())?.prepare(|| Ok(None))?.0)
}

/// The folder in which a run like this one was begun, if it ended while its set was prepared. A run without a seed takes the seed from
/// there, so that captions stay.
///
/// # Errors
/// Another process is training in the folder `run_dir`, or the index of the made set is damaged.
pub fn begun(
    mut record: Record,
    given: &Map<String, Value>,
    run_dir: Option<&Path>,
) -> Result<(Record, Option<RunDir>), Failure> {
    let dir = run_dir::begun(run_dir, &record.plan.input_images)?;
    if let Some(dir) = &dir
        && given.get("seed").is_none_or(Value::is_null)
        && let Some(seed) = Writer::seed(&made_set(dir)).map_err(Error::from)?
    {
        record.plan.seed = seed;
    }
    Ok((record, dir))
}

/// The set of a new run, and the run's folder, if networks make anything for the set: they write there at once, so that the next start
/// goes on from there if this one ends before.
///
/// # Errors
/// As [`Source::list`] and [`set::Listed::prepare`], or the folder cannot be made.
pub fn new(
    source: &Source,
    begun: Option<RunDir>,
    run_dir: Option<&Path>,
) -> Result<(Dataset, Option<RunDir>), Failure> {
    let mut dir = begun;
    let mut listed = source.list(dir.as_ref().map(made_set).as_deref())?;
    if run_dir.is_none() && dir.is_some() && !listed.goes_on() {
        dir = None; // of another set with the same name
        listed = source.list(None)?;
    }
    let needs_networks = listed.needs_networks();
    let prepared = listed.prepare(|| {
        if dir.is_none() && needs_networks {
            dir = Some(run_dir::make(run_dir, &source.plan.input_images)?);
        }
        let open = |dir: &RunDir| Writer::open(&made_set(dir), source.plan.seed);
        Ok(dir.as_ref().map(open).transpose().map_err(Error::from)?)
    });
    match (prepared, dir) {
        (Ok((dataset, writer)), dir) => {
            dir.as_ref().map_or(Ok(()), |dir| set::finish(writer, &dataset, &made_set(dir)))?;
            Ok((dataset, dir))
        }
        (Err(failure), dir) => {
            dir.inspect(|dir| leave(dir, run_dir, source.quiet));
            Err(failure)
        }
    }
}

/// Says that something was made and is kept, or else removes the folder.
fn leave(dir: &RunDir, asked: Option<&Path>, quiet: bool) {
    let path = dir.path();
    if !made_set(dir).join(INDEX).is_file() {
        dir.abandon();
        if let (None, Some(runs)) = (asked, path.parent()) {
            let _ = fs::remove_dir(runs); // where other runs are, it stays
        }
    } else if !quiet {
        output::note(&format!(
            "{}: what was made is kept, and the same command goes on from it",
            path.display()
        ));
    }
}
