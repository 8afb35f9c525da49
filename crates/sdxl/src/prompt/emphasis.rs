//! Weights in prompts, by the syntax of AUTOMATIC1111's web UI: `(a)` times 1.1, `(a:1.3)` times 1.3, `[a]` divided by 1.1, all of
//! them nested, `\(` for a bracket itself, and `BREAK`.

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// Text, and its weight.
    Text(String, f64),
    /// The next part begins a chunk of its own.
    Break,
}

/// The factor of a pair of brackets without a number.
const STEP: f64 = 1.1;

/// The parts of a prompt. Neighbours of the same weight are one part. Brackets that are not closed reach to the end.
pub(super) fn parse(prompt: &str) -> Vec<Part> {
    let (mut parts, mut round, mut square) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = prompt;
    while let Some(next) = rest.chars().next() {
        let mut taken = next.len_utf8();
        match next {
            '\\' => {
                let escaped = rest[1..].chars().next().filter(|c| "()[]\\".contains(*c));
                escaped.inspect(|c| parts.push(Part::Text(c.to_string(), 1.0)));
                taken += usize::from(escaped.is_some());
            }
            '(' => round.push(parts.len()),
            '[' => square.push(parts.len()),
            ')' if !round.is_empty() => scale(&mut parts, round.pop(), STEP),
            ']' if !square.is_empty() => scale(&mut parts, square.pop(), 1.0 / STEP),
            ':' if !round.is_empty() && weight(rest).is_some() => {
                let (factor, length) = weight(rest).unwrap_or((1.0, 1));
                scale(&mut parts, round.pop(), factor);
                taken = length;
            }
            ')' | ']' | ':' => parts.push(Part::Text(next.to_string(), 1.0)),
            _ => {
                taken = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                push_text(&mut parts, &rest[..taken]);
            }
        }
        rest = &rest[taken..];
    }
    round.into_iter().for_each(|from| scale(&mut parts, Some(from), STEP));
    square.into_iter().for_each(|from| scale(&mut parts, Some(from), 1.0 / STEP));
    joined(parts)
}

/// The number of `:1.3)` at the beginning of a text, and the length of all of it.
fn weight(text: &str) -> Option<(f64, usize)> {
    let end = text.find(')')?;
    let number = text[1..end].trim();
    let plain = number.trim_start_matches(['+', '-']).chars().all(|c| c.is_ascii_digit() || c == '.');
    let weight = number.parse::<f64>().ok().filter(|_| plain)?;
    Some((weight, end + 1))
}

/// Multiplies the weights of all parts from `from` on.
fn scale(parts: &mut [Part], from: Option<usize>, factor: f64) {
    for part in &mut parts[from.unwrap_or(0)..] {
        if let Part::Text(_, weight) = part {
            *weight *= factor;
        }
    }
}

/// Adds text of weight 1, in which the word `BREAK` stands for a break, with the spaces around it.
fn push_text(parts: &mut Vec<Part>, text: &str) {
    const BREAK: &str = "BREAK";
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut begin, mut at) = (0, 0);
    while let Some(found) = text[at..].find(BREAK).map(|found| at + found) {
        at = found + BREAK.len();
        let alone = !text[..found].ends_with(is_word) && !text[at..].starts_with(is_word);
        if alone {
            parts.push(Part::Text(text[begin..found].trim_end().into(), 1.0));
            parts.push(Part::Break);
            begin = at + text[at..].len() - text[at..].trim_start().len();
            at = begin;
        }
    }
    parts.push(Part::Text(text[begin..].into(), 1.0));
}

/// Joins neighbours of the same weight.
fn joined(parts: Vec<Part>) -> Vec<Part> {
    let mut all: Vec<Part> = Vec::new();
    for part in parts {
        match (all.last_mut(), &part) {
            (Some(Part::Text(text, weight)), Part::Text(more, same)) if weight == same => text.push_str(more),
            (_, Part::Text(text, _)) if text.is_empty() => {}
            _ => all.push(part),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the syntax, by the examples that the web UI's own parser gives.
    #[test]
    fn the_web_uis_examples() {
        for (prompt, want) in [
            ("normal text", &[("normal text", 1.0)][..]),
            ("an (important) word", &[("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
            ("(unbalanced", &[("unbalanced", 1.1)]),
            (r"\(literal\]", &[("(literal]", 1.0)]),
            ("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]),
            (
                "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
                &[
                    ("a ", 1.0),
                    ("house", 1.5730000000000004),
                    (" ", 1.1),
                    ("on", 1.0),
                    (" a ", 1.1),
                    ("hill", 0.55),
                    (", sun, ", 1.1),
                    ("sky", 1.4641000000000006),
                    (".", 1.1),
                ],
            ),
            ("(a: +1.5 ) b:2) c] d\\\\ \\e", &[("a", 1.5), (" b:2) c] d\\ e", 1.0)]),
            ("(a:x) (b:1.2.3)", &[("a:x", 1.1), (" ", 1.0), ("b:1.2.3", 1.1)]),
            ("", &[]),
        ] {
            let found = parse(prompt);
            assert_eq!(found.len(), want.len(), "{prompt}: {found:?}");
            for (part, (text, weight)) in found.iter().zip(want) {
                let Part::Text(found, of) = part else { panic!("{prompt}: a break") };
                assert!(found == text && (of - weight).abs() < 1e-12, "{prompt}: {part:?}");
            }
        }
    }

    /// Protects breaks: the word alone, without the spaces around it, also inside brackets.
    #[test]
    fn breaks() {
        let text = |text: &str, weight| Part::Text(text.into(), weight);
        assert_eq!(parse("a fox BREAK  snow"), [text("a fox", 1.0), Part::Break, text("snow", 1.0)]);
        assert_eq!(parse("BREAKFAST a_BREAK"), [text("BREAKFAST a_BREAK", 1.0)]);
        assert_eq!(parse("(a BREAK b:2)"), [text("a", 2.0), Part::Break, text("b", 2.0)]);
        assert_eq!(parse("BREAK"), [Part::Break]);
    }
}
