//! Command lines for people to copy.

/// A command line as it can be typed.
pub fn typed(args: &[impl AsRef<str>]) -> String {
    let quoted = args.iter().map(|arg| match arg.as_ref() {
        arg if arg.contains(char::is_whitespace) => format!("\"{arg}\""),
        arg => arg.to_owned(),
    });
    std::iter::once("calotype".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}
