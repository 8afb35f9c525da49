//! Recognizes files of another format, given in place of weights, a config or a table.

/// The bytes at a file's start that identify its format.
const START: usize = 512;
/// The offset of tar's signature, and the signature.
const TAR: (usize, &[u8]) = (257, b"ustar");

/// Signatures that no safetensors file and no JSON file begins with, and the formats that begin with them.
const MARKS: &[(&[u8], &str)] = &[
    (b"version https://git-lfs.", "a Git LFS pointer instead of the file: `git lfs pull` fetches it"),
    (b"PK\x03\x04", "a zip archive or PyTorch's pickled weights (.ckpt, .pt, .bin): expected safetensors"),
    (b"\x80\x02", PICKLE),
    (b"\x80\x03", PICKLE),
    (b"\x80\x04", PICKLE),
    (b"\x80\x05", PICKLE),
    (b"\x1f\x8b", "compressed (gzip): unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!\x1a\x07", "a rar archive: unpack it first"),
    (b"BZh", "compressed (bzip2): unpack it first"),
    (b"\xfd7zXZ\x00", "compressed (xz): unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd): unpack it first"),
    (b"GGUF", "GGUF weights: expected safetensors"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 weights: expected safetensors"),
    (b"\x93NUMPY", "a NumPy array: expected safetensors"),
    (b"\x89PNG\r\n\x1a\n", PICTURE),
    (b"\xff\xd8\xff", PICTURE),
    (b"GIF8", PICTURE),
    (b"RIFF", PICTURE),
];
const PICKLE: &str = "PyTorch's pickled weights (.ckpt, .pt, .bin): expected safetensors";
const PICTURE: &str = "a picture";

/// Identifies the format of a file that is not the expected one, by its first bytes, and describes the format and what to do.
/// `None`: the format is unknown or may be the right one.
///
/// A safetensors file begins with its header's length, whose bytes may equal any of these signatures. A file that continues as
/// a safetensors header is accepted.
pub fn wrong_kind(file: &[u8]) -> Option<&'static str> {
    let start = &file[..file.len().min(START)];
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let marked = |mark: &[u8]| start.starts_with(mark);
    match start {
        [_, _, _, _, _, 0, 0, 0, b'{', ..] => None,
        [] => Some("an empty file"),
        _ if start.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) => {
            Some("a tar archive: unpack it first")
        }
        _ if is_page(text) => {
            Some("a web page (HTML) instead of the file: a download that needs a login, or a wrong address")
        }
        _ if start.len() >= 8 && start.iter().all(|b| *b == 0) => {
            Some("zeros alone: a download that did not end")
        }
        _ => MARKS.iter().find(|(mark, _)| marked(mark)).map(|(_, what)| *what),
    }
}

fn is_page(text: &[u8]) -> bool {
    let begins = |with: &[u8]| text.len() >= with.len() && text[..with.len()].eq_ignore_ascii_case(with);
    [&b"<!doctype"[..], b"<html", b"<head", b"<body", b"<script", b"<!--", b"<?xml"]
        .iter()
        .any(|tag| begins(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the messages about common wrong files, and that right files are accepted.
    #[test]
    fn files_are_told_by_their_start() {
        let tar = [&[b'a'; 257][..], b"ustar\0", &[0; 249]].concat();
        for (start, says) in [
            (&b""[..], "empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull"),
            (b"\n\n<!DOCTYPE html><html>", "web page"),
            (b"\xef\xbb\xbf<HTML>", "web page"),
            (b"PK\x03\x04\x00\x00\x08\x08", "pickled"),
            (b"\x80\x02}q\x00", "pickled"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"GGUF\x03\x00\x00\x00", "GGUF"),
            (b"\x89PNG\r\n\x1a\n", "picture"),
            (&[0; 100], "zeros"),
            (&tar, "tar"),
        ] {
            let found = wrong_kind(start).unwrap_or("nothing");
            assert!(found.contains(says), "{:?}: {found}", String::from_utf8_lossy(start));
        }
        for right in [
            &b"{\"a\": 1}"[..],
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00{\"a\"",
            b"\x50\x00\x00\x00\x00\x00\x00\x00{\"a\"",
            b"#version: 0.2\na b\n",
            b"\x80\x02\x00\x00\x00\x00\x00\x00{",
        ] {
            assert_eq!(wrong_kind(right), None, "{:?}", String::from_utf8_lossy(right));
        }
    }
}
