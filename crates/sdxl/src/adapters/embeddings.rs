//! Embeddings of new tokens, in three places: bundled in a LoRA file, in a file of their own, or in a trained model's
//! `embeddings.pti`.

use std::path::Path;

use calotype_tensor::Tensor;

use super::members::Member;
use super::values::{floats, shape_problem, sorted};
use super::{AdapterError, Modules};
use calotype_models::Component;
use calotype_models::weights::Header;

/// The encoders' names in embeddings' keys, in the layouts without the prefix `bundle_emb.NAME.`.
const ENCODERS: [[&str; 2]; 2] = [["clip_l", "clip_g"], ["text_encoders_0", "text_encoders_1"]];

/// The name and the encoder of an embedding's key. `None`: the key is not that of an embedding.
pub(super) fn embedding(key: &str) -> Option<(&str, usize)> {
    let (name, key) = match key.strip_prefix("bundle_emb.") {
        Some(bundled) => bundled.rsplit_once('.')?,
        None => ("", key),
    };
    let encoder = ENCODERS.iter().find_map(|names| names.iter().position(|n| *n == key))?;
    Some((name, encoder))
}

/// An embedding as a table (n, c). One of shape (c) becomes (1, c).
pub(super) fn table(tensor: &Tensor) -> Option<Tensor> {
    match *tensor.shape() {
        [c] if c > 0 => Some(tensor.reshape(&[1, c])),
        [n, c] if n * c > 0 => Some(tensor.clone()),
        _ => None,
    }
}

/// The widths of SDXL's text encoders, for use without a model.
const WIDTHS: [usize; 2] = [768, 1280];

/// The word, the encoder and the table of a file with one text encoder's embedding, as diffusers' script writes it. The file
/// has one tensor, whose key is the word.
pub(super) fn lone(
    member: &Member,
    header: &Header,
    modules: Option<&Modules>,
) -> Result<Option<(String, usize, Tensor)>, AdapterError> {
    let [(key, info, range)] = &header.tensors[..] else { return Ok(None) };
    let components = [Component::TextEncoder, Component::TextEncoder2];
    let width = |i: usize| modules.map_or(Some(WIDTHS[i]), |modules| modules.width(components[i]));
    let fits: Vec<usize> =
        (0..2).filter(|&i| width(i).is_some() && info.shape.last().copied() == width(i)).collect();
    if embedding(key).is_some() || key == "emb_params" || key.contains(".weight") || info.shape.len() > 2 {
        return Ok(None);
    }
    let encoder = match fits[..] {
        [one] => one,
        // The encoders have the same width: the file's name decides.
        [first, second] => {
            let stem = member.path.file_stem().unwrap_or_default().to_string_lossy();
            if stem.ends_with("_2") { second } else { first }
        }
        _ => return Ok(None),
    };
    let tensor = floats(&member.path, key, info, member.bytes.get(range.clone()).unwrap_or_default())?;
    Ok(table(&tensor).map(|table| (key.clone(), encoder, table)))
}

/// The tables of both encoders for one embedding. They must have the same number of tokens.
pub(super) fn both(path: &Path, name: &str, pair: [Option<Tensor>; 2]) -> Result<[Tensor; 2], AdapterError> {
    let name = if name.is_empty() { "embeddings" } else { name };
    match pair {
        [Some(first), Some(second)] if first.dim(0) == second.dim(0) => Ok([first, second]),
        [Some(first), Some(second)] => {
            let problem = format!(
                "expected as many tokens for both text encoders, found {} and {}",
                first.dim(0),
                second.dim(0)
            );
            Err(AdapterError::key(path, name, problem))
        }
        _ => Err(AdapterError::key(
            path,
            name,
            "expected embeddings for both text encoders, found one encoder's; where they are in a file each, give both files",
        )),
    }
}

/// Concatenates the tables of several embeddings, for each encoder.
pub(super) fn joined(path: &Path, tables: [Vec<Tensor>; 2]) -> Result<[Tensor; 2], AdapterError> {
    let stack = |parts: &Vec<Tensor>| {
        let width = parts.first().map_or(0, |part| part.dim(1));
        match parts.iter().find(|part| part.dim(1) != width) {
            Some(odd) => {
                Err(AdapterError::file(path, shape_problem(&format!("embeddings of {width} channels"), odd)))
            }
            None => {
                let values: Vec<f32> = parts.iter().flat_map(Tensor::to_vec).collect();
                Ok(Tensor::from_slice(&values, &[values.len() / width.max(1), width]))
            }
        }
    };
    let [first, second] = &tables;
    Ok([stack(first)?, stack(second)?])
}

/// Reads `embeddings.pti`.
pub(super) fn embeddings(member: &Member) -> Result<Option<[Tensor; 2]>, AdapterError> {
    let path = &member.path;
    let header = Header::read(&member.bytes).map_err(|e| AdapterError::file(path, e))?;
    let mut pair = [None, None];
    for (key, info, range) in sorted(header) {
        let Some(encoder) = ENCODERS[1].iter().position(|name| *name == key) else {
            return Err(AdapterError::key(
                path,
                &key,
                format!("expected {} only", ENCODERS[1].join(" and ")),
            ));
        };
        let tensor = floats(path, &key, &info, member.bytes.get(range).unwrap_or_default())?;
        let table = table(&tensor);
        pair[encoder] =
            Some(table.ok_or_else(|| {
                AdapterError::key(path, &key, shape_problem("(tokens, channels)", &tensor))
            })?);
    }
    if pair.iter().all(Option::is_none) { Ok(None) } else { both(path, "", pair).map(Some) }
}
