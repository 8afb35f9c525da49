//! Models in a single file, in Stability's original layout.
//!
//! `golden/single_file.json` says which tensors of the golden folder make which tensor of such a file. `tools/reference/single_file.py`
//! wrote the table, and diffusers' `from_single_file` reads the files that the table makes.

mod temp;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use calotype_models::{ModelFolder, ModelPaths};
use calotype_sdxl::PredictPlan;
use calotype_sdxl::pipeline::{EmptyNegative, Options, Pipeline, Rng};
use calotype_sdxl::samplers::{Sampler, Schedule, SchedulerConfig};
use calotype_tensor::DType;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use temp::{Temp, golden};

/// A tensor of a file: element type, shape, bytes.
#[derive(Clone)]
struct Stored(Dtype, Vec<usize>, Vec<u8>);

type Tensors = BTreeMap<String, Stored>;

/// The golden folder's tensors in the original layout.
fn original() -> Tensors {
    let table = std::fs::read_to_string(golden().join("single_file.json")).expect("the table");
    let table: BTreeMap<String, (String, Vec<String>, String)> = serde_json::from_str(&table).expect("JSON");
    let mut parts: HashMap<String, Tensors> = HashMap::new();
    let mut all = Tensors::new();
    for (key, (part, keys, how)) in table {
        let tensors =
            parts.entry(part.clone()).or_insert_with(|| read(&golden().join("pipeline").join(&part)));
        let Stored(dtype, mut shape, _) = tensors[&keys[0]].clone();
        let mut bytes: Vec<u8> = keys.iter().flat_map(|key| tensors[key].2.clone()).collect();
        match how.as_str() {
            "cat" => shape[0] *= 3,
            "pointwise" => shape.extend([1, 1]),
            "transposed" => {
                let (rows, columns) = (shape[0], shape[1]);
                let at = |i: usize| &bytes[4 * (i % rows * columns + i / rows)..][..4];
                bytes = (0..rows * columns).flat_map(|i| at(i).to_vec()).collect();
                shape.reverse();
            }
            _ => {}
        }
        all.insert(key, Stored(dtype, shape, bytes));
    }
    all
}

/// The tensors of a component's folder.
fn read(folder: &Path) -> Tensors {
    let names = ["model.safetensors", "diffusion_pytorch_model.safetensors"].map(|name| folder.join(name));
    let file = names.into_iter().find_map(|path| std::fs::read(path).ok()).expect("weights");
    let file = SafeTensors::deserialize(&file).expect("safetensors");
    let stored = |view: TensorView| Stored(view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.tensors().into_iter().map(|(key, view)| (key, stored(view))).collect()
}

fn write(here: &Temp, name: &str, tensors: &Tensors, metadata: Option<HashMap<String, String>>) -> PathBuf {
    let mut views = Vec::new();
    for (key, Stored(dtype, shape, bytes)) in tensors {
        views.push((key.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor")));
    }
    let metadata = metadata.map(|entries| entries.into_iter().collect());
    let bytes = safetensors::serialize(views, metadata).expect("a file");
    here.write(name, bytes)
}

fn paths(model: &Path, config: Option<PathBuf>) -> ModelPaths {
    ModelPaths { model: model.to_path_buf(), config, vae: None }
}

fn picture(paths: &ModelPaths) -> Result<Vec<u8>, String> {
    let options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
    let folder = ModelFolder::open_paths(paths).map_err(|e| e.to_string())?;
    let pipeline = Pipeline::of(folder, options).map_err(|e| e.to_string())?;
    let plan = PredictPlan {
        prompt: "a photo of an astronaut".into(),
        width: 32,
        height: 32,
        steps: 2,
        seed: 7,
        ..PredictPlan::default()
    };
    let mut images =
        pipeline.predict(&plan, &mut |_| ControlFlow::Continue(())).map_err(|e| e.to_string())?;
    Ok(images.remove(0).rgb)
}

fn config() -> Option<PathBuf> {
    Some(golden().join("pipeline"))
}

fn folders_picture() -> Vec<u8> {
    picture(&paths(&golden().join("pipeline"), None)).expect("the folder's picture")
}

fn empty() -> Stored {
    Stored(Dtype::F32, vec![0], Vec::new())
}

const PROJECTION: &str = "conditioner.embedders.1.model.text_projection";

/// Protects the product: a single file gives the bytes of its folder's picture, with either spelling of the projection, and with
/// tensors in it that nothing uses.
#[test]
fn a_file_gives_its_folders_picture() {
    let (here, right) = (Temp::new(), folders_picture());
    let mut tensors = original();
    let file = write(&here, "usual.safetensors", &tensors, None);
    assert_eq!(picture(&paths(&file, config())), Ok(right.clone()), "text_projection");

    let Stored(dtype, shape, _) = tensors.remove(PROJECTION).expect("it");
    let second = read(&golden().join("pipeline/text_encoder_2"));
    let straight = second["text_projection.weight"].2.clone();
    tensors
        .insert(format!("{PROJECTION}.weight"), Stored(dtype, shape.into_iter().rev().collect(), straight));
    for key in [
        "conditioner.embedders.1.model.logit_scale",
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
        "denoiser.sigmas",
        "alphas_cumprod",
        "model_ema.diffusion_modelinput_blocks00weight",
        "global_step",
        "first_stage_model.loss.logvar",
    ] {
        tensors.insert(key.into(), empty());
    }
    let file = write(&here, "other.safetensors", &tensors, None);
    assert_eq!(
        picture(&paths(&file, config())),
        Ok(right),
        "text_projection.weight, and tensors without a use"
    );
}

/// Protects what the file itself tells: its configs' numbers, where exports have written them, and its own tokenizer.
#[test]
fn configs_in_the_metadata() {
    let here = Temp::new();
    let folder = ModelFolder::open(&golden().join("pipeline")).expect("the folder");
    let configs = folder.configs().expect("its configs");
    let json = |name: &str| {
        let text =
            std::fs::read_to_string(golden().join("pipeline").join(name).join("config.json")).expect("it");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
    };
    let names = ["unet", "vae", "text_encoder", "text_encoder_2"];
    let all: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), json(name))).collect();
    let metadata = HashMap::from([("calotype.configs".into(), serde_json::Value::Object(all).to_string())]);
    let file = write(&here, "model.safetensors", &original(), Some(metadata));
    let single = ModelFolder::open(&file).expect("the file");
    assert_eq!(format!("{:?}", single.configs().expect("its configs")), format!("{configs:?}"));
    let error = picture(&paths(&file, None)).expect_err("not CLIP's vocabulary");
    assert!(error.contains("expected 49408 rows") && error.contains("--config"), "{error}");
}

/// Protects the markers: v-prediction and zero SNR change the schedule as the same fields of a configuration do.
#[test]
fn markers_change_the_schedule() {
    let here = Temp::new();
    let schedule = |config: &SchedulerConfig| {
        format!("{:?}", Schedule::new(&Sampler::ALL[0], config, 4).expect("a schedule"))
    };
    let mut tensors = original();
    for (markers, fields) in [
        (&[][..], r#"{"prediction_type": "epsilon", "rescale_betas_zero_snr": false"#),
        (&["v_pred"], r#"{"prediction_type": "v_prediction", "rescale_betas_zero_snr": false"#),
        (&["v_pred", "ztsnr"], r#"{"prediction_type": "v_prediction", "rescale_betas_zero_snr": true"#),
    ] {
        tensors.extend(markers.iter().map(|key| ((*key).to_owned(), empty())));
        let file = write(&here, "model.safetensors", &tensors, None);
        let found =
            SchedulerConfig::open(&ModelFolder::open(&file).expect("a model")).expect("a configuration");
        let rest = r#", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
            "timestep_spacing": "leading"}"#;
        let right = SchedulerConfig::parse("right", &format!("{fields}{rest}")).expect("a configuration");
        assert_eq!(schedule(&found), schedule(&right), "{markers:?}");
    }
}

/// Protects the refusals: of other models, of models without a part, of unknown tensors, of tensors in another shape. Each error
/// says which.
#[test]
fn what_is_not_sdxl_is_refused_by_name() {
    let here = Temp::new();
    let error = |tensors: &Tensors| {
        let file = write(&here, "model.safetensors", tensors, None);
        picture(&paths(&file, config())).expect_err("refused")
    };
    let with = |key: &str| Tensors::from([(key.to_owned(), empty())]);
    for (key, says) in [
        ("cond_stage_model.transformer.text_model.final_layer_norm.weight", "Stable Diffusion 1"),
        ("cond_stage_model.model.ln_final.weight", "Stable Diffusion 2"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.proj.weight", "Stable Diffusion 3"),
        ("model.diffusion_model.double_blocks.0.img_attn.proj.weight", "FLUX"),
        ("double_blocks.0.img_attn.proj.weight", "FLUX"),
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "LoRA"),
        ("down_blocks.0.resnets.0.conv1.weight", "a UNet alone"),
        ("something", "none of its parts"),
    ] {
        assert!(error(&with(key)).contains(says), "{key}: {}", error(&with(key)));
    }
    for (marker, says) in [("edm_mean", "Playground 2.5"), ("edm_vpred.sigma_max", "CosXL")] {
        assert!(error(&original().into_iter().chain(with(marker)).collect()).contains(says), "{marker}");
    }
    for (prefix, says) in [
        ("model.diffusion_model.", "without the UNet"),
        ("first_stage_model.", "without the VAE (--vae gives one)"),
        ("conditioner.embedders.0.", "without the first text encoder"),
    ] {
        let found = error(&original().into_iter().filter(|(key, _)| !key.starts_with(prefix)).collect());
        assert!(found.contains(says), "{found}");
    }
    let unknown = "model.diffusion_model.input_blocks.1.0.in_layers.7.weight";
    assert!(error(&original().into_iter().chain(with(unknown)).collect()).contains(unknown));
    let both =
        original().into_iter().chain([(format!("{PROJECTION}.weight"), original()[PROJECTION].clone())]);
    assert!(error(&both.collect()).contains("are the same tensor"));
    let mut wrong = original();
    let key = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_bias";
    wrong.insert(key.into(), Stored(Dtype::F32, vec![71], vec![0; 284]));
    assert!(error(&wrong).contains(key), "{}", error(&wrong));
}

/// Protects 8-bit floats: each element is the f16 of the same value, in linear layers, convolutions and the transposed projection.
#[test]
fn eight_bits_are_widened() {
    let here = Temp::new();
    // The upper byte of an f16 is the e5m2 of about the same value.
    let narrowed = |Stored(_, shape, bytes): &Stored, wide: bool| {
        let values =
            bytes.as_chunks().0.iter().map(|b| half::f16::from_f32(f32::from_le_bytes(*b)).to_bits());
        let bytes: Vec<u8> = match wide {
            true => values.flat_map(|bits| (bits & 0xff00).to_le_bytes()).collect(),
            false => values.map(|bits| (bits >> 8) as u8).collect(),
        };
        Stored(if wide { Dtype::F16 } else { Dtype::F8_E5M2 }, shape.clone(), bytes)
    };
    let file = |wide: bool| {
        let tensors = original().iter().map(|(key, tensor)| (key.clone(), narrowed(tensor, wide))).collect();
        write(&here, if wide { "f16.safetensors" } else { "f8.safetensors" }, &tensors, None)
    };
    let (wide, narrow) = (file(true), file(false));
    assert_eq!(picture(&paths(&narrow, config())), picture(&paths(&wide, config())));
}

/// Protects `vae`: a VAE in a file of either layout, by itself or in a model, and in a folder, replaces the model's, or stands in for a
/// missing one.
#[test]
fn another_vae() {
    let here = Temp::new();
    let vae_of = |tensors: Tensors, prefix: &str| -> Tensors {
        let own = tensors.into_iter().filter_map(|(key, t)| Some((key.strip_prefix(prefix)?.to_owned(), t)));
        own.collect()
    };
    let config = |name: &str| {
        let path = golden().join("pipeline").join(name).join("config.json");
        std::fs::read_to_string(path).expect("a config")
    };
    let written = HashMap::from([("calotype.configs".into(), format!("{{\"vae\": {}}}", config("vae")))]);
    let scaled = |tensors: Tensors| -> Tensors {
        let double = |(key, Stored(dtype, shape, bytes)): (String, Stored)| {
            let bytes = bytes.as_chunks().0.iter().flat_map(|b| (0.5 * f32::from_le_bytes(*b)).to_le_bytes());
            (key, Stored(dtype, shape, bytes.collect()))
        };
        tensors.into_iter().map(double).collect()
    };
    let original_vae = scaled(vae_of(original(), "first_stage_model."));
    let diffusers_vae = scaled(read(&golden().join("pipeline/vae")));
    let a = write(&here, "original.safetensors", &original_vae, Some(written.clone()));
    let b = write(&here, "diffusers.safetensors", &diffusers_vae, Some(written));
    let c = write(&here, "vae/diffusion_pytorch_model.safetensors", &diffusers_vae, None);
    here.write("vae/config.json", config("vae"));
    let without: Tensors =
        original().into_iter().filter(|(key, _)| !key.starts_with("first_stage_model.")).collect();
    let models = [golden().join("pipeline"), write(&here, "without.safetensors", &without, None)];
    let mut pictures = Vec::new();
    for vae in [a, b, c.parent().expect("a folder").to_path_buf(), here.path().to_path_buf()] {
        for model in &models {
            let config = model.is_file().then(|| golden().join("pipeline"));
            let paths = ModelPaths { model: model.clone(), config, vae: Some(vae.clone()) };
            pictures.push(picture(&paths).expect("a picture"));
        }
    }
    assert!(pictures.iter().all(|picture| *picture == pictures[0]));
    assert_ne!(pictures[0], folders_picture());
}
