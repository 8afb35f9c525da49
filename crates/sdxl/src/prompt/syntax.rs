//! Finds prompt syntax of other programs, which is plain text here: weights, alternatives, breaks.

/// Warns about the first part of the prompts that other programs do not take as plain text.
pub(crate) fn warn_about_syntax(prompts: [&String; 2]) {
    if let Some(part) = prompts.into_iter().find_map(|prompt| syntax(prompt)) {
        let part = calotype_models::shorten(part);
        tracing::warn!(
            "the prompt's {part:?} is taken as text: weights, alternatives and BREAK are not read"
        );
    }
}

/// The first part of `prompt` that web UIs interpret: `(red:1.4)`, `[x]`, `{a|b}`, `\\(`, `__name__`, `BREAK`,
/// `AND`.
fn syntax(prompt: &str) -> Option<&str> {
    let brackets = [('(', ')'), ('[', ']'), ('{', '}')];
    let bracketed =
        brackets.into_iter().filter_map(|pair| bracketed(prompt, pair)).min_by_key(|part| part.as_ptr());
    bracketed.or_else(|| prompt.contains("\\(").then_some("\\(")).or_else(|| word(prompt))
}

/// The first part from an opening bracket to the next closing bracket, if it is not empty.
fn bracketed(prompt: &str, (open, close): (char, char)) -> Option<&str> {
    let start = prompt.find(open)?;
    let end = start + prompt[start..].find(close)?;
    (end > start + 1).then(|| &prompt[start..=end])
}

/// The first word with a special meaning: a wildcard's name between underscores, or a keyword, unless the prompt is all
/// capitals.
fn word(prompt: &str) -> Option<&str> {
    let shouted = !prompt.contains(char::is_lowercase);
    prompt.split(|c: char| c.is_whitespace() || c == ',').find(|word| {
        let keyword = !shouted && ["BREAK", "AND"].contains(word);
        keyword || word.len() > 4 && word.starts_with("__") && word.ends_with("__")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the warning about prompts from other programs, and that plain sentences cause none.
    #[test]
    fn what_other_programs_read() {
        for (prompt, part) in [
            ("a (red:1.4) fox", Some("(red:1.4)")),
            ("a ((red)) fox", Some("((red)")),
            ("[fox], snow (x)", Some("[fox]")),
            ("a {red|blue} fox", Some("{red|blue}")),
            ("a fox BREAK snow", Some("BREAK")),
            ("a fox AND snow", Some("AND")),
            ("a __colour__ fox", Some("__colour__")),
            ("fox \\(animal", Some("\\(")),
            ("a red fox in the snow", None),
            ("A FOX AND SNOW", None),
            ("a smile :) and an (open bracket", None),
            ("() [] {}", None),
            ("", None),
        ] {
            assert_eq!(syntax(prompt), part, "{prompt}");
        }
    }
}
