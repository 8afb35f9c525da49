//! What no training can have: refused in one line, with nothing written.

use super::*;

/// Protects: settings that no training can have, each in one line, with nothing written.
#[test]
fn bad_settings() {
    let here = sandbox();
    for (name, value, says) in [
        ("resolution", "100", "resolution: expected a multiple of 64 from 64 to 2048, found 100"),
        ("resolution", "0", "resolution: expected"),
        ("train_batch_size", "0", "train_batch_size: expected an integer from 1 to 1024, found 0"),
        ("max_train_steps", "0", "max_train_steps: expected an integer from 1 to 10000000, found 0"),
        ("num_train_epochs", "0", "num_train_epochs: expected"),
        ("lora_rank", "0", "lora_rank: expected an integer from 1 to 1024, found 0"),
        ("lora_rank", "99999", "lora_rank: expected"),
        ("lora_lr", "-1", "lora_lr: expected a number, at least 0, found -1"),
        ("lora_lr", "nan", "lora_lr: expected a number, at least 0, found \"nan\""),
        ("ti_lr", "inf", "ti_lr: expected"),
        ("unet_learning_rate", "-0.1", "unet_learning_rate: expected"),
        ("lr_warmup_steps", "-1", "lr_warmup_steps: expected"),
        ("checkpointing_steps", "0", "checkpointing_steps: expected an integer, at least 1, found 0"),
        ("seed", "a", "seed: expected"),
        ("lr_scheduler", "cosine", "lr_scheduler: expected one of constant, linear, found \"cosine\""),
        ("token_string", "", "token_string: expected a word without spaces, found \"\""),
        ("token_string", "MY DOG", "token_string: expected a word without spaces, found \"MY DOG\""),
        ("caption_prefix", "a TOKYO, ", "caption_prefix: expected the token_string TOK in it"),
        ("input_images_filetype", "zip", "input_images"),
        ("mask_target_prompts", "a dog", "mask_target_prompts: expected a segmenter for it"),
        ("use_face_detection_instead", "maybe", "use_face_detection_instead: expected true or false"),
        ("clipseg_temperature", "0", "clipseg_temperature: expected a number above 0, found 0"),
        ("lora_rnak", "4", "lora_rnak: unknown field, did you mean lora_rank?"),
    ] {
        let model = tiny_model();
        let pair = format!("{name}={value}");
        let args =
            ["train", "--model", model.to_str().expect("text"), "-i", "input_images=@set", "-i", &pair];
        here.assert_refused(&args, says);
    }
    for (more, says) in [
        (["--gradient-accumulation-steps", "0"], "gradient_accumulation_steps: expected"),
        (
            ["--max-grad-norm", "-1"],
            "max_grad_norm: expected a number above 0, or 0 for no clipping, found -1",
        ),
        (["--max-grad-norm", "nan"], "max_grad_norm: expected a number, found NaN"),
        (["--min-snr-gamma", "0"], "min_snr_gamma: expected a number above 0, found 0"),
        (["--noise-offset", "-0.1"], "noise_offset: expected"),
        (["--caption-dropout", "1.5"], "caption_dropout: expected a number from 0 to 1, found 1.5"),
        (["--optimizer", "sgd"], "optimizer: expected one of adamw, adafactor, found \"sgd\""),
        (["--recompute", "maybe"], "--recompute"),
        (["--sample-every", "0"], "--sample-every"),
        (["-o", "nowhere/x.tar"], "-o nowhere/x.tar: "),
        (["--run-dir", "set/0.txt"], "--run-dir set/0.txt: not a directory"),
    ] {
        let args = args(&more);
        here.assert_refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), says);
    }
    let model = tiny_model();
    let train = ["train", "--model", model.to_str().expect("text")];
    here.assert_refused(&train, "input_images: required, but not given");
    here.assert_refused(
        &[&train[..], &["-i", "input_images=@none.zip"]].concat(),
        "input_images: none.zip: ",
    );
    here.write("empty/readme.txt", "nothing");
    here.assert_refused(&[&train[..], &["-i", "input_images=@empty"]].concat(), "no picture in the set");
}

/// Protects: models that are not trained, as their UNets take more than latents: those for inpainting, and those that edit pictures.
#[test]
fn other_unets() {
    let here = sandbox();
    copy_folder(&tiny_model(), &here.path("model"));
    let path = here.path("model/unet/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    for (channels, says) in [
        (
            9,
            "model: expected a model whose UNet takes the latents alone, 4 channels, found 9 channels, as for inpainting",
        ),
        (
            8,
            "in_channels: expected 4 (the VAE's latent_channels), or 9 of an inpainting model; models that edit pictures",
        ),
    ] {
        config["in_channels"] = channels.into();
        fs::write(&path, config.to_string()).expect("written");
        let args = args(&["--model", "model", "--run-dir", "run"]);
        here.assert_refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), says);
    }
    // The last of them makes no pictures either.
    here.assert_refused(&["predict", "--model", "model", "--prompt", "a cat"], "such as InstructPix2Pix");
}

/// Protects: what does not fit into memory is refused before the model is loaded, with what would fit.
#[test]
fn too_little_memory() {
    let here = sandbox();
    let run = |memory: &str, more: &[&str]| {
        let args = args(&[&["--max-train-steps", "1", "--run-dir", memory][..], more].concat());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = here.command(&args).env("CALOTYPE_MEMORY", memory).output().expect("the binary runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, says) = run("1000", &[]);
    assert_eq!((code, says.lines().count()), (Some(1), 1), "{says}");
    assert!(
        says.starts_with("error: memory: expected about ") && says.contains("no smaller setting"),
        "{says}"
    );
    assert!(!here.path("1000").exists());
    // What takes the memory is the rank: a lower one is named.
    let of_rank = |rank: &str, memory: &str| {
        let mut args = args(&["--recompute", "on", "--run-dir", "ranks"]);
        for (from, to) in [("4", rank), ("2", "1")] {
            let at = args.iter().position(|arg| arg == from).expect("a setting");
            args[at] = to.into();
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = here.command(&args).env("CALOTYPE_MEMORY", memory).output().expect("the binary runs");
        String::from_utf8(output.stderr).expect("text")
    };
    let needed =
        |says: &str| says.split("about ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    let small = needed(&of_rank("4", "1000")).expect("megabytes");
    let says = of_rank("1024", &format!("{}000000", small + 2));
    assert!(says.contains("lora_rank ") && says.contains(" would take "), "{says}");
    let large = ["-i", "resolution=2048"];
    let mut args = args(&[]);
    args.drain(5..7);
    args.extend(large.map(String::from));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = here.command(&args).env("CALOTYPE_MEMORY", "300000000").output().expect("runs");
    let says = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{says}");
    assert!(says.contains("--recompute on") || says.contains("resolution"), "{says}");
}
