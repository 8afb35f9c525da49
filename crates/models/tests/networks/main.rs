//! The networks against diffusers and transformers: tiny models of fixed weights, whose outputs, intermediate
//! results and gradients are in golden files (see `tools/reference/golden/models.py`).

mod blip;
mod clip_text;
mod clipseg;
mod decoder_tiny;
mod safety_checker;
mod super_resolution;
#[path = "../synthetic/mod.rs"]
mod synthetic;
#[path = "../../../sdxl/tests/temp/mod.rs"]
mod temp;
mod unet;
mod vae;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use calotype_models::nn::Parameter;
use calotype_models::weights::{Network, Weights};
use calotype_tensor::{DType, Tensor, Weight, ops};
use safetensors::{Dtype, SafeTensors};

/// What f32 results may differ by, relative to the largest value: ten times what they do.
const F32: f32 = 2e-5;
/// The same for bf16: 8 bits of mantissa, through a whole network.
const BF16: f32 = 4e-2;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdxl/tests/golden/models").join(name)
}

/// The tensors of a golden file.
struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn load(name: &str) -> Golden {
        let bytes = std::fs::read(folder(name).with_extension("safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(name, view): (String, safetensors::tensor::TensorView)| {
            let words = view.data().as_chunks::<4>().0.iter();
            let values = match view.dtype() {
                Dtype::U8 => view.data().iter().map(|&b| f32::from(b)).collect(),
                Dtype::F32 => words.map(|&b| f32::from_le_bytes(b)).collect(),
                Dtype::I32 => words.map(|&b| i32::from_le_bytes(b) as f32).collect(),
                other => panic!("{name} is {other:?}"),
            };
            (name, Tensor::from_vec(values, view.shape()))
        };
        Golden(file.tensors().into_iter().map(tensor).collect())
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} in the golden file"))
    }

    /// The names that start with `prefix`, without it.
    fn below(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<_> =
            self.0.keys().filter_map(|k| k.strip_prefix(prefix)).map(String::from).collect();
        names.sort();
        names
    }
}

/// max |got - want| / max |want|.
fn difference(name: &str, got: &Tensor, want: &Tensor) -> f32 {
    assert_eq!(got.shape(), want.shape(), "{name}");
    let (got, want) = (got.to_vec(), want.to_vec());
    assert!(got.iter().all(|x| x.is_finite()), "{name} is not finite");
    let largest = want.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    got.iter().zip(&want).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[track_caller]
fn assert_close(name: &str, got: &Tensor, want: &Tensor, tolerance: f32) {
    let difference = difference(name, got, want);
    assert!(difference <= tolerance, "{name}: relative difference {difference:e} is above {tolerance:e}");
}

fn open(name: &str, layout: Network, store: DType) -> Weights {
    Weights::open(&folder(name), layout, None, Some(store)).unwrap()
}

/// A parameter in a network.
enum Param<'a> {
    Weight(&'a Parameter<Weight>),
    Tensor(&'a Parameter),
    Table(&'a mut Tensor),
}

/// Makes a parameter trainable, with the checkpoint's values.
fn train(param: Param, values: Tensor) -> Tensor {
    let leaf = values.var();
    match param {
        Param::Weight(weight) => weight.replace(Weight::from_tensor(&leaf)),
        Param::Tensor(tensor) => tensor.replace(leaf.clone()),
        Param::Table(table) => *table = leaf.clone(),
    }
    leaf
}

/// Goes back from Σ y · dy, and compares the gradients of leaves with the golden ones.
fn check_gradients(outputs: &[(&Tensor, &Tensor)], leaves: &[(String, Tensor)], golden: &Golden) {
    let sums = outputs.iter().map(|(y, dy)| ops::sum(&ops::mul(y, dy)));
    let gradients = sums.reduce(|a, b| ops::add(&a, &b)).unwrap().backward();
    for (name, leaf) in leaves {
        let got = gradients.get(leaf).unwrap_or_else(|| panic!("no gradient reaches {name}"));
        assert_close(name, got, golden.get(name), F32);
    }
}

/// A copy of a model folder's weights, edited, in a folder of its own.
fn edited(name: &str, copy: &str, edit: impl Fn(&str, &mut Vec<usize>) -> Option<String>) -> PathBuf {
    let bytes = std::fs::read(folder(name).join("diffusion_pytorch_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter().filter_map(|(key, view)| {
        let mut shape = view.shape().to_vec();
        let key = edit(&key, &mut shape)?;
        Some((key, safetensors::tensor::TensorView::new(view.dtype(), shape, view.data()).unwrap()))
    });
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(copy);
    std::fs::create_dir_all(&target).unwrap();
    let bytes = safetensors::serialize(tensors.collect::<Vec<_>>(), None).unwrap();
    std::fs::write(target.join("diffusion_pytorch_model.safetensors"), bytes).unwrap();
    target
}
