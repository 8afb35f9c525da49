//! Requests as arguments of the command line.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use calotype_request::schema::{Field, FieldType, Schema};
use calotype_serve::engine::EngineError;
use serde_json::{Map, Value};

/// The arguments for the fields of `schema` that `input` has. Their texts go into files in the folder `texts`.
///
/// # Errors
/// A file cannot be written.
pub fn fields(schema: &Schema, input: &Map<String, Value>, texts: &Path) -> io::Result<Vec<OsString>> {
    let mut args = Vec::new();
    for field in schema.fields() {
        if let Some(value) = input.get(&field.name).filter(|value| !value.is_null()) {
            args.extend(arg(field, value, texts)?);
        }
    }
    Ok(args)
}

/// Refuses texts with a character that no text file has.
///
/// # Errors
/// The first field with one.
pub fn check_texts(input: &Map<String, Value>) -> Result<(), EngineError> {
    let has_null = |value: &Value| value.as_str().is_some_and(|text| text.contains('\0'));
    match input.iter().find(|(_, value)| has_null(value)) {
        Some((field, _)) => {
            let problem = "expected a text without the character U+0000, found one with it".into();
            Err(EngineError::Input { field: field.clone(), problem })
        }
        None => Ok(()),
    }
}

/// The arguments for a field. A text goes by way of a file, which may be as long as any text and have any characters.
fn arg(field: &Field, value: &Value, texts: &Path) -> io::Result<Vec<OsString>> {
    let flag = |value: &str| vec![OsString::from(format!("--{}={value}", field.name.replace('_', "-")))];
    match (field.kind(), value) {
        (FieldType::Text, Value::String(text)) if field.is_file() => Ok(flag(text)),
        (FieldType::Text, Value::String(text)) => {
            let path = texts.join(&field.name);
            // The mark and the line's end are taken off again.
            fs::write(&path, format!("\u{feff}{text}\r\n"))?;
            Ok(vec!["-i".into(), format!("{}=@{}", field.name, path.display()).into()])
        }
        (_, value) => Ok(flag(&value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use calotype_request::TrainInput;
    use serde_json::json;

    use super::*;

    /// Protects the files of the worker's machine: a text that looks like the name of a file stays a text, whatever is in it; the
    /// command line reads it as it was.
    #[test]
    fn texts_stay_texts() {
        let here = tempfile::tempdir().expect("a folder");
        let schema = TrainInput::command_line_schema();
        let texts = ["@/etc/passwd", "", "-x", "a\r", "a\n", "\u{feff}a", "猫"];
        for text in texts.into_iter().map(String::from).chain(["long ".repeat(10_000)]) {
            let field = schema.field("caption_prefix").expect("a field");
            let args = arg(field, &json!(text), here.path()).expect("written");
            let command = crate::fields::options(clap::Command::new("train"), &schema);
            let matches =
                command.try_get_matches_from([vec!["train".into()], args].concat()).expect("arguments");
            let given = crate::fields::given(&schema, &matches).expect("read");
            assert_eq!(given["caption_prefix"], json!(text));
        }
        let input = json!({ "caption_prefix": "a\0b" });
        let refused = check_texts(input.as_object().expect("an object")).expect_err("refused");
        assert!(refused.to_string().starts_with("caption_prefix: expected "), "{refused}");
    }
}
