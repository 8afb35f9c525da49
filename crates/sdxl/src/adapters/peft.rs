//! PEFT's alphas: diffusers 0.34 and later saves a LoRA's config as JSON in the file's metadata, PEFT itself in a file
//! beside it.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::source::{Member, PEFT_CONFIG};
use super::{AdapterError, tokens::MAX_PARAMS};
use crate::config::{Component, shorten};

/// In a file's metadata.
const KEY: &str = "lora_adapter_metadata";

/// The scale of every layer, where a config has it.
#[derive(Default)]
pub(super) struct PeftConfig(Map<String, Value>);

impl PeftConfig {
    /// Reads a safetensors file's metadata, whose fields are named by component: `unet.lora_alpha`.
    ///
    /// # Errors
    /// Says what in it is not JSON, or asks for something else than LoRA.
    pub(super) fn read(metadata: &HashMap<String, String>) -> Result<Self, String> {
        let Some(text) = metadata.get(KEY) else { return Ok(Self::default()) };
        Self::parse(text.as_bytes()).map_err(|problem| format!("{KEY}: {problem}"))
    }

    /// Reads `adapter_config.json`, whose fields are those of the one network that it is for.
    ///
    /// # Errors
    /// It is not JSON, or asks for something else than LoRA.
    pub(super) fn file(member: &Member) -> Result<Self, AdapterError> {
        let fail = |problem: String| AdapterError::file(&member.path, problem);
        if member.bytes.len() > MAX_PARAMS {
            return Err(fail(format!("expected at most {MAX_PARAMS} bytes, found {}", member.bytes.len())));
        }
        let config = Self::parse(&member.bytes).map_err(fail)?;
        match config.0.get("peft_type") {
            Some(Value::String(kind)) if kind != "LORA" => {
                Err(fail(format!("peft_type: expected LORA, found {}", shorten(kind))))
            }
            _ => Ok(config),
        }
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let Ok(Value::Object(config)) = serde_json::from_slice(text) else {
            return Err("expected a JSON object".into());
        };
        const UNSUPPORTED: [&str; 4] = ["use_dora", "lora_bias", "use_qalora", "fan_in_fan_out"];
        for (name, value) in &config {
            let field = name.rsplit('.').next().unwrap_or(name);
            if UNSUPPORTED.contains(&field) && value == &Value::Bool(true) {
                return Err(format!("{name}: not supported"));
            }
        }
        Ok(Self(config))
    }

    /// alpha of a layer of this rank, so that alpha / rank is its scale; `None` where nothing is said.
    ///
    /// # Errors
    /// The config is not as PEFT writes it.
    pub(super) fn alpha(&self, component: Component, path: &str, rank: usize) -> Result<Option<f32>, String> {
        let field =
            |name: &str| self.0.get(&format!("{}.{name}", component.name())).or_else(|| self.0.get(name));
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
        let Some(alpha) = alpha.as_f64() else {
            let found = shorten(&alpha.to_string());
            return Err(format!("{KEY} or {PEFT_CONFIG}: lora_alpha: expected a number, found {found}"));
        };
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
    let name = name.strip_suffix('$').unwrap_or(name).replace("\\.", ".");
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
        let found = shorten(pattern);
        return Err(format!(
            "{KEY} or {PEFT_CONFIG}: alpha_pattern: expected a layer's name, found {found:?}"
        ));
    }
    Ok(path == name || (!whole && path.ends_with(&format!(".{name}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: the scale of PEFT's own config: by default, by layer, and by the root of the rank; what is no LoRA is
    /// refused by its field.
    #[test]
    fn alphas_of_a_config() {
        let config = |text: &str| PeftConfig::parse(text.as_bytes());
        let alpha = |text: &str, path| config(text).expect("valid").alpha(Component::UNet, path, 4);
        assert_eq!(alpha(r#"{"r": 4, "lora_alpha": 8}"#, "a.to_q"), Ok(Some(8.0)));
        assert_eq!(alpha(r#"{"lora_alpha": 8, "use_rslora": true}"#, "a.to_q"), Ok(Some(16.0)));
        let pattern = r#"{"lora_alpha": 8, "alpha_pattern": {"^a\\.to_q$": 2}}"#;
        assert_eq!(alpha(pattern, "a.to_q"), Ok(Some(2.0)));
        assert_eq!(alpha(pattern, "b.a.to_q"), Ok(Some(8.0)));
        assert_eq!(alpha("{}", "a"), Ok(None));
        assert!(alpha(r#"{"lora_alpha": "x"}"#, "a").expect_err("text").contains("lora_alpha"));
        assert!(config(r#"{"use_dora": true}"#).err().expect("refused").contains("use_dora"));
        assert!(config("[]").is_err());
    }
}
