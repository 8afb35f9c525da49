//! Command lines that people can copy.

/// A command line in the form that can be typed.
pub fn typed(args: &[impl AsRef<str>]) -> String {
    let quoted = args.iter().map(|arg| match arg.as_ref() {
        arg if arg.contains(char::is_whitespace) => format!("\"{arg}\""),
        arg => arg.to_owned(),
    });
    std::iter::once("calotype".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}
