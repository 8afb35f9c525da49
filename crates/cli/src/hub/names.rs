//! The names that a hub gives, checked character by character, because each becomes part of a path in the cache.

use std::fmt;

/// The version of a file, its ETag. It is the file's name in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

/// The version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit(String);

impl Tag {
    /// Parses a header, `"abc"` or `W/"abc"`.
    ///
    /// # Errors
    /// The tag is not valid. The error is the text.
    pub fn parse(text: &str) -> Result<Tag, String> {
        let tag = text.strip_prefix("W/").unwrap_or(text);
        let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
        let fits = (1..=128).contains(&tag.len())
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits { Ok(Tag(tag.to_owned())) } else { Err(text.to_owned()) }
    }
}

impl Commit {
    /// # Errors
    /// The commit is not valid. The error is the text.
    pub fn parse(text: &str) -> Result<Commit, String> {
        let fits = (4..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        if fits { Ok(Commit(text.to_owned())) } else { Err(text.to_owned()) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this can be the name of a model on a hub, `owner/name`.
pub fn is_model(text: &str) -> bool {
    let word = |word: &str| {
        (1..=96).contains(&word.len())
            && word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !word.contains("..")
            && !word.contains("--") // it replaces the slash in the cache
    };
    text.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name))
}

/// Whether a name of a listing is that of a file in the model's folder or one of its direct subfolders.
pub fn is_file(name: &str) -> bool {
    let mut parts = name.split('/');
    name.len() <= 512
        && parts.clone().count() <= 2
        && parts.all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part.bytes().all(|b| b.is_ascii_graphic() && !b"\\:*?\"<>|%#".contains(&b))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the cache: no name of a hub leads out of it.
    #[test]
    fn names_of_a_hub() {
        assert_eq!(Tag::parse("W/\"ab-C_1\"").map(|tag| tag.to_string()).as_deref(), Ok("ab-C_1"));
        assert_eq!(Tag::parse("abc").map(|tag| tag.to_string()).as_deref(), Ok("abc"));
        for wrong in
            ["", "\"\"", "\"/etc/passwd\"", "\"../a\"", "a.b", "\"a", "a\\b", "a b", &"a".repeat(129)]
        {
            assert!(Tag::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Commit::parse("c0ffee").is_ok());
        for wrong in ["", "abc", "../../outside", "main", "c0ffee/", &"a".repeat(65)] {
            assert!(Commit::parse(wrong).is_err(), "{wrong}");
        }
        for right in ["model_index.json", "unet/config.json", "vae/a-00001-of-00002.safetensors"] {
            assert!(is_file(right), "{right}");
        }
        for wrong in [
            "",
            "/etc/passwd",
            "../a",
            "a/../b",
            "a/b/c",
            "a//b",
            "a/",
            ".hidden",
            "unet/.json",
            "a\\b",
            "c:a",
            "a\nb",
        ] {
            assert!(!is_file(wrong), "{wrong:?}");
        }
    }

    /// Protects the names of models: valid and invalid ones.
    #[test]
    fn names_of_models() {
        for (text, is) in [
            ("stabilityai/stable-diffusion-xl-base-1.0", true),
            ("models/sdxl", true),
            ("./models", false),
            ("/models/sdxl", false),
            ("../sdxl", false),
            ("~/sdxl", false),
            ("models", false),
            ("a/b/c", false),
            ("a/", false),
            ("a/b c", false),
            ("a\\b/c", false),
            ("a/b..c", false),
            ("a--b/c", false),
        ] {
            assert_eq!(is_model(text), is, "{text}");
        }
    }
}
