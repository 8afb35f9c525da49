//! Every wrong folder or config as an error that names the file and the field.

use super::*;

/// A path that is no model folder says what was expected there.
#[test]
fn a_folder_without_model_index_is_refused() {
    let dir = Temp::new();
    let expect = |path: &Path, found: &str| {
        let error = ModelFolder::open(path).unwrap_err().to_string();
        let expected =
            format!("not a model folder: expected model_index.json (diffusers' layout) in it, found {found}");
        assert_eq!(error, format!("{}: {expected}", path.display()));
    };
    expect(dir.path(), "a folder without one");
    expect(&dir.path().join("nowhere"), "nothing there");
    let file = ModelFolder::open(&dir.write("model.safetensors", "")).unwrap_err().to_string();
    assert!(file.ends_with("model.safetensors: not a safetensors file: an empty file"), "{file}");
    for (text, expected) in [
        ("", "model_index.json: expected text, found an empty file"),
        ("{", "model_index.json: not valid JSON: EOF"),
        ("[1]", "model_index.json: expected a JSON object, found a list of 1"),
        ("{}", "model_index.json: _class_name: expected StableDiffusionXLPipeline or "),
        ("{\"_class_name\": \"StableDiffusionPipeline\"}", "found StableDiffusionPipeline"),
        (&"[".repeat(10_000), "recursion limit"),
    ] {
        dir.write("model_index.json", text);
        assert!(error(&dir).contains(expected), "{}\nexpected: {expected}", error(&dir));
    }
    dir.write("model_index.json", [0xff, 0xfe]);
    assert!(error(&dir).contains("expected UTF-8"));
}

/// Every component of another kind than SDXL's is refused by name and value.
#[test]
fn other_components_are_refused() {
    for (name, class) in [
        ("unet", "UNet2DModel"),
        ("vae", "AutoencoderTiny"),
        ("text_encoder", "T5EncoderModel"),
        ("text_encoder_2", "CLIPTextModel"),
        ("tokenizer_2", "T5Tokenizer"),
    ] {
        let dir = tiny();
        edit(&dir, "model_index.json", |index| index[name] = json!(["library", class]));
        let error = error(&dir);
        assert!(
            error.contains(&format!("model_index.json: {name}: expected")) && error.contains(class),
            "{error}"
        );
    }
    let dir = tiny();
    edit(&dir, "model_index.json", |index| index["vae"] = json!([null, null]));
    assert!(
        error(&dir).contains("model_index.json: vae: expected [library, AutoencoderKL], found [null,null]")
    );
}

/// A file that is not there, or cut short, is named.
#[test]
fn a_missing_or_cut_file_is_named() {
    for file in [
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "text_encoder_2/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder_2/model.safetensors",
        "tokenizer/vocab.json",
        "tokenizer_2/merges.txt",
    ] {
        let dir = tiny();
        let path = dir.path().join(file);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let folder = path.parent().unwrap().to_str().unwrap();
        assert!(error(&dir).contains(folder), "{file}: {}", error(&dir));
        // merges.txt is a list of lines: cut short, it is only a shorter list.
        if !file.ends_with(".txt") {
            dir.write(file, &bytes[..bytes.len() / 2]);
            assert!(error(&dir).contains(path.to_str().unwrap()), "{file}: {}", error(&dir));
        }
    }
}

/// One wrong value in a config: the error has the file, the field, and what was expected and found.
#[test]
fn a_wrong_config_value_is_named() {
    let unet = "unet/config.json";
    let vae = "vae/config.json";
    let text = "text_encoder_2/config.json";
    for (file, field, value, expected) in [
        (unet, "block_out_channels", json!([8, 0]), "expected 1 to 65536, found 0"),
        (unet, "block_out_channels", json!([8, 1u64 << 40]), "expected 1 to 65536, found 1099511627776"),
        (unet, "block_out_channels", json!([]), "expected 1 to 16, found 0"),
        (unet, "block_out_channels", json!([8, -16]), "block_out_channels[1]: invalid value: integer `-16`"),
        (unet, "block_out_channels", json!("8"), "block_out_channels: invalid type: string"),
        (unet, "block_out_channels", json!([8, 16, 16]), "expected 3 entries, found 2"),
        (unet, "down_block_types", json!(["DownBlock2D"]), "expected 2 entries, found 1"),
        (
            unet,
            "down_block_types",
            json!(["DownBlock2D", "AttnDownBlock2D"]),
            "expected DownBlock2D or CrossAttnDownBlock2D, found \"AttnDownBlock2D\"",
        ),
        (
            unet,
            "up_block_types",
            json!(["UpBlock2D", "DownBlock2D"]),
            "expected UpBlock2D or CrossAttnUpBlock2D",
        ),
        (
            unet,
            "mid_block_type",
            json!("UNetMidBlock2DSimpleCrossAttn"),
            "expected \"UNetMidBlock2DCrossAttn\", \"UNetMidBlock2D\" or null (nothing else is supported), found",
        ),
        (text, "max_position_embeddings", json!(2), "expected at least 3 (start, a token, end), found 2"),
        (unet, "layers_per_block", json!([1, 2, 3]), "expected 2 entries, found 3"),
        (unet, "layers_per_block", json!(0), "expected 1 to 128, found 0"),
        (unet, "layers_per_block", json!({"a": 1}), "a whole number, or a list of them"),
        (unet, "transformer_layers_per_block", json!([1, 1000]), "expected at most 128, found 1000"),
        (
            unet,
            "transformer_layers_per_block",
            json!([[1], [2]]),
            "reverse_transformer_layers_per_block: expected a list",
        ),
        (
            unet,
            "attention_head_dim",
            json!([1, 3]),
            "expected a number of heads that divides 16 channels, found 3",
        ),
        (
            unet,
            "attention_head_dim",
            json!([1, 4]),
            "expected a head size (channels / heads) that is a multiple of 8, found 16 / 4 = 4",
        ),
        (unet, "attention_head_dim", json!([1, 0]), "expected 1 to 65536, found 0"),
        (unet, "num_attention_heads", json!(2), "expected null (nothing else is supported), found 2"),
        (unet, "norm_num_groups", json!(3), "expected a divisor of 8 channels, found 3"),
        (unet, "norm_num_groups", json!(0), "expected 1 to 65536, found 0"),
        (unet, "norm_eps", json!(-1), "expected a number above 0, found -1"),
        (unet, "norm_eps", json!(1e300), "expected a number above 0"),
        (unet, "act_fn", json!("gelu"), "expected \"silu\" (nothing else is supported), found \"gelu\""),
        (unet, "freq_shift", json!(4), "expected 0 to less than 4, found 4"),
        (
            unet,
            "addition_embed_type",
            json!("text"),
            "expected \"text_time\" (nothing else is supported), found \"text\"",
        ),
        (unet, "addition_embed_type", json!(null), "expected \"text_time\""),
        (unet, "addition_time_embed_dim", json!(null), "expected a value, found none"),
        (unet, "addition_time_embed_dim", json!(7), "expected an even number, found 7"),
        (
            unet,
            "projection_class_embeddings_input_dim",
            json!(65),
            "expected 64 (text_encoder_2's projection_dim 16 + 6 time ids × addition_time_embed_dim 8), found 65",
        ),
        (
            unet,
            "cross_attention_dim",
            json!(48),
            "expected 40 (the text encoders' hidden_size together), found 48",
        ),
        (unet, "cross_attention_dim", json!([40, 48]), "expected one number, or a list of equal ones"),
        (
            unet,
            "in_channels",
            json!(5),
            "expected 4 (the VAE's latent_channels), or 9 of an inpainting model, found 5",
        ),
        (unet, "in_channels", json!(8), "such as InstructPix2Pix, are not supported, found 8"),
        (unet, "out_channels", json!(8), "expected 4 (the VAE's latent_channels), found 8"),
        (unet, "resnet_time_scale_shift", json!("scale_shift"), "expected \"default\""),
        (unet, "time_cond_proj_dim", json!(256), "expected null (a UNet distilled to LCM"),
        (unet, "class_embed_type", json!("projection"), "expected null"),
        (unet, "conv_in_kernel", json!(1), "expected 3"),
        (unet, "only_cross_attention", json!([true, true]), "found a list of 2"),
        (
            vae,
            "block_out_channels",
            json!([8, 8, 8, 12]),
            "expected a head size (channels / heads) that is a multiple of 8, found 12 / 1 = 12",
        ),
        (vae, "down_block_types", json!(["A", "B", "C", "D"]), "expected DownEncoderBlock2D, found \"A\""),
        (vae, "act_fn", json!("relu"), "expected \"silu\""),
        (vae, "in_channels", json!(1), "expected 3"),
        (vae, "latent_channels", json!(0), "expected 1 to 65536, found 0"),
        (vae, "scaling_factor", json!(0), "expected a number above 0, found 0"),
        (vae, "shift_factor", json!(0.1), "expected null"),
        (vae, "norm_num_groups", json!(32), "expected a divisor of 8 channels, found 32"),
        (
            text,
            "hidden_act",
            json!("tanh"),
            "hidden_act: unknown variant `tanh`, expected one of `quick_gelu`, `gelu`, `relu`",
        ),
        (text, "hidden_size", json!(0), "expected 1 to 65536, found 0"),
        (
            text,
            "num_attention_heads",
            json!(5),
            "expected a number of heads that divides 24 channels, found 5",
        ),
        (text, "layer_norm_eps", json!(0), "expected a number above 0, found 0"),
        (text, "vocab_size", json!(1e12), "vocab_size: invalid type: floating point"),
        (text, "model_type", json!("t5"), "expected \"clip_text_model\""),
        (text, "max_position_embeddings", json!(64), "expected at most 64"),
        (text, "vocab_size", json!(600), "expected an id below 600 (the text encoder's vocab_size)"),
    ] {
        let dir = tiny();
        edit(&dir, file, |config| config[field] = value.clone());
        let error = error(&dir);
        assert!(error.contains(expected), "{file} {field} {value}: {error}\nexpected: {expected}");
        assert!(error.contains(file) || error.contains("tokenizer_2"), "{error} names {file}");
    }
}

/// Heads must fit where there is attention, in either path, and need not elsewhere.
#[test]
fn heads_count_only_where_there_is_attention() {
    for (up, fits) in
        [(["CrossAttnUpBlock2D", "UpBlock2D"], true), (["UpBlock2D", "CrossAttnUpBlock2D"], false)]
    {
        let dir = tiny();
        edit(&dir, "unet/config.json", |config| {
            config["attention_head_dim"] = json!([3, 2]);
            config["down_block_types"] = json!(["DownBlock2D", "CrossAttnDownBlock2D"]);
            config["up_block_types"] = json!(up);
        });
        let configs = ModelFolder::open(dir.path()).unwrap().configs();
        assert_eq!(configs.is_ok(), fits, "{up:?}: {configs:?}");
    }
}

/// Protects: both tokenizers give as many tokens, as the encoders' outputs stand side by side; the error names the field and
/// both lengths.
#[test]
fn tokenizers_of_two_lengths_are_refused() {
    let dir = tiny();
    let tokenizers = |dir: &Temp| {
        let folder = ModelFolder::open(dir.path()).unwrap();
        folder
            .tokenizers(&folder.configs().unwrap())
            .map(|all| all.iter().map(|t| t.length()).collect::<Vec<_>>())
    };
    let length = tokenizers(&dir).unwrap()[0];
    edit(&dir, "tokenizer_2/tokenizer_config.json", |config| config["model_max_length"] = json!(length - 1));
    let error = tokenizers(&dir).unwrap_err().to_string();
    let expected = format!("model_max_length: expected {length}, as tokenizer has, found {}", length - 1);
    assert!(error.contains("tokenizer_2") && error.ends_with(&expected), "{error}");
    edit(&dir, "tokenizer/tokenizer_config.json", |config| config["model_max_length"] = json!(length - 1));
    assert_eq!(tokenizers(&dir).unwrap(), [length - 1, length - 1]);
}

/// Protects: a model whose scheduler has other noise levels than betas give is refused by that scheduler's name, wherever it
/// stands; a class that has betas is read, whichever it is.
#[test]
fn schedulers_without_betas_are_refused() {
    let scheduler = |file: &str, field: &str, value: Value| {
        let dir = tiny();
        edit(&dir, file, |config| config[field] = value);
        SchedulerConfig::open(&ModelFolder::open(dir.path()).unwrap()).map(drop).map_err(|e| e.to_string())
    };
    let config = "scheduler/scheduler_config.json";
    for (class, what) in [
        ("EDMDPMSolverMultistepScheduler", "EDM's noise levels"),
        ("EDMEulerScheduler", "EDM's noise levels"),
        ("FlowMatchEulerDiscreteScheduler", "flow matching"),
        ("CMStochasticIterativeScheduler", "a consistency model"),
        ("MyScheduler", "not one that is known here"),
    ] {
        let error = scheduler(config, "_class_name", json!(class)).unwrap_err();
        assert!(error.contains("scheduler_config.json: _class_name: ") && error.contains(class), "{error}");
        assert!(error.contains(what), "{error}");
        let error = scheduler("model_index.json", "scheduler", json!(["diffusers", class])).unwrap_err();
        assert!(error.contains("model_index.json: scheduler: ") && error.contains(class), "{error}");
    }
    for class in ["DDIMScheduler", "UniPCMultistepScheduler", "LCMScheduler", "FlaxPNDMScheduler"] {
        assert_eq!(scheduler(config, "_class_name", json!(class)), Ok(()));
    }
    let without_name = Temp::new();
    let path = without_name.write("scheduler_config.json", "{\"sigma_data\": 0.5}");
    let error = SchedulerConfig::load(&path).unwrap_err().to_string();
    assert!(error.contains("found none, and sigma_data (EDM's noise levels"), "{error}");
}
