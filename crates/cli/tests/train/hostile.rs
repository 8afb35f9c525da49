//! Runs' folders that somebody else made: refused in one line, and nothing outside of them is touched.

use serde_json::json;

use super::*;

/// A finished run of two steps in `run/`, with a checkpoint of each.
fn finished() -> Sandbox {
    let here = sandbox();
    let more = ["--max-train-steps", "2", "--checkpointing-steps", "1", "--run-dir", "run", "-q"];
    done(&train(&here, &more));
    here
}

const RESUME: [&str; 3] = ["train", "--resume", "run"];

/// Changes a value of the run's settings, by its path.
fn change(here: &Sandbox, path: &str, value: &Value) {
    let file = here.path("run/settings.json");
    let mut settings: Value = serde_json::from_slice(&fs::read(&file).expect("settings")).expect("JSON");
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    let parent =
        parents.split('.').filter(|name| !name.is_empty()).fold(&mut settings, |json, name| &mut json[name]);
    parent[name] = value.clone();
    fs::write(&file, settings.to_string()).expect("written");
}

/// Protects: `settings.json` is checked as a request and a command line are, field by field.
#[test]
fn settings_that_no_run_has() {
    let here = finished();
    let file = here.path("run/settings.json");
    let whole = fs::read(&file).expect("settings");
    for (path, value, says) in [
        ("validate_every", json!(0), "validate_every: expected an integer from 1"),
        ("validate_every", json!(-1), "validate_every: invalid value"),
        ("validate_every", json!(1e30), "validate_every: invalid type"),
        ("keep_checkpoints", json!(0), "keep_checkpoints: expected an integer from 1"),
        ("keep_checkpoints", json!(u64::MAX), "keep_checkpoints: expected an integer from 1"),
        ("sample_every", json!(0), "sample_every: expected an integer from 1"),
        ("sample_steps", json!(0), "sample_steps: expected an integer from 1 to 500, found 0"),
        ("sample_steps", json!(501), "sample_steps: expected"),
        ("sample_prompts", json!("a"), "sample_prompts: invalid type"),
        ("dtype", json!("f64"), "dtype: unknown variant"),
        ("model", json!(["a"]), "model: invalid type"),
        ("request", json!(null), "request"),
        (
            "request.train_batch_size",
            json!(0),
            "request.train_batch_size: expected an integer from 1 to 1024",
        ),
        ("request.lora_rank", json!(0), "request.lora_rank: expected an integer from 1 to 1024, found 0"),
        ("request.max_train_steps", json!(1e12), "request.max_train_steps: expected"),
        ("request.resolution", json!(65), "request.resolution: expected a multiple of 64"),
        ("request.checkpointing_steps", json!(0), "request.checkpointing_steps: expected"),
        ("request.token_string", json!("a b"), "token_string: expected a word"),
        (
            "plan.train_batch_size",
            json!(0),
            "plan.train_batch_size: expected 2, as the request has it, found 0",
        ),
        ("plan.method", json!({"lora": {"rank": 0}}), "plan.method: expected"),
        ("plan.method", json!("full"), "plan.method: expected"),
        ("plan.steps", json!(0), "plan.steps: expected 2"),
        ("plan.steps", json!(u64::MAX), "plan.steps: expected 2"),
        ("plan.resolution", json!(0), "plan.resolution: expected 64"),
        ("plan.checkpointing_steps", json!(0), "plan.checkpointing_steps: expected 1"),
        ("plan.lr", json!(-1.0), "plan.lr: expected"),
        ("plan.pivot", json!(3), "plan.pivot: expected at most 2, the steps, found 3"),
        ("plan.options.gradient_accumulation_steps", json!(0), "gradient_accumulation_steps: expected"),
        ("plan.options.optimizer", json!("sgd"), "optimizer: expected one of"),
        ("plan.options.noise_offset", json!(7), "noise_offset: expected a number from 0 to 1"),
        ("plan.more", json!(1), "plan.more: unknown field"),
        ("more", json!(1), "unknown field `more`"),
    ] {
        change(&here, path, &value);
        here.assert_refused(&RESUME, says);
        fs::write(&file, &whole).expect("written");
    }
    for (text, says) in [
        ("{", "settings.json: EOF"),
        ("[]", "settings.json: "),
        ("1e999", "settings.json: number out of range"),
        ("\0\0", "settings.json: expected value"),
        ("", "settings.json: EOF"),
    ] {
        fs::write(&file, text).expect("written");
        here.assert_refused(&RESUME, says);
    }
    fs::write(&file, [0xff, 0xfe, b'{']).expect("written");
    here.assert_refused(&RESUME, "settings.json: ");
    fs::write(&file, "[".repeat(1 << 20)).expect("written");
    here.assert_refused(&RESUME, "settings.json: recursion limit exceeded");
    fs::write(&file, " ".repeat((16 << 20) + 1)).expect("written");
    here.assert_refused(&RESUME, "settings.json: expected at most");
}

/// Protects: no text of a run's files tells the terminal anything.
#[test]
fn control_characters_are_shown_as_such() {
    let here = Sandbox::new();
    here.write("run/settings.json", "{\"\\u001b]0;title\\u0007\\u001b[2J\": 1}");
    let ended = here.run(&RESUME);
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(2), 1), "{}", ended.stderr);
    assert!(!ended.stderr.trim_end().contains(char::is_control), "{:?}", ended.stderr);
    assert!(ended.stderr.contains("]0;title"), "{}", ended.stderr);
}

/// Protects: the result is written outside of the run's folder only where the command line says so.
#[test]
fn the_result_stays_in_the_folder() {
    let here = finished();
    let whole = tar(&here, "run");
    fs::remove_file(here.path("run/trained_model.tar")).expect("removed");
    here.write("profile", "mine\n");
    for outside in [here.path("profile"), here.path("run/../profile"), here.path("run/samples/x.tar")] {
        change(&here, "output", &json!(outside));
        let ended = here.run(&RESUME);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(0), "run/trained_model.tar\n"),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains("is not in the run's folder"), "{}", ended.stderr);
        assert_eq!(fs::read(here.path("profile")).expect("there"), b"mine\n");
        assert!(tar(&here, "run") == whole);
    }
    change(&here, "output", &json!(here.path("run/mine.tar")));
    done(&here.run(&RESUME));
    assert!(fs::read(here.path("run/mine.tar")).expect("there") == whole);
}

/// Protects: losses of any size, in any order, are read and drawn in no time.
#[test]
fn losses_that_no_run_has() {
    let here = finished();
    let lines = [
        "{\"step\":1,\"loss\":1.7976931348623157e308}\n",
        "{\"step\":0,\"validation_loss\":5e-324}\n{\"step\":1,\"loss\":3.4e38}\n",
        "{\"step\":1,\"loss\":-3.4e38}\n{\"step\":1,\"loss\":1}\n",
        "{\"step\":18446744073709551615,\"loss\":1}\n",
        "[1,\n",
    ];
    for text in lines {
        fs::remove_dir_all(here.path("run/checkpoints/step-000002")).expect("removed");
        here.write("run/metrics.jsonl", text);
        done(&here.run(&[&RESUME[..], &["-q"]].concat()));
        assert_eq!(decoded(&here.path("run/loss.png")).0, 1200);
        assert!(metrics(&here, "run").last().expect("a line").get("validation_loss").is_some());
    }
}

/// Protects: a link, a pipe or a folder where a run has a file of its own is neither followed nor waited for.
#[cfg(unix)]
#[test]
fn links_and_pipes() {
    use std::os::unix::fs::symlink;
    let here = finished();
    common::copy_folder(&here.path("run"), &here.path("other"));
    here.write("theirs.log", "");
    for (name, target) in [
        (".lock", "../theirs.log"),
        ("metrics.jsonl", "../theirs.log"),
        ("settings.json", "../other/settings.json"),
        ("loss.png", "../theirs.log"),
        ("dataset.txt", "../theirs.log"),
        ("trained_model.tar", "../theirs.log"),
        ("checkpoints", "../other/checkpoints"),
        ("samples", "../other"),
        ("checkpoints/step-000002", "../../other/checkpoints/step-000002"),
        ("checkpoints/step-000009", "../../other/checkpoints/step-000002"),
        ("checkpoints/.step-000009.partial", "../../other/checkpoints"),
        ("checkpoints/step-000002/state.json", "../../../other/checkpoints/step-000002/state.json"),
    ] {
        let (path, kept) = (here.path("run").join(name), here.path("kept"));
        let was_there = fs::rename(&path, &kept).is_ok();
        symlink(target, &path).expect("a link");
        here.assert_refused(&RESUME, &format!("--resume run: {name}: expected a "));
        fs::remove_file(&path).expect("removed");
        if was_there {
            fs::rename(&kept, &path).expect("moved");
        }
    }
    for name in ["settings.json", "metrics.jsonl", ".lock"] {
        let path = here.path("run").join(name);
        let whole = fs::read(&path).expect("a file");
        fs::remove_file(&path).expect("removed");
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
        let ended = here.run(&RESUME);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("expected a file, found a pipe or device"), "{}", ended.stderr);
        fs::remove_file(&path).expect("removed");
        fs::write(&path, whole).expect("written");
    }
    // A new run, too, follows none.
    fs::create_dir(here.path("new")).expect("made");
    symlink("../theirs.log", here.path("new/loss.png")).expect("a link");
    let args = args(&["--max-train-steps", "1", "--run-dir", "new"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = here.run(&args);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("--run-dir new: loss.png: expected a file, found a link"),
        "{}",
        ended.stderr
    );
}
