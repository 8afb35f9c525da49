//! Names of archive entries: the paths that are allowed, and their form.

use super::MAX_NAME;
use crate::dataset::DatasetError;

/// The path of an entry inside of the archive, without `.` and empty parts. A backslash separates folders, as in archives of
/// older Windows tools.
///
/// Nothing is written to such a path. A path that leads out is refused all the same: no honest archive has one, and other
/// programs that get this archive may be less careful.
///
/// # Errors
/// The name is absolute, begins with a drive letter, leads out of the archive, is too long or contains NUL.
pub(super) fn inside(name: &str) -> Result<String, DatasetError> {
    let refuse = |found: &str| {
        let problem = format!("expected a path inside of the archive, found {found}");
        Err(DatasetError::entry(name, problem))
    };
    if name.len() as u64 > MAX_NAME {
        return refuse(&format!("one of {} bytes", name.len()));
    }
    let name = &name.replace('\\', "/");
    let mut start = name.chars();
    match (start.next(), start.next()) {
        (Some('/'), _) => return refuse("an absolute path"),
        (Some(letter), Some(':')) if letter.is_ascii_alphabetic() => return refuse("a drive letter"),
        _ => {}
    }
    if name.contains('\0') {
        return refuse("a NUL character");
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    // Some systems remove dots and spaces at the end of a part.
    if parts.iter().any(|part| part.starts_with("..") && part.trim_end_matches([' ', '.']).is_empty()) {
        return refuse("a way out of it");
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects against names that lead out of the archive, in the notation of any system.
    #[test]
    fn names_that_escape_are_refused() {
        for name in [
            "../a.png",
            "a/../../b.png",
            "a/..",
            "/etc/a.png",
            "//host/a.png",
            "C:\\a.png",
            "c:a.png",
            "..\\a.png",
            "a\\..\\..\\b.png",
            "\\\\host\\a.png",
            "a.png\0.txt",
            ".. /a.png",
            "a/.../b.png",
            &"a/".repeat(3000),
        ] {
            let error = inside(name).expect_err(name).to_string();
            assert!(error.contains("expected a path inside of the archive, found "), "{error}");
            assert!(!error.contains('\0'), "{error:?}");
        }
    }

    /// Protects unusual names that stay inside, such as those that `tar cf x.tar .` writes.
    #[test]
    fn names_inside_are_kept() {
        for (name, expected) in [
            ("./a.png", "a.png"),
            ("a//b.png", "a/b.png"),
            ("a..png", "a..png"),
            ("..a/b..", "..a/b.."),
            ("./", ""),
            ("a\\b.png", "a/b.png"),
            (".\\a\\", "a"),
        ] {
            assert_eq!(inside(name).expect(name), expected);
        }
    }
}
