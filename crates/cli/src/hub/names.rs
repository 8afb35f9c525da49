//! The names that a hub gives, checked character by character, because each becomes part of a path in the cache.

use std::fmt;

/// The revision of a name without one.
const MAIN: &str = "main";

/// The version of a file, its ETag. It is the file's name in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

/// The version of a model, in lower case.
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
        if fits { Ok(Commit(text.to_ascii_lowercase())) } else { Err(text.to_owned()) }
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

/// A model on a hub, in one of its versions: `owner/name`, or `owner/name@revision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelName<'a> {
    /// `owner/name`.
    pub repo: &'a str,
    /// A branch, a tag, a commit, or `refs/pr/1`.
    pub revision: &'a str,
}

impl<'a> ModelName<'a> {
    /// `None`: this cannot be the name of a model.
    pub fn parse(text: &'a str) -> Option<ModelName<'a>> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, MAIN));
        (is_model(repo) && is_revision(revision)).then_some(ModelName { repo, revision })
    }

    /// The commit, if the revision is one. A commit never changes.
    pub fn commit(&self) -> Option<Commit> {
        Commit::parse(self.revision).ok().filter(|commit| commit.0.len() == 40)
    }
}

impl fmt::Display for ModelName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision {
            MAIN => f.write_str(self.repo),
            revision => write!(f, "{}@{revision}", self.repo),
        }
    }
}

/// Whether this can be the name of a branch or a tag. It becomes a path below `refs/` in the cache.
fn is_revision(text: &str) -> bool {
    text.len() <= 128
        && text.split('/').all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                && !part.contains("..")
        })
}

/// Whether this can be the name of a model on a hub without a revision.
fn is_model(text: &str) -> bool {
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
            assert_eq!(ModelName::parse(text).is_some(), is, "{text}");
        }
    }

    /// Protects revisions: branches, tags, pull requests and commits are told from what would lead out of the cache.
    #[test]
    fn revisions() {
        let parse = |text| ModelName::parse(text).map(|name| (name.repo, name.revision));
        assert_eq!(parse("a/b"), Some(("a/b", "main")));
        assert_eq!(parse("a/b@refs/pr/1"), Some(("a/b", "refs/pr/1")));
        assert_eq!(parse("a/b@v1.0"), Some(("a/b", "v1.0")));
        for wrong in
            ["a/b@", "a/b@..", "a/b@refs/../x", "a/b@/x", "a/b@x/", "a/b@x@y", "a/b@a b", "a/b@.x", "a@b/c"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let name = format!("a/b@{commit}");
        let name = ModelName::parse(&name).expect("a name");
        assert_eq!(name.commit().map(|commit| commit.to_string()).as_deref(), Some(commit));
        assert_eq!(ModelName::parse("a/b@c0ffee").expect("a name").commit(), None);
        assert_eq!(ModelName::parse("a/b@main").expect("a name").to_string(), "a/b");
        assert_eq!(ModelName::parse("a/b@refs/pr/1").expect("a name").to_string(), "a/b@refs/pr/1");
    }
}
