//! `<lora:NAME:WEIGHT>` in prompts. NAME is the name of a trained model, its `owner/name`, or the id of a version.

use calotype_request::schema;

use super::Request;
use crate::api::refusal::Refusal;
use crate::api::state::AppState;
use crate::api::trained::{self, Version};

/// The most names that a message shows.
const SHOWN: usize = 10;

/// Takes the tags out of a request's prompts, and sets the weights that they name.
pub(super) async fn apply(state: &AppState, request: &mut Request) -> Result<(), Refusal> {
    let (prompt, mut tags) = split(request.text("prompt"))?;
    let (negative, of_negative) = split(request.text("negative_prompt"))?;
    tags.extend(of_negative);
    if tags.is_empty() {
        return Ok(());
    }
    let versions = trained::versions(state).await?;
    let mut files = Vec::new();
    for (name, weight) in tags {
        let version = trained::find(&versions, &name).ok_or_else(|| unknown(&name, &versions))?;
        files.push(format!("{}:{weight}", state.links.url("", &version.weights)));
    }
    request.set("prompt", prompt.into());
    request.set("negative_prompt", negative.into());
    request.set("replicate_weights", schema::join(&files).into());
    Ok(())
}

fn unknown(name: &str, versions: &[Version]) -> Refusal {
    let mut known: Vec<&str> = versions.iter().map(|version| version.model.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    known.truncate(SHOWN);
    let known = if known.is_empty() {
        "none is trained yet".into()
    } else {
        format!("there are {}", known.join(", "))
    };
    Refusal::body("prompt", format!("<lora:{name}:…>: no trained model has this name; {known}"))
}

/// A prompt without its tags, and the name and weight of each. A tag without a weight means 1.
fn split(prompt: &str) -> Result<(String, Vec<(String, f64)>), Refusal> {
    let (mut rest, mut plain, mut tags) = (prompt, String::new(), Vec::new());
    while let Some(start) = rest.to_ascii_lowercase().find("<lora:") {
        let Some(length) = rest[start..].find('>') else { break };
        plain.push_str(&rest[..start]);
        let tag = &rest[start + "<lora:".len()..start + length];
        rest = &rest[start + length + 1..];
        let mut parts = tag.split(':').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weights: Option<Vec<f64>> =
            parts.map(|part| part.parse().ok().filter(|w: &f64| w.is_finite())).collect();
        let wrong = || {
            Refusal::body(
                "prompt",
                format!("<lora:{tag}>: expected <lora:NAME:WEIGHT> with one number as weight"),
            )
        };
        let weights = weights.ok_or_else(wrong)?;
        // Weights of their own for text encoders and UNet do only if they are the same.
        let weight = weights.first().copied().unwrap_or(1.0);
        if name.is_empty() || weights.iter().any(|other| *other != weight) {
            return Err(wrong());
        }
        tags.push((name.to_string(), weight));
    }
    plain.push_str(rest);
    Ok((plain, tags))
}

#[cfg(test)]
mod tests {
    use super::split;

    /// Protects: tags are taken out of the prompt with their weights; text that only looks like one stays.
    #[test]
    fn tags() {
        type Tags = &'static [(&'static str, f64)];
        let cases: [(&str, &str, Tags); 6] = [
            ("a fox", "a fox", &[]),
            ("a <lora:me/fox:0.5> b", "a  b", &[("me/fox", 0.5)]),
            ("<LORA:a><lora:b:-1:-1>", "", &[("a", 1.0), ("b", -1.0)]),
            ("a < b <lora:x", "a < b <lora:x", &[]),
            ("猫 <lora:x:1> 犬", "猫  犬", &[("x", 1.0)]),
            ("İ <lora:x:1>", "İ ", &[("x", 1.0)]),
        ];
        for (prompt, plain, tags) in cases {
            let (found, found_tags) = split(prompt).unwrap_or_else(|e| panic!("{}", e.message));
            let tags: Vec<_> = tags.iter().map(|(name, weight)| (name.to_string(), *weight)).collect();
            assert_eq!((found.as_str(), found_tags), (plain, tags), "{prompt}");
        }
        for prompt in ["<lora::1>", "<lora:a:x>", "<lora:a:1:2>", "<lora:a:inf>"] {
            assert!(split(prompt).is_err(), "{prompt}");
        }
    }
}
