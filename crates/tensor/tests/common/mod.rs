//! What the tests share: golden files, comparisons, noise.
#![allow(dead_code)] // each test binary uses its part

pub mod cases;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use calotype_tensor::cpu::Isa;
use calotype_tensor::{Gradients, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A golden file: tensors `<case>.<name>`, and each case's parameters.
pub struct Golden {
    tensors: HashMap<String, (Vec<usize>, Vec<u8>)>,
    parameters: HashMap<String, Value>,
}

impl Golden {
    /// Reads `tests/golden/<name>.safetensors`.
    pub fn load(name: &str) -> Golden {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap_or_default();
        let parameters = metadata.into_iter().filter(|(key, _)| key != "torch");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| {
            assert!(matches!(view.dtype(), Dtype::F32 | Dtype::I32), "{name}");
            (name.to_string(), (view.shape().to_vec(), view.data().to_vec()))
        });
        Golden {
            tensors: tensors.collect(),
            parameters: parameters.map(|(k, v)| (k, serde_json::from_str(&v).unwrap())).collect(),
        }
    }

    /// The cases, in order, with their parameters.
    pub fn cases(&self) -> Vec<(&str, &Value)> {
        let mut cases: Vec<_> = self.parameters.iter().map(|(name, value)| (name.as_str(), value)).collect();
        cases.sort_by_key(|&(name, _)| name);
        assert!(!cases.is_empty());
        cases
    }

    pub fn get(&self, case: &str, name: &str) -> Option<Tensor> {
        let (shape, bytes) = self.tensors.get(&format!("{case}.{name}"))?;
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Some(Tensor::from_vec(values, shape))
    }

    pub fn tensor(&self, case: &str, name: &str) -> Tensor {
        self.get(case, name).unwrap_or_else(|| panic!("{case}.{name} is not in the golden file"))
    }

    /// An input, as a leaf.
    pub fn var(&self, case: &str, name: &str) -> Tensor {
        self.tensor(case, name).var()
    }

    pub fn ids(&self, case: &str, name: &str) -> Vec<u32> {
        let (_, bytes) = &self.tensors[&format!("{case}.{name}")];
        bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
    }

    /// Compares y, and the gradient of every named leaf, for the gradient `dy` of y.
    /// Every gradient that the golden file has for the case must be among them.
    pub fn check(&self, case: &str, y: &Tensor, leaves: &[(&str, &Tensor)]) {
        close(&format!("{case}.y"), y, &self.tensor(case, "y"), 1e-4);
        let gradients = gradients_for(y, self.tensor(case, "dy"));
        for (name, leaf) in leaves {
            let found = gradients.get(leaf).unwrap_or_else(|| panic!("{case}.d{name}: no gradient"));
            close(&format!("{case}.d{name}"), found, &self.tensor(case, &format!("d{name}")), 1e-4);
        }
        let all = self.tensors.keys().filter(|key| key.starts_with(&format!("{case}.d")));
        assert_eq!(all.count(), leaves.len() + 1, "{case}: gradients that were compared, and dy");
    }
}

/// The gradients of all leaves for the gradient `dy` of y.
pub fn gradients_for(y: &Tensor, dy: Tensor) -> Gradients {
    let mut gradients = Gradients::default();
    y.backward_with(dy, &mut |leaf, grad| gradients.insert(leaf, grad));
    gradients
}

/// max |found − want| is at most `tolerance` · max |want| (of at least 1e-2: what cancels
/// to 0 is a difference of numbers around 1).
pub fn close(what: &str, found: &Tensor, want: &Tensor, tolerance: f32) {
    assert_eq!(found.shape(), want.shape(), "{what}: shape");
    let (found, want) = (found.to_vec(), want.to_vec());
    let scale = want.iter().fold(1e-2f32, |max, x| max.max(x.abs()));
    for (i, (found, want)) in found.iter().zip(&want).enumerate() {
        let error = (found - want).abs();
        assert!(error <= tolerance * scale, "{what}[{i}]: {found}, expected {want} (largest {scale})");
    }
}

/// Numbers in -1..1, the same for the same seed.
pub fn noise(shape: &[usize], seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    Tensor::from_vec((0..shape.iter().product()).map(|_| next()).collect(), shape)
}

/// Runs one of this binary's tests once for each instruction set that the CPU has.
pub fn rerun_for_every_isa_of(test: &str) {
    for isa in Isa::available() {
        let mut tests = Command::new(std::env::current_exe().unwrap());
        let output = tests.args(["--exact", test]).env("CALOTYPE_ISA", isa.name()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "with {}:\n{text}", isa.name());
        assert!(text.contains("running 1 test"), "there was a test to run");
    }
}

/// Runs this binary's other tests once for each instruction set that the CPU has, the portable one included.
pub fn rerun_for_every_isa(this_test: &str) {
    for isa in Isa::available() {
        let mut tests = Command::new(std::env::current_exe().unwrap());
        let output = tests.args(["--skip", this_test]).env("CALOTYPE_ISA", isa.name()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "with {}:\n{text}", isa.name());
        assert!(!text.contains("running 0 tests"), "there were tests to run");
    }
}
