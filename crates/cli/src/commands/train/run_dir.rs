//! Where a run has its folder: as the command line says, or called after the set.

use std::fs;
use std::path::Path;

use calotype_train::dataset::INDEX;
use calotype_train::run::{self, RunDir};
pub use calotype_train::run::{CHECKPOINTS, FILES, METRICS, PREPROCESSED, RESULT, SAMPLES, SETTINGS};

use super::check;
use super::record::Record;
use crate::failure::Failure;
use crate::output;

/// Makes sure, before any work is done, that a new run can have its folder.
///
/// # Errors
/// There is a run in it already, or it cannot be written to.
pub fn check_new(asked: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = asked else { return output::check_folder("--run-dir", Path::new("runs")) };
    if run::holds_run(path) {
        let path = path.display();
        let problem = "holds a run already: go on with --resume, or take another folder";
        return Err(Failure::BadInput(format!("--run-dir {path}: {problem}")));
    }
    output::check_folder("--run-dir", path)?;
    run::no_links(path).map_err(|e| Failure::BadInput(format!("--run-dir {}: {e}", path.display())))
}

/// The folder of a run that ended while its set was prepared, so that there is a made set in it and no run: `asked`, or the last of those
/// called after the set.
///
/// # Errors
/// Another process is training in the folder `asked`.
pub fn begun(asked: Option<&Path>, set: &Path) -> Result<Option<RunDir>, Failure> {
    let is_begun =
        |path: &Path| path.join(PREPROCESSED).join(INDEX).is_file() && check_new(Some(path)).is_ok();
    if let Some(path) = asked {
        return is_begun(path).then(|| lock("--run-dir", path)).transpose();
    }
    let name = set_name(set);
    let names = std::iter::once(name.clone()).chain((2..).map(|n: u32| format!("{name}-{n}")));
    let last = names.map(|name| Path::new("runs").join(name)).take_while(|path| path.exists()).last();
    Ok(last.filter(|path| is_begun(path)).and_then(|path| lock("--run-dir", &path).ok()))
}

/// Makes the folder of a new run: `asked`, or one called after the set.
///
/// # Errors
/// It cannot be made, or another process has begun a run in it in the meantime.
pub fn make(asked: Option<&Path>, set: &Path) -> Result<RunDir, Failure> {
    let Some(path) = asked else {
        return lock("--run-dir", &output::new_folder(Path::new("runs"), &set_name(set))?);
    };
    fs::create_dir_all(path).map_err(|e| Failure::io(path, &e))?;
    let dir = lock("--run-dir", path)?;
    check_new(asked)?;
    Ok(dir)
}

fn lock(option: &str, path: &Path) -> Result<RunDir, Failure> {
    RunDir::lock(path).map_err(|e| match e {
        e @ calotype_train::Error::RunDir { .. } => Failure::BadInput(format!("{option} {e}")),
        e => e.into(),
    })
}

/// The folder of a run that is there, and its settings.
///
/// # Errors
/// There are no settings in it that a training can have, something in it is a link, or another process is training
/// in it.
pub fn open(path: &Path) -> Result<(RunDir, Record), Failure> {
    let bad = |what: String| Failure::BadInput(format!("--resume {}: {what}", path.display()));
    run::no_links(path).map_err(bad)?;
    let record = check::settings(path).map_err(bad)?;
    output::check_folder("--resume", path)?;
    Ok((lock("--resume", path)?, record))
}

/// Writes the settings.
///
/// # Errors
/// They cannot be written.
pub fn write_settings(dir: &RunDir, record: &Record) -> Result<(), Failure> {
    let json =
        serde_json::to_string_pretty(record).map_err(|e| Failure::Failed(format!("{SETTINGS}: {e}")))?;
    Ok(dir.write(SETTINGS, format!("{json}\n").as_bytes())?)
}

/// The name of a run, after its set: `photos.zip` → `photos`, `photos.tar.gz` → `photos`, or the name of a folder.
fn set_name(set: &Path) -> String {
    let full = set.canonicalize().unwrap_or_else(|_| set.into());
    let name = full.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let endings = [".zip", ".tar.gz", ".tgz", ".tar"];
    let ending = endings.iter().find(|ending| name.to_ascii_lowercase().ends_with(*ending));
    let name = match ending.filter(|_| full.is_file()) {
        // The extensions are ASCII, so the rest ends at a character boundary.
        Some(ending) => name[..name.len() - ending.len()].to_owned(),
        None => name,
    };
    if name.is_empty() { "run".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the names of runs: they follow from the set, whatever it is.
    #[test]
    fn runs_are_called_after_their_sets() {
        let here = tempfile::tempdir().expect("a directory");
        for (file, name) in
            [("photos.zip", "photos"), ("a.b.tar.gz", "a.b"), ("猫.TAR", "猫"), (".zip", "run"), ("x", "x")]
        {
            let path = here.path().join(file);
            fs::write(&path, "").expect("written");
            assert_eq!(set_name(&path), name);
        }
        let folder = here.path().join("set.zip.d");
        fs::create_dir(&folder).expect("made");
        assert_eq!(set_name(&folder), "set.zip.d");
    }
}
