//! Reads a training's checkpoint as trained weights: the weights of the run at one of its steps.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::embeddings::{both, table};
use super::members::{Member, Members, STATE, STATE_PLAN, STATE_SUMS};
use super::stored::Stored;
use super::values::{floats, shape_problem, sorted};
use super::{AdapterError, LoraPair, Modules, TrainedWeights, tokens};
use calotype_models::Component;
use calotype_models::weights::{Header, element_type, tuple};

/// The most bytes of a JSON file. `state.json` has a line for every trained tensor.
const MAX_JSON: usize = 16 << 20;

/// The size and checksum of a file, in `sums.json`.
#[derive(Deserialize)]
struct Sum {
    bytes: u64,
    crc32: u32,
}

/// Reads the weights of `state.safetensors` and the token of `state.json`, and checks both files against `sums.json`.
///
/// # Errors
/// A file is missing, damaged, or not as a training writes it.
pub(super) fn read(mut members: Members, modules: Option<&Modules>) -> Result<TrainedWeights, AdapterError> {
    let folder = members.values().next().and_then(|member| member.path.parent()).map(ToOwned::to_owned);
    let mut take = |name: &str| {
        let missing = || AdapterError::file(&folder.clone().unwrap_or_default(), format!("no {name} in it"));
        members.remove(name).ok_or_else(missing)
    };
    let (state, plan, sums) = (take(STATE)?, take(STATE_PLAN)?, take(STATE_SUMS)?);
    check(&sums, &[(STATE, &state), (STATE_PLAN, &plan)])?;
    let token = token(&plan)?;
    let mut found = weights(&state)?;
    if let Some(modules) = modules {
        fit(&state, &found, modules)?;
    }
    if let Some(embeddings) = &found.embeddings {
        let value = tokens::names(0..embeddings[0].dim(0)).concat();
        found.tokens.insert(token, value);
    }
    Ok(found)
}

/// Checks that the files are as they were written.
fn check(sums: &Member, files: &[(&str, &Member)]) -> Result<(), AdapterError> {
    let expected: BTreeMap<String, Sum> = serde_json::from_slice(within(sums)?)
        .map_err(|e| AdapterError::file(&sums.path, format!("not the sums of a checkpoint: {e}")))?;
    for (name, file) in files {
        let mut crc = flate2::Crc::new();
        crc.update(&file.bytes);
        let whole =
            expected.get(*name).is_some_and(|s| (s.bytes, s.crc32) == (file.bytes.len() as u64, crc.sum()));
        if !whole {
            return Err(AdapterError::file(&file.path, "damaged: not as sums.json beside it says"));
        }
    }
    Ok(())
}

/// The trained word.
fn token(plan: &Member) -> Result<String, AdapterError> {
    let state: Value = serde_json::from_slice(within(plan)?)
        .map_err(|e| AdapterError::file(&plan.path, format!("not valid JSON: {e}")))?;
    match &state["plan"]["token_string"] {
        Value::String(token) if tokens::check(token, 0).is_ok() => Ok(token.clone()),
        _ => Err(AdapterError::key(&plan.path, "plan.token_string", "expected the word that was trained")),
    }
}

fn within(member: &Member) -> Result<&[u8], AdapterError> {
    match member.bytes.len() <= MAX_JSON {
        true => Ok(&member.bytes),
        false => Err(AdapterError::file(&member.path, format!("expected at most {MAX_JSON} bytes"))),
    }
}

/// Reads LoRA (`PATH.down`, `PATH.up`), embeddings (`text_encoders_0`, `_1`) or the UNet's own tensors. The optimizer's state
/// of a tensor NAME has keys such as `NAME.exp_avg`, and is left out.
fn weights(state: &Member) -> Result<TrainedWeights, AdapterError> {
    let header = Header::read(&state.bytes).map_err(|e| AdapterError::file(&state.path, e))?;
    let all = sorted(header);
    let names: BTreeSet<&str> = all.iter().map(|(key, ..)| key.as_str()).collect();
    let is_weight = |key: &str| !key.rsplit_once('.').is_some_and(|(name, _)| names.contains(name));
    let (mut found, mut pairs) = (TrainedWeights::default(), BTreeMap::new());
    let mut embeddings = [None, None];
    for (key, info, range) in all.iter().filter(|(key, ..)| is_weight(key)) {
        let bytes = state.bytes.get(range.clone()).unwrap_or_default();
        let value = || floats(&state.path, key, info, bytes);
        if let Some(encoder) = key.strip_prefix("text_encoders_").and_then(|n| n.parse::<usize>().ok()) {
            if let Some(place) = embeddings.get_mut(encoder) {
                let value = value()?;
                let problem =
                    || AdapterError::key(&state.path, key, shape_problem("(tokens, channels)", &value));
                *place = Some(table(&value).ok_or_else(problem)?);
            }
        } else if let Some(path) = key.strip_suffix(".down") {
            pairs.entry(path).or_insert((None, None)).0 = Some(value()?);
        } else if let Some(path) = key.strip_suffix(".up") {
            pairs.entry(path).or_insert((None, None)).1 = Some(value()?);
        } else if let (Some(dtype), Some(part)) = (element_type(info.dtype), state.bytes.part(range.clone()))
        {
            found.unet.insert(key.clone(), Stored::mapped(part, info.shape.clone(), dtype));
        }
    }
    for (path, pair) in pairs {
        let fail = |problem: &str| Err(AdapterError::key(&state.path, path, problem));
        let (Some(down), Some(up)) = pair else { return fail("expected down and up, found one of them") };
        match (down.shape(), up.shape()) {
            (&[rank, _], &[_, same]) | (&[rank, _, _, _], &[_, same, 1, 1]) if rank == same && rank > 0 => {}
            _ => return fail("expected down (rank, in) and up (out, rank), or a convolution's"),
        }
        found.lora.insert(path.into(), LoraPair::new(down, up));
    }
    if embeddings.iter().any(Option::is_some) {
        found.embeddings = Some(both(&state.path, "text_encoders", embeddings)?);
    }
    Ok(found)
}

/// Checks that the model has these layers and tensors.
fn fit(state: &Member, found: &TrainedWeights, modules: &Modules) -> Result<(), AdapterError> {
    let wrong = |key: &str, expected: Option<&[usize]>, shape: &[usize]| {
        let expected = expected.map_or("no such tensor, as the model has none".into(), tuple);
        Err(AdapterError::key(&state.path, key, format!("expected {expected}, found {}", tuple(shape))))
    };
    for (path, pair) in &found.lora {
        let shape = [&pair.up.shape()[..1], &pair.down.shape()[1..]].concat();
        let layer = modules.weight(Component::UNet, path);
        if layer != Some(shape.as_slice()) {
            return wrong(path, layer, &shape);
        }
    }
    for (key, tensor) in &found.unet {
        let there = modules.tensor(Component::UNet, key);
        if there != Some(tensor.shape()) {
            return wrong(key, there, tensor.shape());
        }
    }
    Ok(())
}
