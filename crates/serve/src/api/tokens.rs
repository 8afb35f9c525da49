//! Tokens: who may do what.
//!
//! A file has a line for each token: `NAME RIGHTS HASH [requests=N/s|m|h] [waiting=N]`. The hash is the token's SHA-256 in hexadecimal digits;
//! the token itself is in no file. `requests` and `waiting` are limits. Empty lines, and those that begin with `#`, are skipped.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::limits::{Bucket, Limits};
use crate::error::{Error, Result};
use crate::job::Trace;

/// What a message says of lines. The line that is wrong is not shown: it may have the token itself.
const EXPECTED: &str = "`calotype token NAME` prints such a line: NAME read|write|admin SHA-256-OF-THE-TOKEN";

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
#[derive(Debug, Clone)]
pub struct Caller {
    /// The name of the token; `local` where the service asks for none.
    pub name: String,
    /// What the caller may do.
    pub rights: Rights,
    /// What the caller may ask for at most.
    pub limits: Arc<Limits>,
    /// The trace that the request belongs to.
    pub trace: Trace,
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
        Caller {
            name: "local".into(),
            rights: Rights::Admin,
            limits: Arc::default(),
            trace: Trace::default(),
        }
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
            let expected = |problem| format!("line {}: {problem} ({EXPECTED})", number + 1);
            let token = Token::parse(&words).map_err(expected)?;
            tokens.push(token);
        }
        match tokens.is_empty() {
            true => Err(format!("expected a token, found none ({EXPECTED})")),
            false => Ok(Tokens(Some(tokens))),
        }
    }

    /// Whether the service asks for tokens.
    pub fn are_asked(&self) -> bool {
        self.0.is_some()
    }

    /// The most jobs of an owner that may wait: of its tokens, the one that allows the most. `None`: as many as the queue takes.
    pub fn most_waiting(&self, owner: &str) -> Option<usize> {
        let own = self.0.iter().flatten().filter(|token| token.caller.name == owner);
        let limits: Vec<Option<usize>> = own.map(|token| token.caller.limits.waiting).collect();
        // A token without a limit is above all numbers.
        if limits.contains(&None) { None } else { limits.into_iter().flatten().max() }
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
        let [name, rights, hash, limits @ ..] = words else {
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
        let limits = Arc::new(parse_limits(limits)?);
        Ok(Token { hash, caller: Caller { name: (*name).into(), rights, limits, trace: Trace::default() } })
    }
}

/// The limits at the end of a line: `requests=600/m`, `waiting=10`.
fn parse_limits(words: &[&str]) -> std::result::Result<Limits, String> {
    let mut limits = Limits::default();
    for word in words {
        let is_new = match word.split_once('=') {
            Some(("requests", rate)) => {
                let rate = rate.parse().map_err(|problem| format!("requests: {problem}"))?;
                limits.requests.replace(Bucket::new(rate)).is_none()
            }
            Some(("waiting", jobs)) => {
                let number = jobs.parse::<usize>().ok().filter(|number| *number > 0);
                let number = number.ok_or_else(|| {
                    format!("waiting: expected a number of jobs, at least 1, found {jobs:?}")
                })?;
                limits.waiting.replace(number).is_none()
            }
            _ => return Err(format!("expected requests=N/m or waiting=N, found {word:?}")),
        };
        if !is_new {
            return Err(format!("expected each limit once, found {word:?} beside another"));
        }
    }
    Ok(limits)
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
        let one = tokens.find("one").unwrap();
        assert_eq!((one.name.as_str(), one.rights), ("ana", Rights::Read));
        assert_eq!(tokens.find("two").map(|caller| caller.rights), Some(Rights::Admin));
        for wrong in ["", "on", "one ", "One", &hash("one")] {
            assert!(tokens.find(wrong).is_none(), "{wrong:?}");
        }
        assert!(!Tokens::default().are_asked());
    }

    /// Protects operators: a file with a mistake opens nothing, and the message names the line.
    #[test]
    fn files_with_mistakes() {
        let good = hash("x");
        for (text, problem) in [
            ("", "expected a token, found none"),
            (
                "token x",
                "line 1: expected NAME RIGHTS HASH, found 2 words (`calotype token NAME` prints such a line: NAME read|write|",
            ),
            (&format!("\na all {good}"), "line 2: expected read, write or admin, found \"all\""),
            (&format!("a read {}", &good[1..]), "line 1: expected a SHA-256 of 64"),
            (&format!("a read +{}", &good[1..]), "line 1: expected a SHA-256 of 64"),
            (&format!("a read {}", "é".repeat(32)), "line 1: expected a SHA-256 of 64"),
            (&format!("a read {good} fast"), "line 1: expected requests=N/m or waiting=N, found \"fast\""),
            (&format!("a read {good} requests=5"), "line 1: requests: expected a number of requests"),
            (&format!("a read {good} waiting=0"), "line 1: waiting: expected a number of jobs, at least 1"),
            (&format!("a read {good} waiting=1 waiting=2"), "line 1: expected each limit once"),
        ] {
            let found = Tokens::parse(text).unwrap_err();
            assert!(found.starts_with(problem), "{text:?}: {found}");
        }
    }
}
