use std::path::Path;

use calotype_models::SafetyChecker;
use calotype_tensor::Tensor;
use safetensors::SafeTensors;

use crate::{F32, Golden, assert_close, folder};

const NAME: &str = "safety_checker";

fn check(folder: &Path) {
    let (golden, checker) = (Golden::load(NAME), SafetyChecker::open(folder).unwrap());
    let scores = checker.scores(golden.get("pictures"));
    let flagged: Vec<f32> = scores.iter().map(|score| f32::from(u8::from(score.is_flagged()))).collect();
    assert_eq!(flagged, golden.get("flagged").f32s());
    let all: Vec<f32> =
        scores.into_iter().flat_map(|score| [score.special, score.concepts].concat()).collect();
    let want = golden.get("scores");
    // A third digit may round to the other side.
    assert_close("scores", &Tensor::from_vec(all, want.shape()), want, 2e-3);
}

/// The states of CLIP's vision tower, all of them, are those of transformers.
#[test]
fn vision_tower() {
    let (golden, checker) = (Golden::load(NAME), SafetyChecker::open(&folder(NAME)).unwrap());
    let out = checker.vision_model.forward(golden.get("pictures"), &[0, 1, 3]);
    for (state, i) in out.hidden_states.iter().zip([0, 1, 3]) {
        assert_close("hidden state", state, golden.get(&format!("hidden.{i}")), F32);
    }
    assert_eq!(out.hidden_states.len(), 3);
    assert_close("last_hidden_state", &out.last_hidden_state, golden.get("hidden.3"), F32);
    assert_close("pooled", &out.pooled, golden.get("pooled"), F32);
}

/// Scores and verdicts are those of diffusers: a picture near a concept, one that is so only by special care, one near a special
/// concept alone, and one near none.
#[test]
fn safety_checker() {
    check(&folder(NAME));
}

/// The same under the keys of older transformers, which have `vision_model.` twice, with its constant of positions.
#[test]
fn older_keys() {
    let bytes = std::fs::read(folder(NAME).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let old =
        |key: String| if key.starts_with("vision_model.") { format!("vision_model.{key}") } else { key };
    let mut tensors: Vec<_> = file.tensors().into_iter().map(|(key, view)| (old(key), view)).collect();
    let class = file.tensor("vision_model.embeddings.class_embedding").unwrap();
    tensors.push(("vision_model.vision_model.embeddings.position_ids".into(), class));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("safety_checker_older");
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(target.join("model.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    std::fs::copy(folder(NAME).join("config.json"), target.join("config.json")).unwrap();
    check(&target);
}
