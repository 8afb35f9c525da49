//! Files within a request's text: `data:image/png;base64,…`.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Standard base64, with padding or without, and with bits behind the last byte: what clients really send.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// [`LENIENT`] in the alphabet of URLs.
const LENIENT_OF_URLS: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The characters of base64 that are checked at once: whole groups of four.
const PIECE: usize = 64 << 10;

/// A file out of a data URI.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Data {
    /// The media type in lower case, without parameters.
    pub kind: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// Whether a text is a data URI.
pub(crate) fn is_data_uri(text: &str) -> bool {
    text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

/// The parts of a data URI.
struct Parts<'a> {
    kind: String,
    is_base64: bool,
    /// With percent-encoded characters, and in base64 if it `is_base64`.
    content: &'a str,
}

/// Splits a data URI whose content is at most `most` bytes.
fn split(text: &str, most: u64) -> Result<Parts<'_>, String> {
    let rest = text.get(5..).filter(|_| is_data_uri(text)).ok_or("expected a data URI")?;
    let (head, content) = rest.split_once(',').ok_or("a data URI without a comma before its content")?;
    let mut parameters = head.split(';').map(str::trim);
    let kind = parameters.next().unwrap_or_default().to_ascii_lowercase();
    let is_base64 = parameters.any(|parameter| parameter.eq_ignore_ascii_case("base64"));
    // Before anything is decoded: a byte is at most four characters, with each character of base64 percent-encoded.
    if content.len() as u64 / 4 > most {
        return Err(too_large(most));
    }
    Ok(Parts { kind, is_base64, content })
}

fn too_large(most: u64) -> String {
    format!("a data URI of more than {most} bytes")
}

/// Reads a data URI of at most `most` bytes.
///
/// # Errors
/// The text is not a data URI, or contains more bytes. The error is one line.
pub(crate) fn read(text: &str, most: u64) -> Result<Data, String> {
    let Parts { kind, is_base64, content } = split(text, most)?;
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(content).collect();
    let bytes = if is_base64 { decode(bytes)? } else { bytes };
    if bytes.len() as u64 > most { Err(too_large(most)) } else { Ok(Data { kind, bytes }) }
}

/// Checks a data URI as [`read`] does, a piece at a time: the content is never in memory as a whole.
///
/// # Errors
/// As [`read`].
pub(crate) fn check(text: &str, most: u64) -> Result<(), String> {
    let Parts { is_base64, content, .. } = split(text, most)?;
    let decoded = percent_encoding::percent_decode_str(content);
    let size = if is_base64 {
        let of_urls = decoded.clone().any(is_of_urls);
        let mut rest = decoded.filter(|byte| !byte.is_ascii_whitespace());
        let (mut piece, mut bytes, mut size) = (Vec::with_capacity(PIECE), Vec::new(), 0);
        loop {
            piece.clear();
            bytes.clear();
            piece.extend(rest.by_ref().take(PIECE));
            if piece.is_empty() {
                break size;
            }
            engine(of_urls).decode_vec(&piece, &mut bytes).map_err(|_| "not valid base64")?;
            size += bytes.len();
        }
    } else {
        decoded.count()
    };
    if size as u64 > most { Err(too_large(most)) } else { Ok(()) }
}

/// Decodes base64, in which line breaks and spaces are of no meaning.
pub(crate) fn decode(mut text: Vec<u8>) -> Result<Vec<u8>, String> {
    text.retain(|byte| !byte.is_ascii_whitespace());
    let of_urls = text.iter().copied().any(is_of_urls);
    engine(of_urls).decode(text).map_err(|e| format!("not valid base64: {e}"))
}

/// Whether a character is in the alphabet of URLs alone.
fn is_of_urls(byte: u8) -> bool {
    matches!(byte, b'-' | b'_')
}

fn engine(of_urls: bool) -> GeneralPurpose {
    if of_urls { LENIENT_OF_URLS } else { LENIENT }
}

/// The extension of files of a media type.
pub(crate) fn extension(kind: &str) -> &'static str {
    match kind {
        "image/png" => "png",
        "image/jpeg" | "image/jpg" => "jpg",
        "image/webp" => "webp",
        "image/gif" => "gif",
        "image/bmp" => "bmp",
        "image/tiff" => "tif",
        "application/zip" | "application/x-zip-compressed" => "zip",
        "application/x-tar" => "tar",
        _ => "bin",
    }
}

#[cfg(test)]
mod tests {
    use super::{PIECE, check, read};

    /// Protects: the data URIs that browsers and clients make are read, in all spellings of RFC 2397.
    #[test]
    fn data_uris() {
        let cases = [
            ("data:image/png;base64,AQID", "image/png", vec![1, 2, 3]),
            ("DATA:image/PNG;name=x.png;BASE64,AQ==", "image/png", vec![1]),
            ("data:;base64,AQ", "", vec![1]),
            ("data:;base64,AQ%3D%3D", "", vec![1]),
            ("data:;base64,A Q\nI D", "", vec![1, 2, 3]),
            ("data:;base64,-_8=", "", vec![0xfb, 0xff]),
            ("data:,a%20b,c", "", b"a b,c".to_vec()),
            ("data:application/octet-stream;base64,", "application/octet-stream", vec![]),
        ];
        for (text, kind, bytes) in cases {
            let data = read(text, 5).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((data.kind.as_str(), data.bytes), (kind, bytes), "{text}");
            assert_eq!(check(text, 5), Ok(()), "{text}");
        }
    }

    /// Protects: what is not a data URI, or too large, is refused with a reason.
    #[test]
    fn bad_data_uris() {
        let cases = [
            ("data:image/png;base64", "without a comma"),
            ("data:;base64,A", "not valid base64"),
            ("data:;base64,AQ!D", "not valid base64"),
            ("data:;base64,AQIDBAUG", "more than 5 bytes"),
            ("data:,abcdef", "more than 5 bytes"),
            ("dat", "expected a data URI"),
            ("datä:,", "expected a data URI"),
        ];
        for (text, reason) in cases {
            let problem = read(text, 5).unwrap_err();
            assert!(problem.contains(reason), "{text}: {problem}");
            let problem = check(text, 5).unwrap_err();
            assert!(problem.contains(reason), "{text}: {problem}");
        }
    }

    /// Protects: a content of several pieces is checked to its end.
    #[test]
    fn long_data_uris() {
        let text = format!("data:;base64,{}", "AAAA".repeat(PIECE));
        assert_eq!(check(&text, 3 * PIECE as u64), Ok(()));
        assert!(check(&text, 3 * PIECE as u64 - 1).unwrap_err().contains("more than"));
        assert!(check(&format!("{text}!"), 1 << 20).unwrap_err().contains("not valid base64"));
    }
}
