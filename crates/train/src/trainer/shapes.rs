//! What of the UNet trains, by the keys and shapes of the UNet's tensors.

use super::{full, lora};
use crate::plan::{Method, TrainPlan};
use calotype_models::nn::Lora;

/// Whether this tensor of the UNet is trained, or gets a LoRA.
pub(crate) fn trains(key: &str, shape: &[usize], plan: &TrainPlan) -> bool {
    let gets_lora = |path: &str| shape.len() > 1 && lora::trains(path, plan.options.lora_layers);
    match plan.method {
        Method::Full => full::trains(key),
        Method::Lora { .. } => key.strip_suffix(".weight").is_some_and(gets_lora),
        Method::TextualInversion => false,
    }
}

/// The names and shapes of the trained parameters that belong to this tensor of the UNet.
pub(crate) fn trained(key: &str, shape: &[usize], plan: &TrainPlan) -> Vec<(String, Vec<usize>)> {
    match plan.method {
        _ if !trains(key, shape, plan) => Vec::new(),
        Method::Lora { rank } => {
            let path = key.strip_suffix(".weight").unwrap_or(key);
            let [down, up] = Lora::shapes(rank, shape);
            vec![(format!("{path}.down"), down), (format!("{path}.up"), up)]
        }
        _ => vec![(key.to_owned(), shape.to_vec())],
    }
}
