use calotype_models::config::ClipTextConfig;
use calotype_models::weights::Network;
use calotype_models::{ClipTextModel, ClipTextOutput};
use calotype_tensor::{DType, Tensor};

use crate::{BF16, F32, Golden, Param, assert_close, check_gradients, folder, open, train};

fn load(name: &str, dtype: DType) -> ClipTextModel {
    let config = ClipTextConfig::read(&folder(name)).unwrap();
    let projection = name.starts_with("text_encoder_2");
    ClipTextModel::load(&open(name, Network::ClipText, dtype), &config, projection, dtype).unwrap()
}

fn run(model: &ClipTextModel, golden: &Golden) -> ClipTextOutput {
    let ids = golden.get("ids");
    let prompts: Vec<Vec<u32>> =
        ids.f32s().chunks(ids.dim(1)).map(|row| row.iter().map(|&id| id as u32).collect()).collect();
    model.forward(&prompts)
}

fn check_forward(name: &str, golden: &str, dtype: DType, tolerance: f32) {
    let golden = Golden::load(golden);
    let out = run(&load(name, dtype), &golden);
    assert_eq!(out.penultimate.dtype(), dtype);
    assert_close("penultimate", &out.penultimate, golden.get("penultimate"), tolerance);
    assert_close("last_hidden_state", &out.last_hidden_state, golden.get("last_hidden_state"), tolerance);
    assert_close("pooled", &out.pooled, golden.get("pooled"), tolerance);
}

/// The first encoder (quick GELU, pooled at the largest id), its keys without `text_model.`.
#[test]
fn text_encoder() {
    check_forward("text_encoder", "text_encoder", DType::F32, F32);
}

/// The same weights under keys with `text_model.`, in a file of the fp16 variant.
#[test]
fn prefixed_keys() {
    check_forward("text_encoder_prefixed", "text_encoder", DType::F32, F32);
}

/// The second encoder (GELU, projection), pooled at the first end-of-text id.
#[test]
fn text_encoder_2() {
    check_forward("text_encoder_2", "text_encoder_2", DType::F32, F32);
}

/// The second encoder as published: `eos_token_id` 2 means the largest id.
#[test]
fn legacy_end_of_text() {
    check_forward("text_encoder_2_legacy", "text_encoder_2_legacy", DType::F32, F32);
}

/// In bf16 the states stay near those of f32.
#[test]
fn bf16() {
    for name in ["text_encoder", "text_encoder_2", "text_encoder_2_legacy"] {
        check_forward(name, name, DType::BF16, BF16);
    }
}

fn param<'a>(model: &'a mut ClipTextModel, key: &str) -> Param<'a> {
    use Param::{Table, Tensor, Weight};
    match key {
        "embeddings.token_embedding.weight" => Table(&mut model.embeddings.token_embedding),
        "encoder.layers.0.layer_norm1.bias" => Tensor(&model.layers[0].layer_norm1.bias),
        "encoder.layers.0.self_attn.q_proj.weight" => Weight(&model.layers[0].self_attn.q_proj.weight),
        "encoder.layers.1.mlp.fc1.weight" => Weight(&model.layers[1].mlp.fc1.weight),
        "final_layer_norm.weight" => Tensor(&model.final_layer_norm.weight),
        "text_projection.weight" => Weight(&model.text_projection.as_ref().unwrap().weight),
        other => panic!("the test has no place for {other}"),
    }
}

/// Gradients of embeddings, attention, MLP, norms and projection are PyTorch's, through both results.
#[test]
fn gradients() {
    for name in ["text_encoder", "text_encoder_2", "text_encoder_2_legacy"] {
        let (golden, mut model) = (Golden::load(name), load(name, DType::F32));
        let weights = open(name, Network::ClipText, DType::F32);
        let leaves: Vec<(String, Tensor)> = golden
            .below("grad.")
            .into_iter()
            .map(|key| {
                let golden_name = format!("grad.{key}");
                let today =
                    if key == "text_projection.weight" { key.clone() } else { format!("text_model.{key}") };
                let values = weights.tensor(&today, golden.get(&golden_name).shape()).unwrap();
                (golden_name, train(param(&mut model, &key), values))
            })
            .collect();
        let out = run(&model, &golden);
        let outputs =
            [(&out.penultimate, golden.get("dy.penultimate")), (&out.pooled, golden.get("dy.pooled"))];
        check_gradients(&outputs, &leaves, &golden);
    }
}
