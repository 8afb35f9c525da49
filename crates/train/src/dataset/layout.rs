//! The layouts of other programs' picture folders, and the files that a run of this program leaves in a folder.

use std::collections::HashSet;

use super::archive::Entry;
use super::kind::base;

/// The files that identify a folder as that of a run.
const RUN: [&str; 2] = ["settings.json", "metrics.jsonl"];
/// The files that a run writes next to pictures if they are in its folder.
const RUN_FILES: [&str; 6] =
    ["settings.json", "metrics.jsonl", "contact_sheet.png", "dataset.txt", "loss.png", "trained_model.tar"];
const RUN_FOLDERS: [&str; 3] = ["samples/", "checkpoints/", "preprocessed/"];
const REGULARISATION: [&str; 6] =
    ["reg", "regs", "regularization", "regularisation", "regularization_images", "reg_images"];
const CONTROL: [&str; 5] = ["conditioning", "conditioning_images", "control", "control_images", "condlabel"];

/// Removes the files of runs, because samples of a training must not be trained on. Returns the runs' folders.
pub(super) fn without_runs(entries: &mut Vec<Entry>) -> Vec<String> {
    let names: HashSet<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    let folder = |name: &str| name[..name.len() - base(name).len()].to_owned();
    let has_all = |folder: &String| RUN.iter().all(|file| names.contains(format!("{folder}{file}").as_str()));
    let marks = entries.iter().filter(|e| base(&e.name) == RUN[0]).map(|e| folder(&e.name));
    let runs: Vec<String> = marks.filter(has_all).collect();
    entries.retain(|entry| !runs.iter().any(|run| is_run_file(&entry.name, run)));
    runs.into_iter().map(|run| if run.is_empty() { "./".to_owned() } else { run }).collect()
}

/// Whether a file belongs to the run in folder `run`. In the set's own folder, not all files do.
fn is_run_file(name: &str, run: &str) -> bool {
    match name.strip_prefix(run) {
        None => false,
        Some(inside) if run.is_empty() => {
            RUN_FILES.contains(&inside) || RUN_FOLDERS.iter().any(|folder| inside.starts_with(folder))
        }
        Some(_) => true,
    }
}

/// Whether a picture is a regularisation picture, of the subject's class and not of the subject.
pub(super) fn is_regularisation(name: &str) -> bool {
    in_folder(name, &REGULARISATION)
}

/// Whether a picture is a control image for another one: OneTrainer's `-condlabel`, or a folder of them.
pub(super) fn is_control(name: &str) -> bool {
    let start = base(name).rsplit_once('.').map_or("", |(start, _)| start);
    in_folder(name, &CONTROL) || start.to_ascii_lowercase().ends_with("-condlabel")
}

fn in_folder(name: &str, names: &[&str]) -> bool {
    let folder = &name[..name.len() - base(name).len()];
    folder.split('/').any(|part| names.iter().any(|name| part.eq_ignore_ascii_case(name)))
}

/// The folder of a picture and its number of repeats, as in the folder names of kohya's scripts: `10_TOK man`.
pub(super) fn repeats(name: &str) -> Option<(String, u32)> {
    let (folders, _) = name.rsplit_once('/')?;
    let (number, subject) = base(folders).split_once('_')?;
    // Years have more digits.
    let times: u32 = number.parse().ok().filter(|_| number.len() <= 3 && !subject.is_empty())?;
    (times > 1).then(|| (folders.to_owned(), times))
}

/// A format's name, from a file's extension.
pub(super) fn format(base: &str) -> String {
    base.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the layouts of other programs: kohya's folders have repeats, years are not repeats, and
    /// regularisation pictures are recognized by their folder.
    #[test]
    fn folders_of_other_programs() {
        assert_eq!(repeats("img/10_TOK man/a.png"), Some(("img/10_TOK man".into(), 10)));
        for name in ["1_TOK/a.png", "2023_summer/a.png", "10_a.png", "x_y/a.png", "10_/a.png"] {
            assert_eq!(repeats(name), None, "{name}");
        }
        assert!(is_regularisation("Reg/1_man/a.png") && !is_regularisation("region/reg.png"));
        assert!(
            is_control("a-condlabel.png") && is_control("conditioning/a.png") && !is_control("control.png")
        );
    }
}
