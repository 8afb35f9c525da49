//! Texts of a set: their encoding, and captions in one line.

/// The most that is read of a text or a table, in bytes.
pub(super) const MAX_TEXT: u64 = 16 << 20;

/// A file's text without its byte order mark: UTF-8, or UTF-16 with the mark. Else the first byte that is neither.
pub(super) fn decode(bytes: &[u8]) -> Result<String, usize> {
    let utf16 = match bytes {
        [0xff, 0xfe, rest @ ..] => Some((rest, u16::from_le_bytes as fn([u8; 2]) -> u16)),
        [0xfe, 0xff, rest @ ..] => Some((rest, u16::from_be_bytes as fn([u8; 2]) -> u16)),
        _ => None,
    };
    let text = match utf16 {
        None => std::str::from_utf8(bytes).map_err(|e| e.valid_up_to())?.to_owned(),
        Some((rest, unit)) => {
            let (pairs, odd) = rest.as_chunks::<2>();
            let text: String = char::decode_utf16(pairs.iter().map(|pair| unit(*pair)))
                .collect::<Result<_, _>>()
                .map_err(|_| 2_usize)?;
            if odd.is_empty() { text } else { return Err(bytes.len() - 1) }
        }
    };
    // UTF-16 without its mark, or UTF-32.
    match text.find('\0') {
        Some(at) => Err(at),
        None => Ok(text.trim_start_matches('\u{feff}').to_owned()),
    }
}

/// What is wrong with a text that [`decode`] does not take.
pub(super) fn encoding(at: usize) -> String {
    format!("expected UTF-8, found another encoding at byte {at}")
}

/// A caption in one line: runs of white space and control characters are one space, none at the ends.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: the encodings of usual editors are read with their marks; what is none of them says where.
    #[test]
    fn encodings() {
        let units = || "a TOK, café 😀".encode_utf16();
        let le: Vec<u8> = [0xff, 0xfe].into_iter().chain(units().flat_map(u16::to_le_bytes)).collect();
        let be: Vec<u8> = [0xfe, 0xff].into_iter().chain(units().flat_map(u16::to_be_bytes)).collect();
        for bytes in [le.as_slice(), &be, "\u{feff}a TOK, café 😀".as_bytes()] {
            assert_eq!(decode(bytes).as_deref(), Ok("a TOK, café 😀"));
        }
        assert_eq!(decode(b"caf\xe9"), Err(3));
        assert_eq!(decode(b"a\0b\0"), Err(1), "UTF-16 without its mark");
        assert_eq!(decode(b"\xff\xfea\0\0"), Err(4), "half a character");
        assert_eq!(decode(b"\xff\xfe\0\0a\0\0\0"), Err(0), "UTF-32");
    }
}
