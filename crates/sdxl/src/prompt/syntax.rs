//! Finds prompt syntax of other programs, which is plain text here: weights, alternatives, breaks.

use super::PromptSyntax;

/// Warns about the first part of the prompts that other programs do not take as plain text.
pub(crate) fn warn_about_syntax(prompts: [&String; 2], read: PromptSyntax) {
    let Some((part, is_read)) = prompts.into_iter().find_map(|prompt| unread(prompt, read.weights)) else {
        return;
    };
    let part = calotype_models::shorten(part);
    match is_read {
        true => tracing::warn!(
            "the prompt's {part:?} is taken as text (--prompt-weights reads weights and BREAK)"
        ),
        false => tracing::warn!(
            "the prompt's {part:?}: alternatives, changes between steps and wildcards are not read"
        ),
    }
}

/// The first part of a prompt that is not read as in other programs, and whether `--prompt-weights` would read the part.
fn unread(prompt: &str, weights: bool) -> Option<(&str, bool)> {
    let part = if weights { beyond_weights(prompt) } else { syntax(prompt) }?;
    Some((
        part,
        part == "BREAK" || part.starts_with(['(', '\\']) || (part.starts_with('[') && edited(part).is_none()),
    ))
}

/// The first part of `prompt` that is neither text nor a weight: `[a|b]`, `[a:b:0.5]`, `{a|b}`, `__name__`, `AND`.
fn beyond_weights(prompt: &str) -> Option<&str> {
    let edits = prompt.match_indices('[').find_map(|(at, _)| edited(bracketed(&prompt[at..], ('[', ']'))?));
    edits.or_else(|| bracketed(prompt, ('{', '}'))).or_else(|| word(prompt).filter(|word| *word != "BREAK"))
}

/// A bracketed part with a separator in it.
fn edited(part: &str) -> Option<&str> {
    part.contains([':', '|']).then_some(part)
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

    /// Protects the warning where weights are read: it is about what is not, and otherwise names the option.
    #[test]
    fn what_no_option_reads() {
        for (prompt, weights, found) in [
            ("a (red:1.4) [fox] BREAK snow", true, None),
            ("a (red:1.4) fox", false, Some(("(red:1.4)", true))),
            ("a fox BREAK snow", false, Some(("BREAK", true))),
            ("a [red:blue:0.5] fox", true, Some(("[red:blue:0.5]", false))),
            ("a [red] [a|b] fox", true, Some(("[a|b]", false))),
            ("(a) {red|blue} fox", true, Some(("{red|blue}", false))),
            ("(a) fox AND snow", true, Some(("AND", false))),
        ] {
            assert_eq!(unread(prompt, weights), found, "{prompt}");
        }
    }

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
