//! PEFT's alphas: diffusers 0.34 and later saves a LoRA's config as JSON in the file's metadata.

use std::collections::HashMap;

use serde_json::Value;

use crate::config::Component;

const KEY: &str = "lora_adapter_metadata";

/// The scale of every layer, where a file's metadata has it.
#[derive(Default)]
pub(super) struct PeftConfig(serde_json::Map<String, Value>);

impl PeftConfig {
    /// Reads a safetensors file's metadata.
    ///
    /// # Errors
    /// Says what in it is not JSON, or asks for something else than LoRA.
    pub(super) fn read(metadata: &HashMap<String, String>) -> Result<Self, String> {
        let Some(text) = metadata.get(KEY) else { return Ok(Self::default()) };
        let Ok(Value::Object(config)) = serde_json::from_str(text) else {
            return Err(format!("{KEY}: expected a JSON object"));
        };
        for (name, value) in &config {
            let field = name.rsplit('.').next().unwrap_or(name);
            if ["use_dora", "lora_bias", "use_qalora"].contains(&field) && value == &Value::Bool(true) {
                return Err(format!("{KEY}: {name}: not supported"));
            }
        }
        Ok(Self(config))
    }

    /// alpha of a layer of this rank, so that alpha / rank is its scale; `None` where nothing is said.
    ///
    /// # Errors
    /// The config is not as PEFT writes it.
    pub(super) fn alpha(&self, component: Component, path: &str, rank: usize) -> Result<Option<f32>, String> {
        let field = |name: &str| self.0.get(&format!("{}.{name}", component.name()));
        let mut alpha = field("lora_alpha");
        if let Some(Value::Object(patterns)) = field("alpha_pattern") {
            for (pattern, value) in patterns {
                if matches(pattern, path)? {
                    alpha = Some(value);
                    break;
                }
            }
        }
        let Some(alpha) = alpha else { return Ok(None) };
        let alpha =
            alpha.as_f64().ok_or_else(|| format!("{KEY}: expected a number for alpha, found {alpha}"))?;
        // rsLoRA divides by the root of the rank.
        let rs = field("use_rslora") == Some(&Value::Bool(true));
        Ok(Some(if rs { alpha * (rank as f64).sqrt() } else { alpha } as f32))
    }
}

/// PEFT takes a pattern as a regular expression for the end of a path; what is written there are names.
fn matches(pattern: &str, path: &str) -> Result<bool, String> {
    let (name, whole) = match pattern.strip_prefix('^') {
        Some(name) => (name, true),
        None => (pattern, false),
    };
    let name = name.replace("\\.", ".");
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
        return Err(format!("{KEY}: alpha_pattern: expected a layer's name, found {pattern:?}"));
    }
    Ok(path == name || (!whole && path.ends_with(&format!(".{name}"))))
}
