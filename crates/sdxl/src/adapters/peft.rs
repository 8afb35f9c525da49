//! PEFT's alphas. diffusers 0.34 and later writes a LoRA's config as JSON to the metadata of the file; PEFT writes it to a
//! second file.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::members::{Member, PEFT_CONFIG};
use super::{AdapterError, tokens::MAX_PARAMS};
use calotype_models::{Component, shorten};

/// The key of the config in a file's metadata.
const KEY: &str = "lora_adapter_metadata";
/// The field with alphas of some layers, by patterns of their paths.
const ALPHA_PATTERN: &str = "alpha_pattern";
/// The field with ranks of some layers.
const RANK_PATTERN: &str = "rank_pattern";

/// The most patterns that are not plain layer names. SDXL has some thousand layers, whose alphas may all be listed by name.
const MAX_PATTERNS: usize = 1000;
/// The most bytes of a compiled pattern.
const MAX_COMPILED: usize = 1 << 20;

/// The alphas of layers, from a PEFT config.
#[derive(Default)]
pub(super) struct PeftConfig {
    fields: Map<String, Value>,
    /// The entries of each `alpha_pattern` and `rank_pattern`, by the field's full name.
    patterns: HashMap<String, Vec<(Pattern, Value)>>,
}

impl PeftConfig {
    /// Reads the metadata of a safetensors file. Fields are named by component: `unet.lora_alpha`.
    ///
    /// # Errors
    /// The config is not JSON, or asks for something other than LoRA.
    pub(super) fn read(metadata: &HashMap<String, String>) -> Result<Self, String> {
        let Some(text) = metadata.get(KEY) else { return Ok(Self::default()) };
        Self::parse(text.as_bytes()).map_err(|problem| format!("{KEY}: {problem}"))
    }

    /// Reads `adapter_config.json`, whose fields belong to the one network of the file.
    ///
    /// # Errors
    /// The file is not JSON, or asks for something other than LoRA.
    pub(super) fn file(member: &Member) -> Result<Self, AdapterError> {
        let fail = |problem: String| AdapterError::file(&member.path, problem);
        if member.bytes.len() > MAX_PARAMS {
            return Err(fail(format!("expected at most {MAX_PARAMS} bytes, found {}", member.bytes.len())));
        }
        let config = Self::parse(&member.bytes).map_err(fail)?;
        match config.fields.get("peft_type") {
            Some(Value::String(kind)) if !["LORA", "LOHA", "LOKR"].contains(&kind.as_str()) => {
                Err(fail(format!("peft_type: expected LORA, LOHA or LOKR, found {}", shorten(kind))))
            }
            _ => Ok(config),
        }
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let Ok(Value::Object(config)) = serde_json::from_slice(text) else {
            return Err("expected a JSON object".into());
        };
        const UNSUPPORTED: [&str; 2] = ["use_qalora", "fan_in_fan_out"];
        for (name, value) in &config {
            let field = name.rsplit('.').next().unwrap_or(name);
            if UNSUPPORTED.contains(&field) && value == &Value::Bool(true) {
                return Err(format!("{name}: not supported"));
            }
        }
        Ok(Self { patterns: patterns(&config)?, fields: config })
    }

    /// The alpha of a layer of this rank, such that alpha / rank is the layer's scale. `None`: the config does not give one.
    ///
    /// # Errors
    /// The config is not as PEFT writes it.
    pub(super) fn alpha(&self, component: Component, path: &str, rank: usize) -> Result<Option<f32>, String> {
        // LoRA's field has a name of its own.
        let alpha = match self.number(component, path, ALPHA_PATTERN, "lora_alpha")? {
            None => self.number(component, path, ALPHA_PATTERN, "alpha")?,
            alpha => alpha,
        };
        let Some(alpha) = alpha else { return Ok(None) };
        // rsLoRA divides by the square root of the rank.
        let rs = self.field(component, "use_rslora") == Some(&Value::Bool(true));
        Ok(Some(if rs { alpha * (rank as f64).sqrt() } else { alpha } as f32))
    }

    /// The rank of a layer, for kinds whose tensors do not tell. `None`: the config does not give one.
    ///
    /// # Errors
    /// The config is not as PEFT writes it.
    pub(super) fn rank(&self, component: Component, path: &str) -> Result<Option<f64>, String> {
        let rank = self.number(component, path, RANK_PATTERN, "r")?;
        Ok(rank.filter(|rank| *rank > 0.0))
    }

    fn field(&self, component: Component, name: &str) -> Option<&Value> {
        self.fields.get(&format!("{}.{name}", component.name())).or_else(|| self.fields.get(name))
    }

    /// The value of a layer: that of the first pattern which matches, or that of all layers.
    fn number(
        &self,
        component: Component,
        path: &str,
        patterns: &str,
        name: &str,
    ) -> Result<Option<f64>, String> {
        let own = format!("{}.{patterns}", component.name());
        let all = self.patterns.get(&own).or_else(|| self.patterns.get(patterns));
        let named = all.and_then(|all| all.iter().find(|(pattern, _)| pattern.fits(path)));
        let Some(value) = named.map(|(_, value)| value).or_else(|| self.field(component, name)) else {
            return Ok(None);
        };
        let problem = || {
            let found = shorten(&value.to_string());
            format!("{KEY} or {PEFT_CONFIG}: {name}: expected a number, found {found}")
        };
        value.as_f64().map(Some).ok_or_else(problem)
    }
}

/// A key of `alpha_pattern` or `rank_pattern`. PEFT matches it as a regular expression against a whole path, or the part of a path after a dot.
enum Pattern {
    /// A layer's name, and whether it must be the whole path.
    Name(String, bool),
    Regex(Regex),
}

impl Pattern {
    /// # Errors
    /// The key is not a regular expression.
    fn parse(key: &str) -> Result<Self, String> {
        let (name, whole) = match key.strip_prefix('^') {
            Some(name) => (name, true),
            None => (key, false),
        };
        let name = name.strip_suffix('$').unwrap_or(name).replace("\\.", ".");
        if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
            return Ok(Self::Name(name, whole));
        }
        let regex = RegexBuilder::new(&format!("^(?:.*\\.)?(?:{key})$")).size_limit(MAX_COMPILED).build();
        // The parser's message has several lines, so it is not shown.
        let regex = regex.map_err(|_| format!("expected a regular expression, found {:?}", shorten(key)))?;
        Ok(Self::Regex(regex))
    }

    fn fits(&self, path: &str) -> bool {
        match self {
            Self::Name(name, true) => path == name,
            Self::Name(name, false) => {
                path.strip_suffix(name).is_some_and(|p| p.is_empty() || p.ends_with('.'))
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// Every `alpha_pattern` and `rank_pattern` of a config, with its entries in their order. The first entry that matches counts.
fn patterns(config: &Map<String, Value>) -> Result<HashMap<String, Vec<(Pattern, Value)>>, String> {
    let mut found = HashMap::new();
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let is_pattern = |name: &str| [ALPHA_PATTERN, RANK_PATTERN].contains(&last(name).as_str());
    for (field, value) in config.iter().filter(|(name, _)| is_pattern(name)) {
        let Value::Object(entries) = value else { continue };
        let fail = |problem: String| format!("{field}: {problem}");
        let parsed = entries.iter().map(|(key, alpha)| Ok((Pattern::parse(key)?, alpha.clone())));
        let parsed: Vec<_> = parsed.collect::<Result<_, String>>().map_err(fail)?;
        let regexes = parsed.iter().filter(|(pattern, _)| matches!(pattern, Pattern::Regex(_))).count();
        if regexes > MAX_PATTERNS {
            return Err(fail(format!(
                "expected at most {MAX_PATTERNS} regular expressions, found {regexes}"
            )));
        }
        found.insert(field.clone(), parsed);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the scale of PEFT's own config: by default, by layer, and by the root of the rank. A config of something other
    /// than LoRA is refused, with the field's name.
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
        assert!(config(r#"{"use_qalora": true}"#).err().expect("refused").contains("use_qalora"));
        assert!(config("[]").is_err());
    }

    /// Protects the match of `alpha_pattern` keys, which are regular expressions, as PEFT matches them (the values are from its
    /// `get_pattern_key`). A key that is not a regular expression is refused, with the field's name.
    #[test]
    fn patterns_of_a_config() {
        let paths =
            ["down_blocks.1.attn1.to_q", "mid_block.attn1.to_q", "down_blocks.1.attn2.to_k", "xattn1.to_q"];
        for (key, expected) in [
            (".*attn1.to_q", [true, true, false, true]),
            ("down_blocks.*to_k", [false, false, true, false]),
            ("down_blocks", [false; 4]),
            ("attn1.to_q", [true, true, false, false]),
            ("attn[12]\\\\.to_(q|k)", [true, true, true, false]),
            ("^mid_block.*", [false, true, false, false]),
            ("to_q|to_k", [true, true, true, true]),
            ("o_q", [false; 4]),
            ("^attn1\\\\.to_q$", [false; 4]),
        ] {
            let text = format!(r#"{{"lora_alpha": 8, "unet.alpha_pattern": {{"{key}": 2}}}}"#);
            let config = PeftConfig::parse(text.as_bytes()).expect("valid");
            let fits = paths.map(|path| config.alpha(Component::UNet, path, 4) == Ok(Some(2.0)));
            assert_eq!(fits, expected, "{key}");
            assert_eq!(config.alpha(Component::TextEncoder, paths[0], 4), Ok(Some(8.0)));
        }
        let refused = |text: String| PeftConfig::parse(text.as_bytes()).err().expect("refused");
        let says = refused(r#"{"alpha_pattern": {"a(": 2}}"#.into());
        assert_eq!(says, r#"alpha_pattern: expected a regular expression, found "a(""#);
        assert!(refused(r#"{"alpha_pattern": {"(a{999}){999}": 2}}"#.into()).contains("regular expression"));
        let many: Vec<String> = (0..1001).map(|i| format!(r#""{i}.*": 2"#)).collect();
        assert!(refused(format!(r#"{{"alpha_pattern": {{{}}}}}"#, many.join(","))).contains("at most 1000"));
    }
}
