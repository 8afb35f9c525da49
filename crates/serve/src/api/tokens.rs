//! Tokens: who may do what.
//!
//! A file has a line for each token: `NAME RIGHTS HASH`. The hash is the token's SHA-256 in hexadecimal digits; the token itself is in no
//! file. Empty lines, and those that begin with `#`, are skipped.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// What a token allows. Each right has those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// To see jobs, files and models.
    Read,
    /// To make and cancel jobs, and to change models.
    Write,
    /// To end the service.
    Admin,
}

/// Whoever makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name of the token; `local` where the service asks for none.
    pub name: String,
    /// What the caller may do.
    pub rights: Rights,
}

/// The tokens that the service knows. Without a file of tokens nobody is asked for one.
#[derive(Debug, Default)]
pub struct Tokens(Option<Vec<Token>>);

#[derive(Debug)]
struct Token {
    hash: [u8; 32],
    caller: Caller,
}

impl Caller {
    /// The caller where no tokens are asked for.
    pub fn local() -> Caller {
        Caller { name: "local".into(), rights: Rights::Admin }
    }
}

impl Tokens {
    /// Reads a file of tokens. `None`: nobody is asked for one.
    ///
    /// # Errors
    /// The file cannot be read, has no token, or a line that is none.
    pub fn read(path: Option<&Path>) -> Result<Tokens> {
        let Some(path) = path else { return Ok(Tokens(None)) };
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Error::Settings(format!("{shown}: {e}")))?;
        Tokens::parse(&text).map_err(|problem| Error::Settings(format!("{shown}: {problem}")))
    }

    fn parse(text: &str) -> std::result::Result<Tokens, String> {
        let mut tokens = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.is_empty() || words[0].starts_with('#') {
                continue;
            }
            let token = Token::parse(&words).map_err(|problem| format!("line {}: {problem}", number + 1))?;
            tokens.push(token);
        }
        if tokens.is_empty() { Err("expected a token, found none".into()) } else { Ok(Tokens(Some(tokens))) }
    }

    /// Whether the service asks for tokens.
    pub fn are_asked(&self) -> bool {
        self.0.is_some()
    }

    /// Whoever has this token. Takes the same time for each wrong one.
    pub fn find(&self, token: &str) -> Option<Caller> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for known in self.0.iter().flatten() {
            if is_same(&known.hash, &hash) {
                found = Some(known.caller.clone());
            }
        }
        found
    }
}

impl Token {
    fn parse(words: &[&str]) -> std::result::Result<Token, String> {
        let [name, rights, hash] = words else {
            return Err(format!("expected NAME RIGHTS HASH, found {} words", words.len()));
        };
        let rights = match *rights {
            "read" => Rights::Read,
            "write" => Rights::Write,
            "admin" => Rights::Admin,
            other => return Err(format!("expected read, write or admin, found {other:?}")),
        };
        let hash = digits(hash)
            .ok_or("expected a SHA-256 of 64 hexadecimal digits, as `calotype token` prints it")?;
        Ok(Token { hash, caller: Caller { name: (*name).into(), rights } })
    }
}

fn digits(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    // `from_str_radix` takes a sign too.
    text.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(bytes)
}

/// Compares without stopping at the first difference.
fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let difference = one.iter().zip(other).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(token: &str) -> String {
        Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Protects accounts: a token opens its own, and nothing else does, least of all its hash.
    #[test]
    fn a_token_is_known_by_its_hash() {
        let text =
            format!("# ours\nana read {}\n\n  bo admin {}  \n", hash("one"), hash("two").to_uppercase());
        let tokens = Tokens::parse(&text).unwrap();
        assert_eq!(tokens.find("one"), Some(Caller { name: "ana".into(), rights: Rights::Read }));
        assert_eq!(tokens.find("two").map(|caller| caller.rights), Some(Rights::Admin));
        for wrong in ["", "on", "one ", "One", &hash("one")] {
            assert_eq!(tokens.find(wrong), None, "{wrong:?}");
        }
        assert!(!Tokens::default().are_asked());
    }

    /// Protects operators: a file with a mistake opens nothing, and the message names the line.
    #[test]
    fn files_with_mistakes() {
        let good = hash("x");
        for (text, problem) in [
            ("", "expected a token, found none"),
            ("a read", "line 1: expected NAME RIGHTS HASH, found 2 words"),
            (&format!("\na all {good}"), "line 2: expected read, write or admin, found \"all\""),
            (&format!("a read {}", &good[1..]), "line 1: expected a SHA-256 of 64"),
            (&format!("a read +{}", &good[1..]), "line 1: expected a SHA-256 of 64"),
            (&format!("a read {}", "é".repeat(32)), "line 1: expected a SHA-256 of 64"),
        ] {
            let found = Tokens::parse(text).unwrap_err();
            assert!(found.starts_with(problem), "{text:?}: {found}");
        }
    }
}
