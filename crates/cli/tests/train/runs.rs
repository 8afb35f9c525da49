//! Whole runs: from pictures to trained weights.

use super::*;

/// Protects the product: a run writes its files, prints its tar, and the tar makes pictures and is exported.
#[test]
fn a_run_from_pictures_to_a_picture() {
    let here = sandbox();
    let more = ["--max-train-steps", "6", "--checkpointing-steps", "3", "--sample-every", "4"];
    let more = [&more[..], &["--sample-prompt", "TOK", "--sample-prompt", "a photo of TOK"]].concat();
    let ended = train(&here, &more);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "runs/set/trained_model.tar\n"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.starts_with("4 pictures, each as 64 × 64, 1 with a mask\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains(" of memory at most, about ") && ended.stderr.contains(" s a step"));
    assert!(ended.stderr.contains(" before the first step\n"), "{}", ended.stderr);
    assert!(ended.stderr.lines().any(|line| line.starts_with("took ")), "{}", ended.stderr);
    assert!(ended.stderr.contains("100%|██████████| 6/6 ["), "{}", ended.stderr);

    let read = |name: &str| fs::read_to_string(here.path("runs/set").join(name)).expect("a file");
    assert!(read("dataset.txt").contains("a photo of TOK in the garden"));
    let settings: Value = serde_json::from_str(&read("settings.json")).expect("JSON");
    assert_eq!((&settings["plan"]["steps"], &settings["request"]["seed"]), (&6.into(), &3.into()));
    let lines = metrics(&here, "runs/set");
    let steps: Vec<&Value> =
        lines.iter().filter(|line| line.get("loss").is_some()).map(|l| &l["step"]).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    let validated = lines.iter().filter(|line| line.get("validation_loss").is_some());
    assert_eq!(validated.map(|line| &line["step"]).collect::<Vec<_>>(), [0, 3, 6]);
    assert_eq!((&lines[1]["lr"], &lines[1]["ti_lr"]), (&1e-4.into(), &3e-4.into()));
    assert_eq!(decoded(&here.path("runs/set/loss.png")).0, 1200);
    decoded(&here.path("runs/set/contact_sheet.png"));
    let samples = fs::read_dir(here.path("runs/set/samples")).expect("samples");
    let mut names: Vec<_> = samples.map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    let expected = ["step-000004-1.png", "step-000004-2.png", "step-000006-1.png", "step-000006-2.png"];
    assert_eq!(names, expected);
    assert_eq!(decoded(&here.path("runs/set/samples/step-000004-1.png")).0, 64);
    let texts = texts(&here.path("runs/set/samples/step-000004-2.png"));
    assert!(texts[0].starts_with("a photo of TOK <lora:step-000004:1>\nSteps: 25, "), "{texts:?}");
    assert!(texts[0].contains("Seed: 2, Size: 64x64"), "{texts:?}");
    assert!(texts[1].contains("\"lora_scale\":1"), "{texts:?}");
    assert!(here.path("runs/set/checkpoints").is_dir());

    let model = tiny_model();
    let predict = ["predict", "--model", model.to_str().expect("text"), "--width", "64", "--height", "64"];
    let weights = ["-i", "replicate_weights=@runs/set/trained_model.tar", "--num-inference-steps", "2"];
    done(&here.run(&[&predict[..], &weights, &["--prompt", "a TOK", "-q"]].concat()));
    for format in ["kohya", "diffusers"] {
        let args = ["export", "runs/set/trained_model.tar", "--format", format, "-o", "x.safetensors"];
        done(&here.run(&args));
    }

    // The next run has a folder of its own; and a run's folder is not for another.
    let again = train(&here, &["--max-train-steps", "1", "-q"]);
    assert_eq!((again.stdout.as_str(), again.stderr.as_str()), ("runs/set-2/trained_model.tar\n", ""));
    let args = args(&["--run-dir", "runs/set"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    here.assert_refused(&args, "--run-dir runs/set: holds a run already");
}

/// Protects the product's other kind: the whole UNet trains, is resumed, becomes a `unet.safetensors` in the tar and makes
/// another picture; no LoRA layout takes it.
#[test]
fn a_full_fine_tune() {
    let here = sandbox();
    let full = ["-i", "is_lora=false", "--unet-learning-rate", "0.01", "--max-train-steps", "4"];
    let run = |dir: &str, more: &[&str]| {
        let settings = ["--checkpointing-steps", "2", "--run-dir", dir, "-q"];
        train(&here, &[&full[..], &settings, more].concat())
    };
    done(&run("whole", &[]));
    done(&run("recomputed", &["--recompute", "on", "--threads", "1"]));
    assert!(tar(&here, "whole") == tar(&here, "recomputed"));
    fs::remove_dir_all(here.path("recomputed/checkpoints/step-000004")).expect("removed");
    done(&here.run(&["train", "--resume", "recomputed", "-q"]));
    assert!(tar(&here, "whole") == tar(&here, "recomputed"), "resumed");
    let refused = run("clipped", &["--max-grad-norm", "1"]);
    let says = "error: max_grad_norm: expected 0 with an optimizer that does not clip (adafactor), found 1\n";
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(2), says));

    let model = tiny_model();
    let picture = |dir: &str, more: &[&str]| {
        let predict =
            ["predict", "--model", model.to_str().expect("text"), "--width", "64", "--height", "64"];
        let rest = ["--num-inference-steps", "2", "--prompt", "a TOK", "--seed", "1", "-o", dir, "-q"];
        let ended = here.run(&[&predict[..], &rest, more].concat());
        done(&ended);
        decoded(&here.path(ended.stdout.trim()))
    };
    let trained = ["-i", "replicate_weights=@whole/trained_model.tar"];
    assert!(picture("plain", &[]) != picture("trained", &trained));
    let export = |format: &str| {
        let args = ["export", "whole/trained_model.tar", "--format", format, "-o", "x.safetensors"];
        here.run(&args)
    };
    done(&export("diffusers"));
    assert_eq!(export("kohya").code, Some(2));
}

/// Protects: the same seed gives the same bytes with any number of threads, and recomputed or not; another seed gives
/// others.
#[test]
fn a_seed_is_a_result() {
    let here = sandbox();
    let run = |dir: &str, more: &[&str]| {
        let settings = ["--max-train-steps", "3", "--run-dir", dir, "-q"];
        done(&train(&here, &[&settings[..], more].concat()));
        (tar(&here, dir), metrics(&here, dir))
    };
    let first = run("one", &["--threads", "1"]);
    assert!(first == run("two", &["--threads", "2"]), "threads");
    assert!(first == run("recomputed", &["--recompute", "on"]), "recomputed");
    let mut other = args(&["--max-train-steps", "3", "--run-dir", "other", "-q"]);
    let seed = other.iter().position(|arg| arg == "3").expect("the seed");
    other[seed] = "0".into();
    done(&here.run(&other.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(first.0 != tar(&here, "other"), "seeds");
}

/// Protects: epochs become steps once the pictures are counted, and `max_train_steps` goes before.
#[test]
fn epochs_are_steps() {
    let here = sandbox();
    let steps = |dir: &str, more: &[&str]| {
        done(&train(&here, &[&["--run-dir", dir, "-q", "--textual-inversion-only"][..], more].concat()));
        metrics(&here, dir).iter().filter(|line| line.get("loss").is_some()).count()
    };
    // 3 times 4 pictures, 2 × 3 a step.
    let accumulated = ["--num-train-epochs", "3", "--gradient-accumulation-steps", "3"];
    assert_eq!(steps("a", &accumulated), 2);
    assert_eq!(steps("b", &["--num-train-epochs", "3", "--max-train-steps", "1"]), 1);
}

/// Protects: another token has a default prefix with it in it.
#[test]
fn the_prefix_follows_the_token() {
    let here = sandbox();
    fs::remove_file(here.path("set/0.txt")).expect("removed");
    done(&train(&here, &["--token-string", "XYZ", "--max-train-steps", "1", "--run-dir", "run", "-q"]));
    let set = fs::read_to_string(here.path("run/dataset.txt")).expect("a report");
    assert!(set.contains("a photo of XYZ"), "{set}");
}

/// Protects: a training that runs away names its step and ends with code 1, and leaves no checkpoint with weights that are no
/// numbers: neither where the next step finds out, nor where there is none.
#[test]
fn a_loss_that_is_no_number() {
    let here = sandbox();
    for (rate, checkpoints) in [("1e30", 1), ("1e39", 0)] {
        let more = [
            "--lora-lr",
            rate,
            "--max-train-steps",
            "20",
            "--checkpointing-steps",
            "1",
            "--run-dir",
            rate,
            "-q",
        ];
        let ended = train(&here, &more);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("error: step ") && ended.stderr.contains("is not a number"));
        assert!(
            here.path(rate).join("loss.png").is_file() && !here.path(rate).join("trained_model.tar").exists()
        );
        let found = fs::read_dir(here.path(rate).join("checkpoints")).into_iter().flatten();
        let found: Vec<_> = found.map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(found.len(), checkpoints, "{rate}: {found:?}");
        for checkpoint in found {
            let state = fs::read(checkpoint.join("state.safetensors")).expect("there");
            let header = u64::from_le_bytes(state[..8].try_into().expect("8 bytes")) as usize;
            let mut values = state[8 + header..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            assert!(values.all(f32::is_finite), "{}", checkpoint.display());
        }
    }
}

/// Protects: embeddings can be trained alone, and exported for diffusers as a file of their own; what changes nothing then is
/// said, by name.
#[test]
fn embeddings_alone() {
    let here = sandbox();
    let ended = train(&here, &["--textual-inversion-only", "--max-train-steps", "1", "--run-dir", "run"]);
    done(&ended);
    assert!(ended.stderr.contains("lora_rank: changes nothing in this kind of training"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("ti_lr: "), "{}", ended.stderr);
    let export = ["export", "run/trained_model.tar", "--format", "diffusers", "-o", "TOK.safetensors"];
    let ended = here.run(&export);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "TOK.safetensors\n"), "{}", ended.stderr);
    let file = fs::read(here.path("TOK.safetensors")).expect("there");
    assert!(file.windows(6).any(|bytes| bytes == b"clip_g"));
}

/// Protects: LoRA of all layers trains, resumes to the same bytes, begins another run, makes a picture and is exported; the settings
/// have it, another kind of layers is refused by name, before the pictures are prepared, and trainings without LoRA refuse all layers.
#[test]
fn lora_of_all_layers() {
    let here = sandbox();
    let all = ["--lora-layers", "all", "--lora-lr", "1e-2", "--checkpointing-steps", "1", "-q"];
    let run = |dir: &str, more: &[&str]| {
        train(&here, &[&all[..], &["--max-train-steps", "2", "--run-dir", dir], more].concat())
    };
    done(&run("run", &[]));
    let whole = tar(&here, "run");
    let settings = fs::read_to_string(here.path("run/settings.json")).expect("settings");
    let settings: Value = serde_json::from_str(&settings).expect("JSON");
    assert_eq!(settings["plan"]["options"]["lora_layers"], "all");
    fs::remove_dir_all(here.path("run/checkpoints/step-000002")).expect("removed");
    done(&here.run(&["train", "--resume", "run", "--lora-layers", "all", "-q"]));
    assert!(tar(&here, "run") == whole, "resumed");
    let says = "lora_layers: expected \"all\", found \"attention\"";
    here.assert_refused(&["train", "--resume", "run", "--lora-layers", "attention"], says);

    done(&run("further", &["-i", "replicate_weights=@run/trained_model.tar"]));
    let begin = ["-i", "replicate_weights=@run/trained_model.tar", "--max-train-steps", "1"];
    let refused = train(&here, &[&begin[..], &["--run-dir", "other"]].concat());
    let says = "error: lora_layers: expected all, the layers of replicate_weights, found attention\n";
    assert_eq!((refused.code, refused.stderr.ends_with(says)), (Some(2), true), "{}", refused.stderr);
    // Before the pictures are prepared: one of these is no picture.
    here.write("broken/a.png", "no picture");
    let model = tiny_model();
    let model = model.to_str().expect("text");
    let broken = ["train", "--model", model, "-i", "input_images=@broken", "-i", "lora_rank=4"];
    here.assert_refused(&[&broken[..], &begin].concat(), says.trim_start_matches("error: ").trim_end());

    let picture = |dir: &str, weights: &str| {
        let size = ["predict", "--model", model, "--dtype", "f32", "--width", "64", "--height", "64"];
        let rest = ["--num-inference-steps", "2", "--prompt", "a photo", "--seed", "1", "-o", dir, "-q"];
        let weights = format!("replicate_weights=@{weights}");
        let ended = here.run(&[&size[..], &rest, &["-i", &weights]].concat());
        done(&ended);
        decoded(&here.path(ended.stdout.trim())).2
    };
    let want = picture("tar", "run/trained_model.tar");
    assert!(want == picture("checkpoint", "run/checkpoints/step-000002"));
    for format in ["kohya", "diffusers"] {
        let file = format!("{format}.safetensors");
        done(&here.run(&["export", "run/trained_model.tar", "--format", format, "-o", &file, "-q"]));
        assert!(want == picture(format, &file), "{format}");
    }

    let says = "lora_layers: expected attention, as this training has no LoRA";
    for other in [["-i", "is_lora=false"], ["--textual-inversion-only", "true"]] {
        here.assert_refused(
            &["train", "-i", "input_images=@set", other[0], other[1], "--lora-layers", "all"],
            says,
        );
    }
}

/// Protects: with `--stop auto` a run ends when the validation loss has stopped falling, with the weights that had the lowest, and
/// says so, with samples of them; cut and resumed it ends with the same bytes; `--stop off` goes on to the last step, and no other run becomes such a one.
#[test]
fn a_run_that_ends_when_its_loss_does_not_fall() {
    let here = sandbox();
    let settings = ["--max-train-steps", "80", "--validate-every", "2", "--checkpointing-steps", "1000"];
    let samples = ["--sample-every", "1000", "--sample-prompt", "TOK"];
    let auto = [&settings[..], &samples, &["--lora-lr", "3e-2", "--stop", "auto"]].concat();
    let ended = train(&here, &[&auto[..], &["--run-dir", "whole"]].concat());
    done(&ended);
    let whole = (tar(&here, "whole"), metrics(&here, "whole"));
    let end = whole.1.last().expect("metrics");
    let (step, best) = (end["step"].as_u64().expect("a step"), end["best_step"].as_u64().expect("a step"));
    assert!(end["stopped"] == true && best < step && step < 80, "{end}");
    let validations: Vec<_> = whole.1.iter().filter_map(|line| line["validation_loss"].as_f64()).collect();
    assert_eq!(validations.len() as u64, step / 2 + 1);
    let lowest = validations[1..].iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(end["best_validation_loss"].as_f64(), Some(lowest));
    assert_eq!(validations.iter().position(|loss| *loss == lowest), Some(best as usize / 2));
    let says = format!(
        "whole: ended after step {step} of 80, as the validation loss has stopped falling; the weights are those after step {best}, "
    );
    assert!(ended.stderr.contains(&says), "{}", ended.stderr);
    assert!(ended.stderr.contains("--resume whole --stop off\n"), "{}", ended.stderr);
    let export = |trained: &str, to: &str| {
        done(&here.run(&["export", trained, "--format", "diffusers", "-o", to, "-q"]));
        fs::read(here.path(to)).expect("an export")
    };
    let checkpoint = format!("whole/checkpoints/step-{best:06}");
    assert!(export("whole/trained_model.tar", "a.safetensors") == export(&checkpoint, "b.safetensors"));
    let samples = |dir: &str| -> Vec<_> {
        let entries = fs::read_dir(here.path(dir).join("samples")).expect("samples");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
    };
    let sample = format!("step-{best:06}-1.png");
    assert_eq!(samples("whole"), [sample.as_str()]);

    // Ended before its first checkpoint, between a validation and the next, and after its end.
    for cut in [1, best as usize + 1, step as usize] {
        let dir = format!("cut{cut}");
        let steps = format!("| {cut}/80 [");
        let arguments = args(&[&auto[..], &["--run-dir", &dir]].concat());
        let (child, _) =
            start(&here, &arguments, |line| line.contains(&steps) || line.contains("ended after"));
        stop(child, "-INT");
        let resumed = here.run(&["train", "--resume", &dir, "-q"]);
        done(&resumed);
        assert!((tar(&here, &dir), metrics(&here, &dir)) == whole, "cut at {cut}");
        assert_eq!(samples(&dir), [sample.as_str()], "cut at {cut}");
    }

    // Without the best checkpoint the result is the last weights, which the last line and the message say.
    let dir = format!("cut{step}");
    fs::remove_dir_all(here.path(&dir).join(format!("checkpoints/step-{best:06}"))).expect("removed");
    let ended = here.run(&["train", "--resume", &dir]);
    done(&ended);
    let end = metrics(&here, &dir).pop().expect("metrics");
    let (loss, last) = (*validations.last().expect("a loss"), &end["best_validation_loss"]);
    assert_eq!((end["best_step"].as_u64(), last.as_f64()), (Some(step), Some(loss)));
    let says = format!("the weights are those after step {step}, with a validation loss of {loss:.4}; ");
    assert!(ended.stderr.contains(&says), "{}", ended.stderr);

    let on = here.run(&["train", "--resume", "whole", "--stop", "off", "-q"]);
    done(&on);
    assert_eq!(metrics(&here, "whole").last().expect("metrics")["step"], 80);
    let plain = [&settings[..], &["--run-dir", "plain", "--max-train-steps", "1", "-q"]].concat();
    done(&train(&here, &plain[2..]));
    let says = "stop: expected \"off\", found \"auto\"";
    here.assert_refused(&["train", "--resume", "plain", "--stop", "auto"], says);
}

/// Protects single files: a training from one ends with the bytes of a training from the folder that it was made of.
#[test]
fn from_a_single_file() {
    let here = sandbox();
    let model = tiny_model();
    let model = model.to_str().expect("text");
    let export =
        ["export", "--format", "single-file", "--model", model, "--dtype", "f32", "-o", "a.safetensors"];
    done(&here.run(&export));
    let short = |more: &[&str]| done(&train(&here, &[&["--max-train-steps", "2"][..], more].concat()));
    short(&["--run-dir", "folder"]);
    short(&["--model", "a.safetensors", "--config", model, "--run-dir", "file"]);
    assert!(tar(&here, "file") == tar(&here, "folder"));
}
