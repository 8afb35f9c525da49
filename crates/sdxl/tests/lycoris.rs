//! Adapters other than plain LoRA: the weights that they make of the tiny model's, against lycoris-lora and PEFT.

mod temp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use calotype_models::weights::{Replacement, TensorHook};
use calotype_models::{Component, ModelConfigs, ModelFolder};
use calotype_sdxl::adapters::{AdapterError, Adapters, Modules, TrainedWeights};
use calotype_tensor::{DType, WeightBytes};
use safetensors::SafeTensors;
use temp::{Temp, golden};

struct Model {
    configs: ModelConfigs,
    modules: Modules,
    /// Every weight, by component and key.
    weights: BTreeMap<(&'static str, String), Vec<f32>>,
}

const COMPONENTS: [(&str, Component, &str); 3] = [
    ("unet", Component::UNet, "diffusion_pytorch_model"),
    ("text_encoder", Component::TextEncoder, "model"),
    ("text_encoder_2", Component::TextEncoder2, "model"),
];

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let folder = ModelFolder::open(&golden().join("pipeline")).expect("the tiny model");
    let configs = folder.configs().expect("its configs");
    let modules = Modules::of(&folder, &configs).expect("its layers");
    let of = |(name, _, file): (&'static str, Component, &str)| {
        let tensors = read(&golden().join(format!("pipeline/{name}/{file}.safetensors")));
        // transformers 5 writes the first encoder's names without the prefix.
        let whole = move |key: String| match name != "unet" && !key.starts_with("text_") {
            true => format!("text_model.{key}"),
            false => key,
        };
        tensors.into_iter().map(move |(key, values)| ((name, whole(key)), values))
    };
    Model { configs, modules, weights: COMPONENTS.into_iter().flat_map(of).collect() }
});

fn read(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).expect("a golden file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let values = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    file.iter().map(|(key, view)| (key.to_string(), values(view.data()))).collect()
}

fn file(kind: &str) -> PathBuf {
    let folder = golden().join("lycoris");
    if kind.starts_with("peft_") { folder.join(kind) } else { folder.join(format!("{kind}.safetensors")) }
}

fn load(files: &[PathBuf], scales: &[f64]) -> Result<Adapters, AdapterError> {
    Adapters::load(files, scales, &MODEL.modules, &MODEL.configs)
}

struct Bytes(Vec<u8>);

impl WeightBytes for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A tensor of the tiny model with the files' changes.
fn merged(adapters: &Adapters, component: &str, key: &str) -> Vec<f32> {
    let (name, component, _) = COMPONENTS.into_iter().find(|(name, ..)| *name == component).expect("known");
    let own = &MODEL.weights[&(name, key.to_string())];
    let bytes = Bytes(own.iter().flat_map(|x| x.to_le_bytes()).collect());
    match adapters.patch(component).replace(key, &bytes, DType::F32) {
        Some(Replacement::Values(values)) => values,
        _ => own.clone(),
    }
}

/// The distance of the merged weight from the expected, as a part of what the file changes.
fn distance(adapters: &Adapters, component: &str, key: &str, want: &[f32]) -> f64 {
    let name = COMPONENTS.into_iter().find(|(name, ..)| *name == component).expect("known").0;
    let own = &MODEL.weights[&(name, key.to_string())];
    let square = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>()
    };
    let found = merged(adapters, component, key);
    assert_eq!(found.len(), want.len());
    let change = square(own, want);
    assert!(change > 0.0, "{key} changes");
    (square(&found, want) / change).sqrt()
}

/// Protects the weights of every kind of adapter, in linear layers, convolutions, norms, biases and text encoders, at full and at
/// part strength.
#[test]
fn weights_equal_the_libraries() {
    let all = read(&golden().join("lycoris/merged.safetensors"));
    let (mut kinds, mut worst) = (BTreeMap::<&str, usize>::new(), 0f64);
    for (name, want) in &all {
        let [kind, component, key] = name.splitn(3, '/').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let (kind, scale) = kind.split_once('@').expect("a scale");
        let adapters = load(&[file(kind)], &[scale.parse().expect("a number")]).expect(kind);
        let found = distance(&adapters, component, key, want);
        assert!(found < 2e-6, "{name}: {found}");
        worst = worst.max(found);
        *kinds.entry(kind).or_default() += 1;
    }
    assert_eq!(kinds.len(), 23, "{kinds:?}");
    assert!(worst > 0.0, "no copy of the expected weights");
}

/// Protects DoRA at part strength: the weight goes the same part of the way to the trained one.
#[test]
fn part_of_the_way() {
    let all = read(&golden().join("lycoris/merged.safetensors"));
    for kind in ["dora", "dora_inputs", "loha_dora", "lokr_dora", "peft_dora"] {
        let key = "down_blocks.1.resnets.0.conv1.weight";
        let whole = &all[&format!("{kind}@1.0/unet/{key}")];
        let own = &MODEL.weights[&("unet", key.to_string())];
        let want: Vec<f32> = own.iter().zip(whole).map(|(w, new)| w + 0.25 * (new - w)).collect();
        let adapters = load(&[file(kind)], &[0.25]).expect(kind);
        let found = distance(&adapters, "unet", key, &want);
        assert!(found < 1e-6, "{kind}: {found}");
    }
}

/// Protects the sum of several files: each changes the model's own weight, so that their order does not matter.
#[test]
fn several_add_up() {
    let key = "down_blocks.1.resnets.0.conv1.weight";
    let own = &MODEL.weights[&("unet", key.to_string())];
    let kinds = ["locon", "dora", "oft", "lokr"].map(file);
    let single: Vec<Vec<f32>> = kinds
        .iter()
        .map(|kind| merged(&load(std::slice::from_ref(kind), &[0.5]).expect("read"), "unet", key))
        .collect();
    let want: Vec<f32> =
        (0..own.len()).map(|i| single.iter().fold(own[i], |sum, one| sum + (one[i] - own[i]))).collect();
    let mut turned = kinds.clone();
    turned.reverse();
    for files in [kinds, turned] {
        let adapters = load(&files, &[0.5; 4]).expect("read");
        assert!(distance(&adapters, "unet", key, &want) < 1e-6);
    }
}

/// Protects: a file of another kind than plain LoRA is refused where a layout or a training has no room for it, by name.
#[test]
fn no_layout_takes_them() {
    for (kind, says) in [("dora", "DoRA"), ("loha", "LoHa"), ("norm", "a whole difference"), ("oft", "OFT")] {
        let found = TrainedWeights::read(&file(kind), Some(&MODEL.modules)).expect(kind);
        for refused in [found.to_kohya(), found.to_diffusers()] {
            let line = refused.expect_err(kind).to_string();
            assert!(line.contains(says) && line.contains("plain LoRA only"), "{line}");
        }
        assert!(found.to_tar().is_err(), "{kind}");
        let copy = TrainedWeights::read(&file(kind), Some(&MODEL.modules)).expect(kind);
        assert!(copy == found, "{kind}");
    }
    let error = TrainedWeights::read(&file("peft_loha"), None).expect_err("no model").to_string();
    assert!(error.ends_with("LoHa can only be read with the model that it is for (--model)"), "{error}");
}

/// A safetensors file of zeros in these shapes.
fn zeros(shapes: &[(&str, &[usize])]) -> Vec<u8> {
    let mut at = 0;
    let entries = shapes.iter().map(|(key, shape)| {
        let start = at;
        at += 4 * shape.iter().product::<usize>();
        let key = format!("lora_unet_{key}");
        (key, serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, at]}))
    });
    let header = serde_json::Value::Object(entries.collect()).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; at]].concat()
}

/// Protects: a part that is missing, of a wrong shape, or of another kind is named.
#[test]
fn parts_that_do_not_fit() {
    const L: &str = "down_blocks_1_resnets_0_conv1"; // (16, 8, 3, 3)
    let here = Temp::new();
    for (parts, says) in [
        (
            &[
                ("lora_down.weight", &[2, 8, 1, 1][..]),
                ("lora_up.weight", &[16, 2, 1, 1]),
                ("lora_mid.weight", &[2, 3, 3, 3]),
            ][..],
            "lora_mid.weight: expected (2, 2, k, k), as its down weight, found (2, 3, 3, 3)",
        ),
        (
            &[
                ("lora_down.weight", &[2, 8, 1, 1]),
                ("lora_up.weight", &[16, 2, 1, 1]),
                ("lora_mid.weight", &[2, 2, 5, 5]),
            ],
            "lora_down.weight: expected (2, 8, 3, 3), found (2, 8, 5, 5)",
        ),
        (&[("lora_mid.weight", &[2, 2, 3, 3])], "lora_mid.weight: without its down and up weights"),
        (&[("dora_scale", &[16, 1, 1, 1])], "dora_scale: without the weights that it belongs to"),
        (
            &[
                ("lora_down.weight", &[2, 8, 3, 3]),
                ("lora_up.weight", &[16, 2, 1, 1]),
                ("dora_scale", &[8, 1, 1, 1]),
            ],
            "dora_scale: expected (16, 1) or (1, 8), found (8, 1, 1, 1)",
        ),
        (&[("hada_w1_a", &[16, 2]), ("hada_w1_b", &[2, 72]), ("hada_w2_a", &[16, 2])], "without hada_w2_b"),
        (
            &[
                ("hada_w1_a", &[16, 2]),
                ("hada_w1_b", &[2, 8]),
                ("hada_w2_a", &[16, 2]),
                ("hada_w2_b", &[2, 72]),
            ],
            "hada_w1_b: expected (2, 72), found (2, 8)",
        ),
        (
            &[
                ("hada_w1_a", &[16, 2]),
                ("hada_w1_b", &[3, 72]),
                ("hada_w2_a", &[16, 2]),
                ("hada_w2_b", &[2, 72]),
            ],
            "hada_w1_a: expected (16, 3), found (16, 2)",
        ),
        (
            &[("lokr_w1", &[3, 4]), ("lokr_w2", &[4, 2, 3, 3])],
            "expected a first factor that divides (16, 8), found (3, 4)",
        ),
        (
            &[("lokr_w1", &[4, 4]), ("lokr_w2", &[4, 3, 3, 3])],
            "lokr_w2: expected (4, 2, 3, 3), found (4, 3, 3, 3)",
        ),
        (&[("lokr_w1", &[4, 4]), ("lokr_w2_a", &[4, 1])], "without lokr_w2_b"),
        (
            &[("lokr_w1", &[4, 4]), ("lokr_w1_a", &[4, 1]), ("lokr_w2", &[4, 2, 3, 3])],
            "lokr_w1_a: does not go with",
        ),
        (&[("diff", &[16, 8])], "diff: expected (16, 8, 3, 3), found (16, 8)"),
        (&[("diff_b", &[8])], "diff_b: expected (16,), found (8,)"),
        (&[("oft_blocks", &[4, 3, 3])], "oft_blocks: expected (blocks, size, size) of 16 rows"),
        (&[("oft_blocks", &[6, 4, 4, 4])], "oft_blocks: expected (blocks, size, size) of 16 rows"),
        (&[("oft_blocks", &[4, 4, 4]), ("rescale", &[8])], "rescale: expected (16), found (8,)"),
        (
            &[("oft_blocks", &[4, 4, 4]), ("dora_scale", &[16, 1, 1, 1])],
            "magnitudes (DoRA) do not go with OFT",
        ),
        (&[("hada_w1_a", &[16, 2]), ("lokr_w1", &[4, 4])], "LoKr beside LoHa of the same layer"),
        (&[("weight", &[16]), ("on_input", &[])], "on_input: (IA)³ is not supported"),
        (&[("a1.weight", &[16, 2])], "GLoRA is not supported"),
        (&[("lora_A.weight", &[0, 8, 3, 3]), ("lora_B.weight", &[16, 0, 1, 1])], "expected (rank, in)"),
    ] {
        let named: Vec<(String, &[usize])> =
            parts.iter().map(|(key, shape)| (format!("{L}.{key}"), *shape)).collect();
        let named: Vec<(&str, &[usize])> = named.iter().map(|(key, shape)| (key.as_str(), *shape)).collect();
        let path = here.write("x.safetensors", zeros(&named));
        let line = load(&[path], &[1.0]).err().expect(says).to_string();
        assert!(line.contains(says) && !line.contains('\n'), "{line}\nexpected: {says}");
    }
    // A norm has no LoRA, and its differences are of its own size.
    for (key, shape, says) in [
        ("conv_norm_out.w_norm", &[4][..], "expected (8,), found (4,)"),
        ("conv_norm_out.lora_down.weight", &[2, 8], "no such layer"),
    ] {
        let line = load(&[here.write("x.safetensors", zeros(&[(key, shape)]))], &[1.0])
            .err()
            .expect(says)
            .to_string();
        assert!(line.contains(says), "{line}");
    }
}
