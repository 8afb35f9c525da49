//! URLs that a folder stands for: without a network, or for what lies on the machine anyway.

use std::path::{Component, Path, PathBuf};

use super::shown;

/// Whether one of the prefixes fits a URL.
pub(super) fn has(maps: &[(String, PathBuf)], url: &str) -> bool {
    maps.iter().any(|(prefix, _)| rest_of(prefix, url).is_some())
}

/// What follows the prefix in a URL. `None`: the prefix is not that of a whole part of the URL.
fn rest_of<'a>(prefix: &str, url: &'a str) -> Option<&'a str> {
    let rest = url.strip_prefix(prefix)?;
    (prefix.ends_with('/') || rest.starts_with('/') || rest.is_empty()).then_some(rest)
}

/// The file of a URL below one of the prefixes. `None`: no prefix fits.
///
/// # Errors
/// A prefix fits, and the folder has no such file, or the file lies outside. The error is one line.
pub(super) fn find(maps: &[(String, PathBuf)], url: &str) -> Result<Option<PathBuf>, String> {
    for (prefix, folder) in maps {
        let Some(rest) = rest_of(prefix, url) else { continue };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let rest = percent_encoding::percent_decode_str(rest).decode_utf8_lossy();
        return below(folder, Path::new(rest.trim_start_matches('/')))
            .map(Some)
            .ok_or_else(|| format!("{}: no such file in the folder that stands for {prefix}", shown(url)));
    }
    Ok(None)
}

/// A file below a folder, whose own path is canonical. `None`: no such file, or a way out of the folder, by `..` or by a link.
fn below(folder: &Path, rest: &Path) -> Option<PathBuf> {
    let is_plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
    let path = folder.join(rest).canonicalize().ok().filter(|_| is_plain)?;
    (path.starts_with(folder) && path.is_file()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::find;

    /// Protects: files below the folder are found by their URLs, and nothing outside of the folder is.
    #[test]
    fn no_way_out_of_the_folder() {
        let outside = tempfile::tempdir().unwrap();
        let outside = outside.path().canonicalize().unwrap();
        let folder = outside.join("in");
        std::fs::create_dir_all(folder.join("a")).unwrap();
        for file in [outside.join("secret"), folder.join("a/b c.png"), folder.join("x.tar")] {
            std::fs::write(file, "x").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(outside.join("secret"), folder.join("link")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&outside, folder.join("up")).unwrap();
        let maps = [
            ("https://x.example/set".to_string(), folder.clone()),
            ("gs://bucket/".to_string(), folder.clone()),
        ];
        let found = |url: &str| find(&maps, url);
        assert_eq!(found("https://x.example/set/a/b%20c.png?v=1"), Ok(Some(folder.join("a/b c.png"))));
        assert_eq!(found("gs://bucket/x.tar"), Ok(Some(folder.join("x.tar"))));
        for other in ["https://x.example/setting/x.tar", "https://y.example/set/x.tar", "gs://bucket2/x.tar"]
        {
            assert_eq!(found(other), Ok(None), "{other}");
        }
        let secret = outside.join("secret").display().to_string();
        let ways_out = [
            "../secret",
            "%2e%2e/secret",
            "a/../../secret",
            "..%2fsecret",
            &secret,
            "link",
            "up/secret",
            "a",
            "",
            "none",
            "a\0b",
        ];
        for way in ways_out {
            let problem = found(&format!("gs://bucket/{way}")).expect_err(way);
            assert!(problem.contains("no such file in the folder"), "{problem}");
        }
    }
}
