//! Checkpoints: a training that was stopped, in whatever way, goes on to the same bytes.

#[path = "../../sdxl/tests/temp/mod.rs"]
mod temp;
mod train_common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use calotype_models::ModelFolder;
use calotype_tensor::Tensor;
use calotype_train::CheckpointError;
use calotype_train::Error;
use calotype_train::TrainPlan;
use calotype_train::checkpoint::{restore, save};
use calotype_train::{StepReport, Trainer};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use temp::Temp;
use train_common::{F32, examples, model, plan, run, settings, trainer};

/// A case with changes of its plan.
fn trainer_with(case: &str, change: impl FnOnce(&mut TrainPlan)) -> Trainer {
    let s = settings(case);
    let (model, mut plan) = (model(&s), plan(&s));
    change(&mut plan);
    let folder = ModelFolder::open(model.path()).expect("the golden folder opens");
    Trainer::new(&folder, plan, &examples(), F32, &mut |_| ControlFlow::Continue(())).expect("a trainer")
}

fn steps(trainer: &mut Trainer, count: usize) -> Vec<StepReport> {
    (0..count).map(|_| trainer.step().expect("a step")).collect()
}

/// Steps to the end, and what a run is judged by.
fn finish(trainer: &mut Trainer) -> (Vec<StepReport>, Vec<Vec<u8>>) {
    let left = trainer.plan().steps - trainer.steps_done();
    (steps(trainer, left), bytes(trainer))
}

/// All that has been learnt, bit by bit.
fn bytes(trainer: &Trainer) -> Vec<Vec<u8>> {
    let weights = trainer.trained_weights();
    let lora = weights.lora.values().flat_map(|pair| [pair.down.clone(), pair.up.clone()]);
    let full = weights.unet.values().map(|tensor| tensor.to_tensor());
    let all: Vec<Tensor> = lora.chain(weights.embeddings.into_iter().flatten()).chain(full).collect();
    all.iter().map(|t| t.f32s().iter().flat_map(|x| x.to_le_bytes()).collect()).collect()
}

fn folder(run: &Temp, step: usize) -> PathBuf {
    run.path().join(format!("checkpoints/step-{step:06}"))
}

/// What is in the checkpoints' folder.
fn names(run: &Temp) -> Vec<String> {
    let entries = fs::read_dir(run.path().join("checkpoints")).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// A run with checkpoints after 1, 2, … steps, and the trainer that wrote them.
fn run_with(count: usize) -> (Temp, Trainer) {
    let (run, mut trainer) = (Temp::new(), trainer("ti_alone", F32));
    for _ in 0..count {
        steps(&mut trainer, 1);
        save(run.path(), &trainer, 9).expect("saved");
    }
    (run, trainer)
}

fn restored(run: &Temp) -> Option<usize> {
    let mut trainer = trainer("ti_alone", F32);
    let found = restore(run.path(), &mut trainer).expect("no error");
    assert_eq!(trainer.steps_done(), found.unwrap_or(0));
    found
}

/// Protects: the reports of the steps that were left and the result, wherever a run was cut: at the first step, before the
/// pivot, at it and after it; cut twice; with accumulated batches and a schedule.
#[test]
fn a_resumed_run_ends_with_the_same_bytes() {
    let options = "lora_linear_accumulate_clip_snr_offset_dropout";
    for (case, cuts) in [
        ("lora_ti", vec![0, 3, 10, 14]),
        ("lora_all", vec![2, 6]),
        ("ti_alone", vec![7, 19, 20]),
        (options, vec![5, 11, 16]),
        ("full_adafactor", vec![4, 12]),
    ] {
        let mut whole = trainer(case, F32);
        let reports = run(&mut whole);
        let expected = bytes(&whole);
        let cut_often = Temp::new();
        for cut in cuts {
            let once = Temp::new();
            let mut first = trainer(case, F32);
            steps(&mut first, cut);
            save(once.path(), &first, 1).expect("saved");
            drop(first);
            let mut second = trainer(case, F32);
            assert_eq!(restore(once.path(), &mut second).expect("restored"), Some(cut));
            let (rest, found) = finish(&mut second);
            assert!(rest == reports[cut..] && found == expected, "{case}, cut at {cut}");

            // The same file is also the next run's start: what one writes does not depend on how often it was cut.
            let mut again = trainer(case, F32);
            restore(cut_often.path(), &mut again).expect("restored");
            let before = again.steps_done();
            assert!(steps(&mut again, cut - before) == reports[before..cut], "{case}, again at {cut}");
            save(cut_often.path(), &again, 1).expect("saved");
            assert_eq!(
                fs::read(folder(&once, cut).join("state.safetensors")).expect("a file"),
                fs::read(folder(&cut_often, cut).join("state.safetensors")).expect("a file"),
            );
        }
        let empty = Temp::new();
        assert_eq!(restore(empty.path(), &mut whole).expect("nothing to restore"), None);
    }
}

/// Protects: a method changes its own tensors, all of them, and nothing else: with these put back, after a whole run, the
/// same trainer does the same run again.
#[test]
fn a_method_changes_its_own_tensors_and_no_other() {
    let attention: fn(&str) -> bool = |name| name.contains(".attn");
    let none: fn(&str) -> bool = |_| false;
    let full: fn(&str) -> bool =
        |key| !(key.ends_with(".weight") && key.contains(".norm") || key.contains("time"));
    for (case, trains) in [("lora_ti", attention), ("ti_alone", none), ("full_adafactor", full)] {
        let run = Temp::new();
        let mut trainer = trainer(case, F32);
        let first = save(run.path(), &trainer, 1).expect("saved");
        let (validation, start) = (trainer.validation_loss(), bytes(&trainer));
        let expected = finish(&mut trainer);
        assert!(start.iter().zip(&expected.1).all(|(a, b)| a != b), "{case}: a tensor has not changed");
        let end = trainer.validation_loss();

        let file = fs::read(first.join("state.safetensors")).expect("a checkpoint");
        let file = SafeTensors::deserialize(&file).expect("safetensors");
        let names = file.names().into_iter().filter(|name| !name.contains(".exp_avg"));
        let (rows, layers): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with("text_encoders_"));
        assert_eq!(rows.len(), 2, "{case}");
        let weights = trainer.trained_weights();
        assert_eq!(layers.len(), 2 * weights.lora.len() + weights.unet.len(), "{case}");
        assert_eq!(layers.is_empty(), case == "ti_alone");
        assert!(layers.iter().all(|name| trains(name)), "{case}: {layers:?}");

        assert_eq!(restore(run.path(), &mut trainer).expect("restored"), Some(0));
        assert_eq!(trainer.validation_loss(), validation, "{case}");
        assert!(finish(&mut trainer) == expected, "{case}: something else has changed");
        assert_eq!(trainer.validation_loss(), end, "{case}");
    }
}

/// Protects: the newest N stay, oldest first to go, and another's files stay too.
#[test]
fn the_newest_are_kept() {
    let run = Temp::new();
    let mut trainer = trainer("ti_alone", F32);
    run.write("checkpoints/notes.txt", "mine");
    for keep in [3, 3, 3, 3, 2, 0] {
        steps(&mut trainer, 1);
        let path = save(run.path(), &trainer, keep).expect("saved");
        assert_eq!(path, folder(&run, trainer.steps_done()));
        let kept = trainer.steps_done().min(keep.max(1));
        let mut expected = vec!["notes.txt".to_string()];
        expected.extend((0..kept).rev().map(|i| format!("step-{:06}", trainer.steps_done() - i)));
        assert_eq!(names(&run), expected);
    }
    assert_eq!(restored(&run), Some(6));
}

/// Protects: whatever a kill leaves of a save, restoring finds the last whole checkpoint, and the next save removes it.
#[test]
fn every_state_of_a_killed_save() {
    let (run, trainer) = run_with(2);
    let (newest, hidden) = (folder(&run, 2), run.path().join("checkpoints/.step-000002.partial"));
    let files: Vec<_> = ["state.safetensors", "state.json", "sums.json"]
        .map(|name| (name, fs::read(newest.join(name)).expect("a file")))
        .into();
    fs::remove_dir_all(&newest).expect("removed");
    // No file yet, then each of them half and whole, in the order of writing: all is there before it is renamed.
    fs::create_dir(&hidden).expect("made");
    assert_eq!(restored(&run), Some(1));
    for (name, bytes) in &files {
        for length in [0, bytes.len() / 2, bytes.len()] {
            fs::write(hidden.join(name), &bytes[..length]).expect("written");
            assert_eq!(restored(&run), Some(1), "{name}, {length} bytes");
        }
    }
    // Renamed: it counts. Half removed, as an old one: it does not, and neither does it stand in the way.
    fs::rename(&hidden, &newest).expect("renamed");
    assert_eq!(restored(&run), Some(2));
    let old = run.path().join("checkpoints/.step-000002.old");
    fs::rename(&newest, &old).expect("renamed");
    fs::remove_file(old.join("state.json")).expect("removed");
    fs::create_dir(&hidden).expect("made");
    assert_eq!(restored(&run), Some(1));
    save(run.path(), &trainer, 9).expect("saved");
    assert_eq!(names(&run), ["step-000001", "step-000002"]);
    for (name, bytes) in &files {
        assert_eq!(&fs::read(newest.join(name)).expect("a file"), bytes, "{name}");
    }
}

/// Protects: a checkpoint of which a byte is missing, added or wrong is passed over, and replaced when its step comes again.
#[test]
fn damage_is_found() {
    let (run, mut trainer) = run_with(2);
    for name in ["state.safetensors", "state.json", "sums.json"] {
        let path = folder(&run, 2).join(name);
        let whole = fs::read(&path).expect("a file");
        let mut damaged: Vec<Vec<u8>> =
            [0, 1, 7, 8, 9, whole.len() / 2, whole.len() - 1].map(|n| whole[..n].to_vec()).into();
        damaged.push([&whole[..], b"!"].concat());
        for at in [0, 8, whole.len() / 3, whole.len() / 2, whole.len() - 2] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            damaged.push(flipped);
        }
        for (i, bytes) in damaged.iter().enumerate() {
            fs::write(&path, bytes).expect("written");
            assert_eq!(restore(run.path(), &mut trainer).expect("no error"), Some(1), "{name}, damage {i}");
        }
        fs::remove_file(&path).expect("removed");
        assert_eq!(restore(run.path(), &mut trainer).expect("no error"), Some(1), "{name} missing");
        fs::create_dir(&path).expect("made");
        assert_eq!(restore(run.path(), &mut trainer).expect("no error"), Some(1), "{name} a folder");
        steps(&mut trainer, 1);
        save(run.path(), &trainer, 9).expect("saved");
        assert_eq!(fs::read(&path).expect("a file"), whole, "{name} replaced");
    }
    fs::remove_file(folder(&run, 1).join("sums.json")).expect("removed");
    steps(&mut trainer, 1);
    save(run.path(), &trainer, 2).expect("saved");
    assert_eq!(names(&run), ["step-000002", "step-000003"], "a damaged one takes no other's place");
    for step in [2, 3] {
        fs::write(folder(&run, step).join("state.json"), "").expect("written");
    }
    assert_eq!(restored(&run), None);
}

/// Changes a checkpoint, its sums with it.
fn forge(checkpoint: &Path, name: &str, bytes: &[u8]) {
    fs::write(checkpoint.join(name), bytes).expect("written");
    let sums = checkpoint.join("sums.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&sums).expect("sums")).expect("JSON");
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    json[name] = json!({ "bytes": bytes.len(), "crc32": crc.sum() });
    fs::write(sums, json.to_string()).expect("written");
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The tensors of a safetensors file.
fn read(file: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(file).expect("safetensors");
    let owned = |view: TensorView| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.tensors().into_iter().map(|(key, view)| (key, owned(view))).collect()
}

/// Protects: a whole checkpoint that does not fit is refused by name, with what was expected and found; nothing panics, and
/// the trainer stays as it was.
#[test]
fn what_does_not_fit_is_refused() {
    let (run, mut trainer) = run_with(1);
    let checkpoint = folder(&run, 1);
    let before = bytes(&trainer);
    let mut refused = |name: &str, content: &[u8], expected: &str| {
        forge(&checkpoint, name, content);
        let error = restore(run.path(), &mut trainer).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected:?}, found {error:?}");
        assert!(bytes(&trainer) == before, "{expected}");
    };
    let state = fs::read(checkpoint.join("state.json")).expect("state");
    let edited = |edit: fn(&mut Value)| {
        let mut json: Value = serde_json::from_slice(&state).expect("JSON");
        edit(&mut json);
        json.to_string().into_bytes()
    };
    refused("state.json", b"[", "state.json: not valid JSON");
    refused("state.json", b"[]", "format: expected 2, found null");
    refused("state.json", &edited(|s| s["format"] = json!(1)), "format: expected 2, found 1");
    refused("state.json", &edited(|s| s["steps_done"] = json!(5)), "steps_done: expected 1");
    refused("state.json", &edited(|s| s["steps_done"] = json!(-5)), "state.json: invalid value");
    refused("state.json", &edited(|s| s["dtype"] = json!("bf16")), "dtype: expected f32, found bf16");
    refused("state.json", &edited(|s| s["examples"] = json!(1)), "the examples: expected the CRC-32");
    refused("state.json", &edited(|s| s["model"] = json!(1)), "the model: expected the CRC-32");
    refused("state.json", &edited(|s| s["plan"] = json!(1)), "expected {");
    refused("state.json", &edited(|s| s["isa"] = json!(1)), "state.json: invalid type");
    refused(
        "state.json",
        &edited(|s| s["optimizer_steps"]["text_encoders_1"] = json!(2)),
        "text_encoders_1: expected at most 1, found 2",
    );
    refused(
        "state.json",
        &edited(|s| s["optimizer_steps"] = json!({})),
        "optimizer_steps: text_encoders_0: missing",
    );
    let older = edited(|s| drop(s.as_object_mut().and_then(|s| s.remove("isa"))));
    let elsewhere = edited(|s| s["isa"] = json!("of another CPU"));
    forge(&checkpoint, "state.json", &state);

    let file = fs::read(checkpoint.join("state.safetensors")).expect("tensors");
    let edited = |edit: &dyn Fn(&mut Tensors)| {
        let mut tensors = read(&file);
        edit(&mut tensors);
        let views = tensors.iter().map(|(key, (dtype, shape, data))| {
            (key, TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
        });
        safetensors::serialize(views, None).expect("serialised")
    };
    let key = "text_encoders_0.exp_avg";
    let width = read(&file)[key].1[1];
    let name = "state.safetensors";
    refused(name, &edited(&|t| drop(t.remove(key))), &format!("{key}: missing, expected [2, {width}]"));
    let change = |dtype, shape: Vec<usize>| {
        edited(&|tensors| {
            let tensor = tensors.get_mut(key).expect("a tensor");
            (tensor.0, tensor.1) = (dtype, shape.clone());
        })
    };
    let flat = format!("{key}: expected F32 [2, {width}], found F32 [{}]", 2 * width);
    refused(name, &change(Dtype::F32, vec![2 * width]), &flat);
    refused(name, &change(Dtype::F16, vec![4, width]), "found F16 [4, ");
    let copy = |tensors: &mut Tensors| tensors.insert("other".into(), tensors[key].clone());
    refused(name, &edited(&|tensors| drop(copy(tensors))), "other: surplus");
    for content in [&b""[..], b"1234567", &[255; 64], &file[..file.len() - 4], &[&file[..], b"1234"].concat()]
    {
        refused(name, content, "not a safetensors file");
    }
    forge(&checkpoint, name, &file);
    // Another instruction set's goes on, and that of a version that did not write which.
    for state in [&older, &elsewhere, &state] {
        forge(&checkpoint, "state.json", state);
        assert_eq!(restore(run.path(), &mut trainer).expect("restored"), Some(1));
    }
}

/// Protects: another plan's checkpoint is neither gone on from nor written over; each field that differs is named, and no
/// other. How often checkpoints are written, where the set lies and how many steps there are may change.
#[test]
fn another_plan_is_refused() {
    let (run, _) = run_with(1);
    let mut other = trainer_with("ti_alone", |plan| {
        plan.seed = 18;
        plan.options.noise_offset = 0.1;
        plan.checkpointing_steps = 7;
    });
    let expected = ["seed: expected 18, found 17", "options.noise_offset: expected 0.1, found 0.0"];
    let refuse = |result: Result<(), Error>| match result {
        Err(Error::Checkpoint(CheckpointError::OtherTraining { path, differences })) => {
            assert_eq!((path, differences.as_slice()), (folder(&run, 1), &expected.map(String::from)[..]));
        }
        found => panic!("expected a refusal, found {found:?}"),
    };
    refuse(restore(run.path(), &mut other).map(drop));
    assert_eq!(other.steps_done(), 0);
    steps(&mut other, 1);
    refuse(save(run.path(), &other, 1).map(drop));
    let mut same = trainer_with("ti_alone", |plan| {
        plan.checkpointing_steps = 7;
        plan.input_images = "elsewhere".into();
        plan.steps = 21;
    });
    assert_eq!(restore(run.path(), &mut same).expect("restored"), Some(1));
}

/// Protects: a plan that has been on disk is the same, to the last bit of its numbers.
#[test]
fn a_plan_survives_its_file() {
    let mut plan = plan(&settings("ti_alone"));
    // JSON readers that take the short way get some of these wrong.
    for i in 1..2000 {
        plan.lr = 1e-4 / f64::from(i);
        plan.ti_lr = f64::from_bits(0x3f00_1234_5678_9abc + 0x0000_0123_4567_89ab * i as u64);
        let text = serde_json::to_string(&plan).expect("JSON");
        assert_eq!(serde_json::from_str::<TrainPlan>(&text).expect("a plan"), plan);
    }
}

/// Set where this program is run again, to be killed: the run's folder.
const CHILD: &str = "CALOTYPE_TEST_CHECKPOINTS";
const CHILD_STEPS: usize = 100_000;

fn endless() -> Trainer {
    trainer_with("ti_alone", |plan| plan.steps = CHILD_STEPS)
}

/// Not a test: what [`a_killed_run_goes_on`] kills. It saves for as long as it lives.
#[test]
fn child() {
    let Some(run) = std::env::var_os(CHILD) else { return };
    let mut trainer = endless();
    restore(Path::new(&run), &mut trainer).expect("restored");
    let say = |what: &str, step: usize| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{what} {step}").and_then(|()| out.flush()).expect("somebody listens");
    };
    while trainer.steps_done() < CHILD_STEPS {
        trainer.step().expect("a step");
        say("saving", trainer.steps_done());
        save(Path::new(&run), &trainer, 2).expect("saved");
        say("saved", trainer.steps_done());
    }
}

/// Protects: a process that is killed while it saves, again and again, loses no checkpoint that was whole, and what is found
/// is what an undisturbed run has at that step.
#[test]
fn a_killed_run_goes_on() {
    let run = Temp::new();
    let mut undisturbed = endless();
    for kill_at in [1, 3, 2, 4] {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, run.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let out = BufReader::new(child.stdout.take().expect("its stdout"));
        let mut saved = undisturbed.steps_done();
        let mut saves = 0;
        for line in out.lines().map(|line| line.expect("a line")) {
            if let Some(step) = line.strip_prefix("saved ") {
                saved = step.parse().expect("a step");
            }
            if line.starts_with("saving ") {
                saves += 1;
                if saves == kill_at {
                    child.kill().expect("killed");
                }
            }
        }
        assert!(!child.wait().expect("it ends").success(), "it was killed");
        assert!(saves >= kill_at, "it saves");

        let mut resumed = endless();
        let found = restore(run.path(), &mut resumed).expect("no error").unwrap_or(0);
        assert!(found >= saved, "saved {saved}, found {found}");
        let ahead = found - undisturbed.steps_done();
        steps(&mut undisturbed, ahead);
        assert!(bytes(&resumed) == bytes(&undisturbed), "step {found}");
    }
    assert!(undisturbed.steps_done() > 0);
}

/// Protects: a checkpoint's model is known again wherever it lies, and one whose weights or scheduler are others is another.
#[test]
fn a_model_is_known_again() {
    let settings = settings("lora_ti");
    let [one, two] = [0, 1].map(|_| model(&settings));
    let of = |folder: &Path| ModelFolder::open(folder).expect("it opens").fingerprint().expect("a number");
    let whole = of(one.path());
    assert_eq!(whole, of(two.path()));
    let change = |file: &str, from: &str, to: &str| {
        let path = two.path().join(file);
        let before = fs::read(&path).expect("there");
        let at = before.windows(from.len()).rposition(|bytes| bytes == from.as_bytes()).expect(from);
        let after = [&before[..at], to.as_bytes(), &before[at + from.len()..]].concat();
        fs::write(&path, after).expect("written");
        assert_ne!(of(two.path()), whole, "{file}");
        fs::write(&path, before).expect("written");
    };
    change("scheduler/scheduler_config.json", "0.00085", "0.00086");
    let weights = two.path().join("unet/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).expect("there");
    *bytes.last_mut().expect("weights") ^= 1;
    fs::write(&weights, bytes).expect("written");
    assert_ne!(of(two.path()), whole);
}
