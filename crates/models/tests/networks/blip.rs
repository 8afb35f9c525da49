use std::path::Path;

use calotype_models::config::BlipConfig;
use calotype_models::{Blip, TextCache};
use calotype_tensor::{DType, Tensor, ops};
use safetensors::SafeTensors;

use crate::{Golden, assert_close, folder};

/// What results may differ by, relative to the largest value. In bf16, those of transformers differ by half of this.
const F32: f32 = 1e-4;
const BF16: f32 = 0.15;

const NAME: &str = "blip";

fn open(folder: &Path, dtype: DType) -> Blip {
    Blip::open(folder, &BlipConfig::read(folder).unwrap(), dtype).unwrap()
}

/// Entry `i` of a batch.
fn entry(x: &Tensor, i: usize) -> Tensor {
    ops::slice_batch(x, i, 1)
}

/// The logits (T, vocabulary) after each token of each of B texts about one picture.
fn logits(net: &Blip, picture: &Tensor, texts: &[Vec<u32>]) -> Vec<Tensor> {
    let seen = net.see(picture);
    let mut caches: Vec<TextCache> = texts.iter().map(|_| net.empty_text()).collect();
    let step = |i: usize| {
        let tokens: Vec<u32> = texts.iter().map(|text| text[i]).collect();
        net.step(&seen, &tokens, &mut caches)
    };
    let steps: Vec<Tensor> = (0..texts[0].len()).map(step).collect();
    let of_text = |b: usize| {
        ops::cat_batch(&steps.iter().map(|s| entry(s, b)).collect::<Vec<_>>().iter().collect::<Vec<_>>())
    };
    (0..texts.len()).map(of_text).collect()
}

fn ids(tokens: &Tensor) -> Vec<u32> {
    tokens.to_vec().iter().map(|&id| id as u32).collect()
}

fn check(net: &Blip, tolerance: f32) {
    let golden = Golden::load(NAME);
    for i in 0..2 {
        let picture = entry(golden.get("pictures"), i);
        let want = entry(golden.get("vision"), i);
        let states = net.vision_model.forward(&picture).to_dtype(DType::F32);
        assert_close("vision", &states, &want, tolerance);
        let tokens = ids(&entry(golden.get("tokens"), i));
        let want = entry(golden.get("logits"), i);
        let want = want.reshape(&want.shape()[1..]);
        assert_close("logits", &logits(net, &picture, &[tokens])[0], &want, tolerance);
    }
}

/// Protects the captioner's numbers: the vision tower's states, and the logits after each token of a text, which the cache of keys and
/// values must not change, are those of transformers.
#[test]
fn logits_step_by_step() {
    check(&open(&folder(NAME), DType::F32), F32);
}

/// The same in bf16.
#[test]
fn logits_in_bf16() {
    check(&open(&folder(NAME), DType::BF16), BF16);
}

/// Protects beams: what else is in a batch changes nothing.
#[test]
fn texts_of_a_batch_are_independent() {
    let (golden, net) = (Golden::load(NAME), open(&folder(NAME), DType::F32));
    let picture = entry(golden.get("pictures"), 0);
    let texts: Vec<Vec<u32>> = (0..2).map(|i| ids(&entry(golden.get("tokens"), i))).collect();
    let together = logits(&net, &picture, &texts);
    for (text, together) in texts.iter().zip(together) {
        assert_eq!(logits(&net, &picture, std::slice::from_ref(text))[0].to_vec(), together.to_vec());
    }
}

/// A copy of the folder with its tensors under other keys: `None` leaves a tensor out, several keys copy it.
fn with_keys(copy: &str, keys: impl Fn(&str) -> Vec<String>) -> std::path::PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(copy);
    std::fs::create_dir_all(&target).unwrap();
    let bytes = std::fs::read(folder(NAME).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    let tensors: Vec<_> =
        tensors.flat_map(|(key, view)| keys(&key).into_iter().map(move |key| (key, view.clone()))).collect();
    std::fs::write(target.join("model.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    std::fs::copy(folder(NAME).join("config.json"), target.join("config.json")).unwrap();
    target
}

/// Protects published checkpoints: the head's matrix may be a copy of the word embeddings, or be the only one, its bias may have either
/// name or both, and there may be a constant of positions.
#[test]
fn keys_of_the_head() {
    const WORDS: &str = "text_decoder.bert.embeddings.word_embeddings.weight";
    const HEAD: &str = "text_decoder.cls.predictions.";
    let bias = |names: &[&str]| names.iter().map(|name| format!("{HEAD}{name}")).collect();
    let copied = with_keys("blip_copied", |key| match key {
        WORDS => vec![
            key.into(),
            format!("{HEAD}decoder.weight"),
            "text_decoder.bert.embeddings.position_ids".into(),
        ],
        key if key.starts_with(HEAD) && key.ends_with("s.bias") => bias(&["bias", "decoder.bias"]),
        key => vec![key.into()],
    });
    check(&open(&copied, DType::F32), F32);
    let renamed = with_keys("blip_renamed", |key| match key {
        WORDS => vec![format!("{HEAD}decoder.weight")],
        key if key.starts_with(HEAD) && key.ends_with("s.bias") => bias(&["decoder.bias"]),
        key => vec![key.into()],
    });
    check(&open(&renamed, DType::F32), F32);
}

/// Protects users who give another model, or a broken one: one line that names the file and the field, or the tensor.
#[test]
fn other_models_are_refused() {
    let original = std::fs::read_to_string(folder(NAME).join("config.json")).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("blip_refused");
    std::fs::create_dir_all(&target).unwrap();
    let refusal = |from: &str, to: &str| {
        assert!(original.contains(from), "{from}");
        std::fs::write(target.join("config.json"), original.replace(from, to)).unwrap();
        BlipConfig::read(&target).unwrap_err().to_string()
    };
    for (from, to, problem) in [
        (
            "BlipForConditionalGeneration",
            "BlipForQuestionAnswering",
            "architectures: expected BlipForConditionalGeneration, found BlipForQuestionAnswering",
        ),
        ("\"patch_size\": 16", "\"patch_size\": 0", "vision_config.patch_size: expected 1 to 4096, found 0"),
        ("\"image_size\": 48", "\"image_size\": 99999999", "vision_config.image_size: expected 1 to 4096"),
        (
            "\"vocab_size\": 52",
            "\"vocab_size\": 9999999999",
            "text_config.vocab_size: expected 1 to 16777216",
        ),
        ("\"bos_token_id\": 50", "\"bos_token_id\": 52", "text_config.bos_token_id: expected an id below 52"),
        (
            "\"sep_token_id\": 3",
            "\"sep_token_id\": null",
            "text_config.sep_token_id: expected a value, found none",
        ),
        (
            "\"num_attention_heads\": 2",
            "\"num_attention_heads\": 7",
            "expected a number of heads that divides 24",
        ),
        ("\"is_decoder\": true", "\"is_decoder\": false", "text_config.is_decoder: expected true"),
        (
            "\"hidden_act\": \"gelu\"",
            "\"hidden_act\": \"gelu_new\"",
            "hidden_act: unknown variant `gelu_new`",
        ),
    ] {
        let found = refusal(from, to);
        assert!(found.contains(problem), "{found}");
        assert!(found.contains("config.json") && found.lines().count() == 1, "{found}");
    }
    std::fs::write(
        target.join("config.json"),
        original.replace("\"hidden_size\": 24", "\"hidden_size\": 48"),
    )
    .unwrap();
    std::fs::copy(folder(NAME).join("model.safetensors"), target.join("model.safetensors")).unwrap();
    let config = BlipConfig::read(&target).unwrap();
    let found = Blip::open(&target, &config, DType::F32).err().expect("tensors of other shapes").to_string();
    assert!(found.contains("word_embeddings.weight: expected (52, 48), found (52, 24)"), "{found}");
}
