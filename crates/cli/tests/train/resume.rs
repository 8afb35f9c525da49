//! Runs that were interrupted, and go on.

use super::*;

const STEPS: [&str; 6] = ["--max-train-steps", "40", "--checkpointing-steps", "5", "--validate-every", "4"];

/// Protects: a run that was interrupted and one that was killed end with the bytes of one that was not; a finished run
/// writes its tar again.
#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on() {
    let here = sandbox();
    done(&train(&here, &[&STEPS[..], &["--run-dir", "whole", "-q"]].concat()));
    let whole = (tar(&here, "whole"), metrics(&here, "whole"));

    for (signal, exit_code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        if signal == "HUP" && ignores_hangups() {
            eprintln!("skipped: whoever runs the tests has told their programs to ignore SIGHUP");
            continue;
        }
        let args = args(&[&STEPS[..], &["--run-dir", signal]].concat());
        let (child, _) = start(&here, &args, |line| line.contains("| 8/40 ["));
        let (code, rest) = stop(child, &format!("-{signal}"));
        assert_eq!(code, Some(exit_code), "{rest:?}");
        let end: Vec<&str> = rest.iter().rev().take(2).map(String::as_str).collect();
        assert_eq!(end, ["interrupted", &format!("resume with: calotype train --resume {signal}")]);
        assert!(!here.path(signal).join("trained_model.tar").exists());
        assert!(metrics(&here, signal).len() < whole.1.len());
        let resumed = here.run(&["train", "--resume", signal]);
        assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
        assert_eq!(resumed.stdout, format!("{signal}/trained_model.tar\n"));
        assert!(!resumed.stderr.contains("| 1/40 ["), "{}", resumed.stderr);
        assert!((tar(&here, signal), metrics(&here, signal)) == whole, "{signal}");
    }

    let args = self::args(&[&STEPS[..], &["--run-dir", "killed"]].concat());
    let (child, _) = start(&here, &args, |line| line.contains("| 14/40 ["));
    let (code, _) = stop(child, "-KILL");
    assert_eq!(code, None);
    let path = here.path("killed/metrics.jsonl");
    let cut = fs::read(&path).expect("metrics");
    fs::write(&path, [&cut[..], b"{\"step\":99,\"lo"].concat()).expect("written");
    done(&here.run(&["train", "--resume", "killed", "--threads", "1", "-q"]));
    assert!((tar(&here, "killed"), metrics(&here, "killed")) == whole, "killed");

    // As a signal in the midst of the last validation leaves it.
    let lines = fs::read_to_string(here.path("whole/metrics.jsonl")).expect("metrics");
    let cut = lines.trim_end().rfind('\n').expect("lines");
    assert!(lines[cut..].contains("validation_loss"), "{}", &lines[cut..]);
    fs::write(here.path("whole/metrics.jsonl"), &lines[..=cut]).expect("written");
    fs::remove_file(here.path("whole/trained_model.tar")).expect("removed");
    let again = here.run(&["train", "--resume", "whole", "-o", "elsewhere.tar"]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("whole: all 40 steps are done"), "{}", again.stderr);
    assert!(fs::read(here.path("elsewhere.tar")).expect("a tar") == whole.0);
    assert!(metrics(&here, "whole") == whole.1, "validated again");
}

/// Protects: a signal while the set is read ends the command with its exit code, and nothing is written. (That the reading stops at
/// a picture is tested where sets are read.)
#[cfg(target_os = "linux")]
#[test]
fn interrupted_while_the_set_is_read() {
    let here = Sandbox::new();
    // Far longer to read than the signal takes to come.
    here.write("set/0.png", png(2000, 2000, &vec![90; 2000 * 2000 * 3]));
    for i in 1..200 {
        fs::hard_link(here.path("set/0.png"), here.path(&format!("set/{i}.png"))).expect("linked");
    }
    let args = args(&["--max-train-steps", "1", "--run-dir", "run"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = here.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    // Until the program has taken SIGINT over; the set is read after that.
    let status = format!("/proc/{}/status", child.id());
    let caught = || {
        let status = fs::read_to_string(&status).expect("it runs");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a line").trim();
        u64::from_str_radix(mask, 16).expect("a mask") >> 1 & 1 == 1
    };
    while !caught() {
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill").success());
    let output = child.wait_with_output().expect("ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0), "{stderr}");
    assert!(stderr.ends_with("interrupted\n"), "{stderr}");
    assert!(!here.path("run").exists() && !here.path("runs").exists());
}

/// Protects: under `nohup` a closed terminal does not end a run.
#[cfg(unix)]
#[test]
fn an_ignored_signal_stays_so() {
    let here = sandbox();
    let args = args(&["--max-train-steps", "12", "--run-dir", "run"]);
    let script = format!("trap '' HUP; exec {} \"$@\"", env!("CARGO_BIN_EXE_calotype"));
    let args: Vec<String> = ["-c".into(), script, "sh".into()].into_iter().chain(args).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let command = here.command_of("/bin/sh", &args);
    let (child, _) = start_command(command, |line| line.contains("| 2/12 ["));
    let (code, rest) = stop(child, "-HUP");
    assert_eq!(code, if cfg!(target_os = "linux") { Some(0) } else { code }, "{rest:?}");
}

/// Protects: a run goes on with the same bytes after its set, its model and its own folder were moved; the new places are kept.
#[test]
fn a_run_can_be_moved() {
    let here = sandbox();
    common::copy_folder(&tiny_model(), &here.path("model"));
    let more = ["--model", "model", "--max-train-steps", "4", "--checkpointing-steps", "1", "-q"];
    done(&train(&here, &[&more[..], &["--keep-checkpoints", "9", "--run-dir", "run"]].concat()));
    let whole = tar(&here, "run");
    for step in [3, 4] {
        fs::remove_dir_all(here.path(&format!("run/checkpoints/step-00000{step}"))).expect("removed");
    }
    fs::remove_file(here.path("run/trained_model.tar")).expect("removed");
    for (from, to) in [("run", "other run"), ("set", "other set"), ("model", "other model")] {
        fs::rename(here.path(from), here.path(to)).expect("moved");
    }
    here.assert_refused(&["train", "--resume", "other run"], "(--model says where it is, if it was moved)");
    let model = ["train", "--resume", "other run", "--model", "other model"];
    here.assert_refused(&model, "(-i input_images=@PATH says where it is, if it was moved)");
    done(&here.run(&[&model[..], &["-i", "input_images=@other set", "-q"]].concat()));
    assert!(tar(&here, "other run") == whole);
    done(&here.run(&["train", "--resume", "other run", "-q"]));
}

/// Protects: a run that goes on with another instruction set says that its bytes will differ, and goes on.
#[test]
fn another_instruction_set() {
    let here = sandbox();
    let args = args(&["--max-train-steps", "2", "--checkpointing-steps", "1", "--run-dir", "run"]);
    let run = |args: &[&str], isa: &str| {
        let output = here.command(args).env("CALOTYPE_ISA", isa).output().expect("the binary runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, said) = run(&args.iter().map(String::as_str).collect::<Vec<_>>(), "portable");
    assert_eq!(code, Some(0), "{said}");
    fs::remove_dir_all(here.path("run/checkpoints/step-000002")).expect("removed");
    let resume = ["train", "--resume", "run"];
    for (isa, warned) in [("emulated", true), ("emulated", false)] {
        let (code, said) = run(&resume, isa);
        let says = "computed with portable, going on with emulated: the bytes will differ";
        assert_eq!((code, said.contains(says)), (Some(0), warned), "{said}");
    }
}

/// Protects: a run takes more steps than it had, of every kind: one whose embeddings still train becomes the longer run to the byte,
/// one that is at its end goes on from there.
#[test]
fn more_steps() {
    let here = sandbox();
    let run = |dir: &str, steps: &str, more: &[&str]| {
        let settings = ["--max-train-steps", steps, "--checkpointing-steps", "1", "--run-dir", dir, "-q"];
        done(&train(&here, &[&settings[..], &["--keep-checkpoints", "9"], more].concat()));
    };
    run("long", "6", &[]);
    run("short", "3", &[]);
    common::copy_folder(&here.path("short"), &here.path("at the end"));
    fs::remove_dir_all(here.path("short/checkpoints/step-000003")).expect("removed");
    let longer = |dir: &str, steps: &str| here.run(&["train", "--resume", dir, "--max-train-steps", steps]);
    let ended = longer("short", "6");
    done(&ended);
    assert!(ended.stderr.contains("6 steps, not 3: the learning rate stays the same\n"), "{}", ended.stderr);
    assert!(tar(&here, "short") == tar(&here, "long"));

    let ended = longer("at the end", "6");
    done(&ended);
    assert!(ended.stderr.contains("the embeddings train until step 2"), "{}", ended.stderr);
    assert!(tar(&here, "at the end") != tar(&here, "long"));
    let again = here.run(&["train", "--resume", "at the end"]);
    assert!(again.code == Some(0) && again.stderr.contains("all 6 steps are done"), "{}", again.stderr);
    let fewer = ["train", "--resume", "at the end", "--max-train-steps", "5"];
    here.assert_refused(&fewer, "max_train_steps: expected at least 6, the steps that are done, found 5");
    let fewer = ["train", "--resume", "at the end", "--max-train-steps", "0"];
    here.assert_refused(&fewer, "max_train_steps: expected an integer from 1 to 10000000, found 0");

    for (dir, more) in [
        ("embeddings", &["--textual-inversion-only", "-i", "lr_scheduler=linear"][..]),
        ("full", &["-i", "is_lora=false", "-i", "lr_scheduler=linear"]),
    ] {
        run(dir, "1", more);
        let before = tar(&here, dir);
        let ended = longer(dir, "2");
        done(&ended);
        let says = "2 steps, not 1: from here on the learning rate is that of a run of 2 steps, 0 at step 2";
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
        assert!(tar(&here, dir) != before, "{dir}");
    }
}

/// Protects: a training that begins from trained weights does so, also where it is resumed before its first checkpoint, and from no
/// others then; a file of another rank is refused with the rank that it has.
#[test]
fn a_training_from_trained_weights() {
    let here = sandbox();
    done(&train(&here, &["--max-train-steps", "2", "--run-dir", "first", "-q"]));
    fs::copy(here.path("first/trained_model.tar"), here.path("begin.tar")).expect("copied");
    let more = ["-i", "replicate_weights=@begin.tar", "--max-train-steps", "2", "-q", "--run-dir"];
    done(&train(&here, &[&more[..], &["second"]].concat()));
    let second = tar(&here, "second");
    assert!(second != tar(&here, "first"));
    fs::remove_dir_all(here.path("second/checkpoints")).expect("removed");
    done(&here.run(&["train", "--resume", "second", "-q"]));
    assert!(second == tar(&here, "second"));
    fs::remove_dir_all(here.path("second/checkpoints")).expect("removed");
    fs::write(here.path("begin.tar"), &second).expect("written");
    let refused = here.run(&["train", "--resume", "second", "-q"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("replicate_weights: ") && refused.stderr.contains("found others"));

    let mut args = args(&["--replicate-weights", "begin.tar", "--max-train-steps", "1"]);
    let rank = args.iter().position(|arg| arg == "4").expect("the rank");
    args[rank] = "8".into();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let refused = here.run(&args);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.ends_with("lora_rank: expected 4, the rank of replicate_weights, found 8\n"),
        "{}",
        refused.stderr
    );
    assert!(!here.path("runs").exists());
}

/// Protects: a run goes on with its own settings, its own set and its own model only, and in one process.
#[test]
fn what_a_run_cannot_be_resumed_with() {
    let here = sandbox();
    common::copy_folder(&tiny_model(), &here.path("model"));
    done(&train(&here, &["--model", "model", "--max-train-steps", "1", "--run-dir", "run", "-q"]));
    let resume = ["train", "--resume", "run"];
    let refused = |more: &[&str], says: &str| here.assert_refused(&[&resume[..], more].concat(), says);
    refused(&["--lora-rank", "8"], "lora_rank: expected 4, found 8");
    refused(
        &["--lora-lr", "1", "--seed", "9"],
        "seed: expected 3, found 9; lora_lr: expected 0.0001, found 1.0",
    );
    refused(&["--noise-offset", "0.1"], "noise_offset: expected 0.0, found 0.1");
    let not_given = "expected the run's default (it was not given), found";
    refused(&["--captioner", "none"], &format!("--captioner: {not_given} \"none\""));
    refused(&["--sample-every", "3"], &format!("--sample-every: {not_given} 3"));
    refused(&["--dtype", "bf16"], "--dtype: expected \"f32\", found \"bf16\"");
    here.write("elsewhere/model_index.json", "{}");
    refused(&["--model", "elsewhere"], "elsewhere");
    refused(&["--run-dir", "other"], "--run-dir");
    here.assert_refused(&["train", "--resume", "nowhere"], "--resume nowhere: expected the folder of a run");
    // The same settings are no others.
    let same = ["-i", "input_images=@set", "--lora-rank", "4", "--max-grad-norm", "1", "-q"];
    done(&here.run(&[&resume[..], &same].concat()));
    let lock = fs::File::open(here.path("run/.lock")).expect("a lock");
    lock.lock().expect("locked");
    refused(&[], "--resume run: another process is training in this folder");
    drop(lock);
    let unet = here.path("model/unet/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&unet).expect("weights");
    *bytes.last_mut().expect("some") ^= 1;
    let weights = fs::read(&unet).expect("weights");
    fs::write(&unet, bytes).expect("written");
    refused(&["-q"], "model: expected the weights and configs that the run began with, found others");
    fs::write(&unet, weights).expect("written");
    here.write("set/0.txt", "a drawing of TOK");
    refused(&["-q"], "input_images: ");
    here.write("run/settings.json", "{}");
    refused(&[], "--resume run: settings.json: ");
}

/// Protects: what a killed program has left unfinished in a run's folder is gone once the run goes on.
#[test]
fn leftovers_are_swept_up() {
    let here = sandbox();
    done(&train(&here, &["--max-train-steps", "1", "--run-dir", "run", "-q"]));
    for name in ["run/.calotype-x1", "run/samples/.calotype-x2", "run/samples/mine.png"] {
        here.write(name, "half");
    }
    done(&here.run(&["train", "--resume", "run", "-q"]));
    assert!(!here.path("run/.calotype-x1").exists() && !here.path("run/samples/.calotype-x2").exists());
    assert!(here.path("run/samples/mine.png").exists() && here.path("run/trained_model.tar").exists());
}

/// Protects: in f32, and in bf16 with the kernels of a CPU that multiplies bf16 numbers, a run that was cut at the
/// step from which the embeddings stand still ends with the bytes of one that was not, and one that computes blocks again with those
/// of one that keeps them; with LoRA, and of the whole UNet.
#[test]
fn every_dtype_is_exact() {
    for (dtype, isa) in [("f32", None), ("bf16", Some("emulated"))] {
        for method in ["is_lora=true", "is_lora=false"] {
            let here = sandbox();
            let run = |args: &[&str]| {
                let mut command = here.command(args);
                command.envs(isa.map(|isa| ("CALOTYPE_ISA", isa)));
                let ended = command.output().expect("it runs");
                assert!(ended.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ended.stderr));
            };
            let begin = |dir: &str, recompute: &str| {
                let settings =
                    ["--dtype", dtype, "-i", method, "--recompute", recompute, "--run-dir", dir, "-q"];
                let steps =
                    ["--max-train-steps", "4", "--checkpointing-steps", "1", "--keep-checkpoints", "9"];
                run(&args(&[&settings[..], &steps].concat()).iter().map(String::as_str).collect::<Vec<_>>());
                (tar(&here, dir), metrics(&here, dir))
            };
            let whole = begin("run", "off");
            assert!(whole == begin("recomputed", "on"), "{dtype}, {method}: recomputed");
            for step in [3, 4] {
                let checkpoint = here.path(&format!("run/checkpoints/step-{step:06}"));
                fs::remove_dir_all(checkpoint).expect("removed");
            }
            fs::remove_file(here.path("run/trained_model.tar")).expect("removed");
            run(&["train", "--resume", "run", "--threads", "1", "-q"]);
            assert!((tar(&here, "run"), metrics(&here, "run")) == whole, "{dtype}, {method}: resumed");
        }
    }
}

/// Whether this process, and so each that it starts, ignores SIGHUP, as `nohup` asks. False where it cannot be known.
fn ignores_hangups() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits & 1 == 1)
}
