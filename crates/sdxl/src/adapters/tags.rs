//! `<lora:NAME:WEIGHT>` in prompts, with which AUTOMATIC1111 selects a LoRA by the name of its file.

use std::ops::Range;
use std::path::{Path, PathBuf};

use calotype_models::shorten;

/// The beginnings of the web UIs' tags.
const KINDS: [&str; 3] = ["<lora:", "<lyco:", "<hypernet:"];

/// A tag in a prompt.
struct Tag<'a> {
    range: Range<usize>,
    /// The whole tag.
    text: &'a str,
    /// The text between the kind and the end: `NAME:WEIGHT`.
    content: &'a str,
}

/// A request's prompts without their tags, and the scales that the tags set.
pub(crate) struct Tagged {
    /// Each prompt without its tags.
    pub prompts: Vec<String>,
    /// The scale of each file: the weight of its tag, or its scale in the request.
    pub scales: Vec<f64>,
}

impl Tagged {
    /// Removes the tags from prompts. A tag that names one of `files` replaces the scale of this file. Any other tag is dropped
    /// with a warning.
    pub(crate) fn read(prompts: &[&str], files: &[PathBuf], mut scales: Vec<f64>) -> Self {
        let names: Vec<String> = files.iter().map(|file| name(file)).collect();
        for tag in prompts.iter().flat_map(|prompt| tags(prompt)) {
            let of_tag: Vec<usize> = (0..names.len()).filter(|&i| tag.weight(&names[i]).is_some()).collect();
            if of_tag.is_empty() {
                let shown = shorten(tag.text);
                tracing::warn!("{shown} in the prompt names no file of replicate_weights; it is left out");
            }
            for i in of_tag {
                let scale = scales[i];
                match tag.weight(&names[i]).flatten() {
                    Some(weight) => scales[i] = weight,
                    None => {
                        let (shown, problem) = (shorten(tag.text), "expected one number for its weight");
                        tracing::warn!("{shown} in the prompt: {problem}; the scale {scale} is used");
                    }
                }
                if scales[i] != scale {
                    let (name, weight) = (&names[i], scales[i]);
                    tracing::warn!(
                        "{name}: scaled by {weight}, as <lora:…> in the prompt says, not by its scale of the request ({scale})"
                    );
                }
            }
        }
        Self { prompts: prompts.iter().map(|prompt| without_tags(prompt)).collect(), scales }
    }
}

/// Whether a prompt has a tag for this file.
pub fn has_tag(prompt: &str, file: &Path) -> bool {
    tags(prompt).any(|tag| tag.weight(&name(file)).is_some())
}

/// The name of a file of trained weights in tags: the file's name without extension.
pub fn name(file: &Path) -> String {
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    // A folder may be given as `.` or `..`.
    stem(file).or_else(|| stem(&file.canonicalize().ok()?)).unwrap_or_default()
}

impl Tag<'_> {
    /// The weight that the tag gives to the file of this name. `None`: the tag is for another file. `Some(None)`: the weight is
    /// not a number. A tag without a weight means 1.
    fn weight(&self, name: &str) -> Option<Option<f64>> {
        let rest = self.content.trim().strip_prefix(name).filter(|_| !name.is_empty())?;
        let Some(weights) = rest.trim_start_matches(".safetensors").strip_prefix(':') else {
            return rest.trim_start_matches(".safetensors").is_empty().then_some(Some(1.0));
        };
        let numbers: Vec<Option<f64>> = weights.split(':').map(|text| text.trim().parse().ok()).collect();
        // Separate weights of text encoders and UNet are supported only if they are equal.
        let first = numbers.first().copied().flatten().filter(|weight: &f64| weight.is_finite());
        Some(first.filter(|_| numbers.iter().all(|n| *n == first)))
    }
}

/// The tags of a prompt, in their order.
fn tags(prompt: &str) -> impl Iterator<Item = Tag<'_>> {
    prompt.match_indices('<').filter_map(|(start, _)| {
        let rest = &prompt[start..];
        let kind = KINDS
            .iter()
            .find(|kind| rest.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind)))?;
        let end = rest.find('>')?;
        let content = rest.get(kind.len()..end)?;
        let tag = Tag { range: start..start + end + 1, text: &rest[..=end], content };
        (!content.contains('\n')).then_some(tag)
    })
}

fn without_tags(prompt: &str) -> String {
    let mut out = String::new();
    let mut at = 0;
    for tag in tags(prompt) {
        if tag.range.start >= at {
            out += &prompt[at..tag.range.start];
            at = tag.range.end;
        }
    }
    out + &prompt[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects tags: a tag sets the weight of its file and is removed from the text. A tag without a valid number leaves the
    /// request's scale. A tag for another file is removed too.
    #[test]
    fn tags_set_scales() {
        let files = ["a/my.tar", "b.safetensors", "x:y.safetensors"].map(PathBuf::from);
        let read = |prompt: &str| {
            let tagged = Tagged::read(&["no", prompt], &files, vec![0.6; 3]);
            (tagged.prompts[1].clone(), tagged.scales)
        };
        for (prompt, text, scales) in [
            ("a fox <lora:my:1>", "a fox ", [1.0, 0.6, 0.6]),
            ("<lora:b:0.5>a <LORA:my:-2> fox", "a  fox", [-2.0, 0.5, 0.6]),
            ("a <lora:b>", "a ", [0.6, 1.0, 0.6]),
            ("a <lora:b.safetensors:0.25>", "a ", [0.6, 0.25, 0.6]),
            ("a <lora:x:y:2>", "a ", [0.6, 0.6, 2.0]),
            ("a <lora:b:1:1> <lora:my:1:2>", "a  ", [0.6, 1.0, 0.6]),
            ("a <lora:other:1> <lora:my:x>", "a  ", [0.6, 0.6, 0.6]),
            ("a <s0> <lora:my", "a <s0> <lora:my", [0.6, 0.6, 0.6]),
            ("a < b <lora:bee:1>", "a < b ", [0.6, 0.6, 0.6]),
        ] {
            assert_eq!(read(prompt), (text.into(), scales.to_vec()), "{prompt}");
        }
        assert!(has_tag("a <lora:my:0.6>", &files[0]) && !has_tag("a my", &files[0]));
    }
}
