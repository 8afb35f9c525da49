//! Bad input: exit code 2, one line that names the field, option or file, and nothing written.

mod common;

use common::{Ended, Sandbox, tiny_model};

/// Protects: values that a field does not take, named with what it does take, as flag and as pair.
#[test]
fn fields() {
    let here = Sandbox::new();
    let size = "expected a multiple of 8 from 8 to 4096, found 1023";
    let steps = "num_inference_steps: expected an integer from 1 to 500, found";
    let scheduler = "scheduler: expected one of DDIM, DPMSolverMultistep, HeunDiscrete, KarrasDPM, \
                     K_EULER_ANCESTRAL, K_EULER, PNDM, LCM, TCD, UniPC, DPMSolverMultistepSDE, \
                     found \"EULER\"";
    for (name, value, says) in [
        ("width", "1023", format!("width: {size}")),
        ("height", "1023", format!("height: {size}")),
        ("num_inference_steps", "0", format!("{steps} 0")),
        ("num_inference_steps", "501", format!("{steps} 501")),
        ("num_inference_steps", "many", format!("{steps} \"many\"")),
        ("num_outputs", "5", "num_outputs: expected an integer from 1 to 4, found 5".into()),
        ("guidance_scale", "-1", "guidance_scale: expected a number from 0 to 50, found -1".into()),
        ("seed", "-2", "seed: expected an integer, at least 0, found -2".into()),
        ("scheduler", "EULER", scheduler.into()),
        ("apply_watermark", "perhaps", "apply_watermark: expected true or false, found \"perhaps\"".into()),
        ("refine", "base_image_refiner", "refine: ".into()),
        ("lora_scale", "much", "lora_scale: expected a number, found \"much\"".into()),
    ] {
        let flag = format!("--{}", name.replace('_', "-"));
        here.assert_refused(&["predict", &flag, value], &says);
        here.assert_refused(&["predict", "-i", &format!("{name}={value}")], &says);
    }
}

/// Protects: names that no field and no option has; the nearest is suggested.
#[test]
fn unknown_names() {
    let here = Sandbox::new();
    here.assert_refused(&["predict", "-i", "widht=512"], "widht: unknown field, did you mean width?");
    here.assert_refused(&["predict", "--widht", "512"], "--widht: unknown option, did you mean --width?");
    here.assert_refused(&["predikt"], "predikt: unknown command, did you mean predict?");
    here.assert_refused(&["predict", "a cat"], "unexpected argument \"a cat\"");
    here.assert_refused(&["schema", "paint"], "paint");
}

/// Protects: a command line that contradicts itself, or stops short.
#[test]
fn broken_command_lines() {
    let here = Sandbox::new();
    here.assert_refused(&["predict", "-i", "width"], "-i width: expected FIELD=VALUE");
    here.assert_refused(&["predict", "-i", "wi\u{1b}[2Jdth"], "-i wi [2Jdth: expected FIELD=VALUE");
    here.assert_refused(&["predict", "--width"], "--width");
    here.assert_refused(&["predict", "--width", "8", "-i", "width=8"], "width: given twice");
    here.assert_refused(&["predict", "-i", "width=8", "-i", "width=8"], "width: given twice");
    here.assert_refused(&["predict", "--threads", "0"], "--threads");
    here.assert_refused(&["predict", "--dtype", "f16"], "--dtype");
    here.assert_refused(&["predict", "--device", "cuda"], "--device");
    here.assert_refused(&["schema"], "<COMMAND>");
}

/// Protects: files that a field names and that cannot be read.
#[test]
fn unreadable_fields() {
    let here = Sandbox::new();
    here.write("latin1.txt", b"caf\xe9");
    here.assert_refused(&["predict", "-i", "prompt=@nothing.txt"], "prompt: nothing.txt: ");
    here.assert_refused(&["predict", "-i", "prompt=@latin1.txt"], "prompt: latin1.txt: expected UTF-8");
    here.assert_refused(&["predict", "-i", "prompt=@"], "prompt: @: ");
    // Half a surrogate pair, half a unit.
    for odd in [&b"\xff\xfea\x00\x00\xd8"[..], b"\xff\xfea\x00b"] {
        here.write("odd.txt", odd);
        let says = "prompt: odd.txt: expected UTF-8, found another encoding at byte 4";
        here.assert_refused(&["predict", "-i", "prompt=@odd.txt"], says);
    }
    here.write("long.txt", vec![b'a'; 3 << 20]);
    here.assert_refused(
        &["predict", "-i", "prompt=@long.txt"],
        "prompt: long.txt: expected a text of at most",
    );
    here.assert_refused(&["predict", "-i", "image=@nothing.png"], "image: nothing.png: ");
}

/// Protects: results that could not be written are refused before any model is looked at.
#[test]
fn unwritable_outputs() {
    let here = Sandbox::new();
    here.write("taken", "");
    here.assert_refused(&["predict", "-o", "taken"], "-o taken: not a directory");
    here.assert_refused(&["predict", "-o", "taken/below/it"], "-o taken/below/it: not a directory");
}

/// Protects: the same for a directory without write permission, where permissions bind (they do not bind root).
#[cfg(unix)]
#[test]
fn read_only_outputs() {
    use std::os::unix::fs::PermissionsExt;
    let here = Sandbox::new();
    here.write("locked/file", "");
    let chmod =
        |mode| std::fs::set_permissions(here.path("locked"), PermissionsExt::from_mode(mode)).expect("set");
    chmod(0o555);
    if std::fs::write(here.path("locked/probe"), "").is_ok() {
        eprintln!("skipped: permissions do not bind this user");
    } else {
        here.assert_refused(&["predict", "-o", "locked"], "-o locked: cannot write here");
    }
    chmod(0o755);
}

/// Protects: a model that is not there, or not a model; a good output directory is not made for it.
#[test]
fn no_model() {
    let here = Sandbox::new();
    here.write("file", "");
    here.write("folder/unet/config.json", "{}");
    here.assert_refused(
        &["predict", "--model", "file"],
        "--model file: expected a folder in diffusers' layout or a .safetensors file, found an empty file",
    );
    here.assert_refused(&["predict", "--model", "./some/where"], "--model ./some/where: expected a folder");
    here.assert_refused(&["predict", "--model", "folder", "-o", "out"], "model_index.json");
}

/// Protects: who forgot to name the model is told which one it was, where trained weights are for another. Where the file is no such
/// file, or for no SDXL at all, the model has no part in it.
#[test]
fn weights_without_their_model() {
    let here = Sandbox::new();
    let said = "(the model is pocket: --model names another)";
    let kohya = tiny_model().join("../adapters/kohya.safetensors");
    std::fs::copy(kohya, here.path("other.safetensors")).expect("copied");
    here.assert_refused(&["predict", "-i", "replicate_weights=@other.safetensors"], said);
    here.write("weights.tar", "none");
    let header = r#"{"double_blocks.0.img_attn.proj.lora_A.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    here.write("flux.safetensors", [&length[..], header.as_bytes(), &[0; 4]].concat());
    for name in ["weights.tar", "flux.safetensors"] {
        let ended = here.run(&["predict", "-i", &format!("replicate_weights=@{name}")]);
        assert_eq!(ended.code, Some(2), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains(name) && !ended.stderr.contains(said), "{}", ended.stderr);
    }
}

/// Protects: environment variables that are misspelt, or say what they cannot mean, are not passed over in silence.
#[test]
fn environment_variables() {
    let here = Sandbox::new();
    for (name, value, says) in [
        (
            "CALOTYPE_ISA",
            "avx-512",
            "CALOTYPE_ISA: expected one of this CPU's instruction sets (emulated, portable",
        ),
        (
            "CALOTYPE_MEMORY",
            "16GB",
            "CALOTYPE_MEMORY: expected a number of bytes, such as 16000000000, found \"16GB\"",
        ),
        (
            "CALOTYPE_MEMROY",
            "1",
            "CALOTYPE_MEMROY: unknown environment variable, did you mean CALOTYPE_MEMORY?",
        ),
        ("CALOTYPE_ZZ", "1", "CALOTYPE_ZZ: unknown environment variable"),
        (
            "RAYON_NUM_THREADS",
            "two",
            "RAYON_NUM_THREADS: expected a number of threads from 0 to 65535, found \"two\"",
        ),
        ("RAYON_NUM_THREADS", "-1", "RAYON_NUM_THREADS: expected a number of threads"),
    ] {
        for command in [&["predict"][..], &["train"], &["schema", "predict"]] {
            here.assert_refused_with(command, &[(name, value)], says);
        }
    }
}

/// Protects readers of the file of tokens from names that are too long, and operators with a limit on the size of files (`ulimit -f`): a write beyond
/// the limit is an error, as on a full disk, and the process does not end without a message.
#[test]
fn names_and_limits() {
    let here = Sandbox::new();
    let (long, longest) = ("a".repeat(65), "a".repeat(64));
    for name in ["", "a b", &long] {
        here.assert_refused(&["token", name], "expected a name of 1 to 64 letters");
    }
    assert_eq!(here.run(&["token", &longest]).code, Some(0));
    #[cfg(unix)]
    {
        let line = "ulimit -f 1; exec \"$0\" man -o pages";
        let ended = Ended::of(&mut here.command_of("sh", &["-c", line, env!("CARGO_BIN_EXE_calotype")]));
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("error: pages/"), "{}", ended.stderr);
    }
}
