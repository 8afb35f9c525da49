//! All files of an input.

use std::borrow::Cow;
use std::path::Path;

use calotype_request::schema::{self, Field, Schema};
use serde_json::{Map, Value};

use super::{InputProblem, Inputs, data_uri};

/// Checks the files that an input names, as far as the input tells: nothing is fetched, and no name is looked up.
///
/// # Errors
/// The first field of which there can be no file, and why, in one line.
pub fn check(inputs: &Inputs, schema: &Schema, input: &Map<String, Value>) -> Result<(), (String, String)> {
    for field in schema.fields() {
        let Some(text) = text_of(field, input) else { continue };
        let checked = match text.is_empty() {
            true if field.is_required() => Err("expected a file, found an empty text".into()),
            true => Ok(()),
            false => urls_of(field, text).iter().try_for_each(|(url, _)| inputs.check(url)),
        };
        checked.map_err(|problem| (field.name.clone(), problem))?;
    }
    Ok(())
}

/// The text of a field that names files. `None`: the field names none, or was not given.
pub(super) fn text_of<'a>(field: &Field, input: &'a Map<String, Value>) -> Option<&'a str> {
    let value = input.get(&field.name).filter(|_| field.is_file() || field.is_files())?;
    value.as_str().map(str::trim)
}

/// Makes local files of all files that an input names: the values of these fields become paths. A field with several files
/// becomes their paths, joined by [`schema::join`], each with its scale. An empty text means that the field was not given.
///
/// # Errors
/// See [`InputProblem`].
pub async fn resolve(
    inputs: &Inputs,
    schema: &Schema,
    input: &Map<String, Value>,
    folder: &Path,
) -> Result<Map<String, Value>, InputProblem> {
    let (mut resolved, pace) = (Map::new(), inputs.pace());
    for (name, value) in input {
        let field = schema.fields().iter().find(|field| &field.name == name);
        let Some((field, text)) = field.and_then(|field| Some((field, text_of(field, input)?))) else {
            resolved.insert(name.clone(), value.clone());
            continue;
        };
        if text.is_empty() {
            continue;
        }
        let mut files = Vec::new();
        for (url, scale) in urls_of(field, text) {
            let path = inputs.fetch(name, &url, folder, &pace).await?;
            files.push(format!("{}{scale}", path.display()));
        }
        resolved.insert(name.clone(), text_with(field, &files).into());
    }
    Ok(resolved)
}

/// The URLs in the text of a field, each with the scale that follows it, or nothing.
pub(super) fn urls_of<'a>(field: &Field, text: &'a str) -> Vec<(Cow<'a, str>, String)> {
    match field.is_files() {
        true => split(text).into_iter().map(|(url, scale)| (url.into(), scale)).collect(),
        false => vec![(text.into(), String::new())],
    }
}

/// The text of a field that names these files: URLs or paths, each with its scale.
pub(super) fn text_with(field: &Field, files: &[String]) -> String {
    if field.is_files() { schema::join(files) } else { files.concat() }
}

/// Splits URLs at the commas between them, and their scales off: `https://x.example/a.tar:0.5,data:…` is
/// `[("https://x.example/a.tar", ":0.5"), ("data:…", "")]`. A comma before anything but a URL belongs to the URL before.
fn split(text: &str) -> Vec<(String, String)> {
    let mut urls: Vec<String> = Vec::new();
    for part in schema::split(text) {
        let part = part.to_string_lossy();
        match urls.last_mut() {
            Some(last) if !begins_url(&part) => {
                last.push(',');
                last.push_str(&part);
            }
            _ => urls.push(part.into_owned()),
        }
    }
    urls.iter().map(|url| with_scale(url)).collect()
}

/// Whether a text begins as a URL does: with a scheme, or with the path of one of our own.
fn begins_url(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    let is_scheme =
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    is_scheme || data_uri::is_data_uri(text) || text.starts_with('/')
}

/// A URL, and `:SCALE` behind it or nothing. The port of a URL without a path is no scale.
fn with_scale(text: &str) -> (String, String) {
    if let Some((url, scale)) = text.rsplit_once(':') {
        let has_path = data_uri::is_data_uri(url) && url.contains(',')
            || url.starts_with('/')
            || url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        if has_path && scale.trim().parse::<f64>().is_ok() {
            return (url.to_string(), format!(":{}", scale.trim()));
        }
    }
    (text.to_string(), String::new())
}

#[cfg(test)]
mod tests {
    use super::split;

    /// Protects: several URLs with their scales, in which commas and colons also have other meanings.
    #[test]
    fn several_urls() {
        let cases: [(&str, &[(&str, &str)]); 9] = [
            ("https://x.example/a.tar", &[("https://x.example/a.tar", "")]),
            (
                "https://x.example/a.tar:0.5, /v1/files/b",
                &[("https://x.example/a.tar", ":0.5"), ("/v1/files/b", "")],
            ),
            ("data:application/x-tar;base64,AAAA", &[("data:application/x-tar;base64,AAAA", "")]),
            (
                "data:;base64,AAAA:-1,data:;base64,BBBB",
                &[("data:;base64,AAAA", ":-1"), ("data:;base64,BBBB", "")],
            ),
            ("http://x.example:8080", &[("http://x.example:8080", "")]),
            ("http://x.example:8080/a:2", &[("http://x.example:8080/a", ":2")]),
            ("https://x.example/a,b.tar:1", &[("https://x.example/a,b.tar", ":1")]),
            ("https://x.example/a\\,b.tar,gs://c/d", &[("https://x.example/a,b.tar", ""), ("gs://c/d", "")]),
            ("/outputs/a?signature=00:0.25", &[("/outputs/a?signature=00", ":0.25")]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> =
                expected.iter().map(|(url, scale)| (url.to_string(), scale.to_string())).collect();
            assert_eq!(split(text), expected, "{text}");
        }
    }
}
