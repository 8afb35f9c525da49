//! The bytes of a picture: of a file, or in a data URI.

use std::fs::File;
use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use calotype_models::shorten;

use crate::error::PictureError;

/// The most bytes of a picture's file, more than an uncompressed picture of the most pixels has.
const MAX_FILE: u64 = 512 << 20;

/// The bytes that `value`, a path or a data URI, stands for, and a name for messages.
pub(super) fn bytes(field: &'static str, value: &str) -> Result<(String, Vec<u8>), PictureError> {
    if let Some(uri) = value.strip_prefix("data:") {
        let bytes = from_uri(uri).map_err(|problem| PictureError::new(field, value, problem))?;
        return Ok((format!("data of {} bytes", bytes.len()), bytes));
    }
    if value.starts_with("http://") || value.starts_with("https://") {
        let problem = "expected a file or a data URI, found an address (fetch the picture first)";
        return Err(PictureError::new(field, value, problem));
    }
    let bytes = from_file(value).map_err(|e| PictureError::new(field, value, e.to_string()))?;
    Ok((value.to_owned(), bytes))
}

fn from_file(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::other("expected a file, found a directory"));
    }
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("expected at most {MAX_FILE} bytes, found more")));
    }
    Ok(bytes)
}

/// The data of a URI without its `data:`, RFC 2397. Only base64 is read, as pictures are never given otherwise.
fn from_uri(uri: &str) -> Result<Vec<u8>, String> {
    let expected = "expected base64, as in data:image/png;base64,…";
    let (kind, data) = uri.split_once(',').ok_or_else(|| format!("{expected}, found no comma"))?;
    if !kind.ends_with(";base64") {
        return Err(format!("{expected}, found {:?}", shorten(kind)));
    }
    let data: String = data.split_ascii_whitespace().collect();
    STANDARD.decode(data).map_err(|e| format!("{expected}, found: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects pictures in a request's text: base64 is decoded, and other URIs are refused by name.
    #[test]
    fn data_uris() {
        let (name, data) = bytes("image", "data:image/png;base64,aGVs bG8=").expect("data");
        assert_eq!((name.as_str(), data.as_slice()), ("data of 5 bytes", b"hello".as_slice()));
        for wrong in ["data:image/png,abc", "data:image/png;base64,!", "data:", "https://example.org/a.png"] {
            let error = bytes("mask", wrong).expect_err(wrong).to_string();
            assert!(error.starts_with("mask: ") && error.contains(": expected "), "{error}");
        }
        assert!(
            bytes("image", "no/such/file")
                .expect_err("none")
                .to_string()
                .starts_with("image: no/such/file: ")
        );
        assert!(bytes("image", ".").expect_err("a folder").to_string().contains("directory"));
    }
}
