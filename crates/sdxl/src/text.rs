//! Text files in the encodings of usual editors.

/// Decodes the text of a file and drops its byte order mark. The encodings are UTF-8 with or without the mark,
/// and UTF-16 with the mark.
///
/// # Errors
/// The offset of the first invalid byte: half a unit at the end of UTF-16, or half a surrogate pair. A NUL is invalid too, as
/// UTF-32 and UTF-16 without a mark contain many; its offset is that in the decoded text.
///
/// # Examples
/// ```
/// use calotype_sdxl::text::decode;
///
/// assert_eq!(decode(b"\xef\xbb\xbfcaf\xc3\xa9").as_deref(), Ok("caf\u{e9}"));
/// assert_eq!(decode(b"\xff\xfea\0b\0").as_deref(), Ok("ab"));
/// assert_eq!(decode(b"caf\xe9"), Err(3));
/// ```
pub fn decode(bytes: &[u8]) -> Result<String, usize> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest).map_err(|at| at + 3)?,
        _ => utf8(bytes)?,
    };
    match text.find('\0') {
        Some(at) => Err(at),
        None => Ok(text),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, usize> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| e.valid_up_to())
}

/// Decodes the text that follows a mark of two bytes.
fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, usize> {
    const MARK: usize = 2;
    let (pairs, odd) = bytes.as_chunks::<2>();
    let (mut text, mut at) = (String::new(), MARK);
    for c in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        let c = c.map_err(|_| at)?;
        at += 2 * c.len_utf16();
        text.push(c);
    }
    if odd.is_empty() { Ok(text) } else { Err(at) }
}

/// The message about a text that [`decode`] refuses at byte `at`.
pub fn problem(at: usize) -> String {
    format!("expected UTF-8, found another encoding at byte {at}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the encodings of usual editors, with their marks, in captions, tables and prompts. An error names the place.
    #[test]
    fn encodings() {
        let units = || "a TOK, café 😀".encode_utf16();
        let le: Vec<u8> = [0xff, 0xfe].into_iter().chain(units().flat_map(u16::to_le_bytes)).collect();
        let be: Vec<u8> = [0xfe, 0xff].into_iter().chain(units().flat_map(u16::to_be_bytes)).collect();
        for bytes in [le.as_slice(), &be, "\u{feff}a TOK, café 😀".as_bytes()] {
            assert_eq!(decode(bytes).as_deref(), Ok("a TOK, café 😀"));
        }
        assert_eq!(decode(b""), Ok(String::new()));
        assert_eq!(decode(b"caf\xe9"), Err(3));
        assert_eq!(decode(b"\xef\xbb\xbfcaf\xe9"), Err(6));
        assert_eq!(decode(b"a\0b\0"), Err(1), "UTF-16 without its mark");
        assert_eq!(decode(b"\xff\xfea\0\0"), Err(4), "half a unit");
        assert_eq!(decode(b"\xff\xfea\0\x3d\xd8"), Err(4), "half a pair");
        assert_eq!(decode(b"\xff\xfe\0\0a\0\0\0"), Err(0), "UTF-32");
    }
}
