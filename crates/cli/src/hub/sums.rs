//! Checksums, which show that a file is the one on the hub.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A hub's checksum of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sum {
    /// That of a large file: its ETag on the hub.
    Sha256(String),
    /// That of a small file: its hash in git. (It protects against damage, not against forgery.)
    Git(String),
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Sum {
    pub fn sha256(text: &str) -> Option<Sum> {
        is_hex(text, 64).then(|| Sum::Sha256(text.to_ascii_lowercase()))
    }

    pub fn git(text: &str) -> Option<Sum> {
        is_hex(text, 40).then(|| Sum::Git(text.to_ascii_lowercase()))
    }

    /// The hex digits of the checksum.
    pub fn text(&self) -> &str {
        match self {
            Sum::Sha256(text) | Sum::Git(text) => text,
        }
    }

    /// Whether a file has this sum.
    pub fn holds(&self, path: &Path) -> io::Result<bool> {
        match self {
            Sum::Sha256(expected) => Ok(sum(path, Context::new(&SHA256))? == *expected),
            Sum::Git(expected) => {
                let sha1 = || Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                let mut git = sha1();
                git.update(format!("blob {}\0", std::fs::metadata(path)?.len()).as_bytes());
                // Some mirrors have the checksum of the bytes alone.
                Ok(sum(path, git)? == *expected || sum(path, sha1())? == *expected)
            }
        }
    }
}

/// The checksum of a file, after the content of `context`.
fn sum(path: &Path, mut context: Context) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; 1 << 18];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => context.update(&piece[..read]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects both checksums: they equal those of sha256sum and git hash-object.
    #[test]
    fn sums_of_a_file() {
        let here = tempfile::tempdir().expect("a directory");
        let path = here.path().join("hello");
        std::fs::write(&path, "hello\n").expect("written");
        for (sum, holds) in [
            (Sum::sha256("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"), true),
            (Sum::sha256("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be04"), false),
            (Sum::git("ce013625030ba8dba906f756967f9e9ca394464a"), true),
            (Sum::git("0e013625030ba8dba906f756967f9e9ca394464a"), false),
        ] {
            assert_eq!(sum.expect("a sum").holds(&path).expect("read"), holds);
        }
        assert_eq!((Sum::git("abc"), Sum::sha256("xyz")), (None, None));
    }
}
