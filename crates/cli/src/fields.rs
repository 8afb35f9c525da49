//! The fields of a request on the command line: `--field-name value`, `-i field_name=value` and `-i field_name=@file`. All are
//! derived from the request's schema.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use calotype_request::schema::{self, Field, FieldType, Schema};
use calotype_request::{InputError, Problem};
use calotype_sdxl::text;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::plans;

const PAIRS: &str = "input";
/// The most bytes of a text file: twice those of a text, because UTF-16 may need as many.
const MAX_FILE: u64 = 2 * schema::MAX_TEXT as u64 + 2;

/// Adds `-i` and a flag for every field of `schema` to `command`.
pub fn options(command: Command, schema: &Schema) -> Command {
    let pairs = Arg::new(PAIRS)
        .short('i')
        .long("input")
        .value_name("FIELD=VALUE")
        .action(ArgAction::Append)
        .help("Set a field; FIELD=@PATH takes its text, or the file that it names, from PATH");
    schema.fields().iter().fold(command.arg(pairs), |command, field| command.arg(flag(field)))
}

fn flag(field: &Field) -> Arg {
    let flag =
        Arg::new(id(field)).long(field.name.replace('_', "-")).help_heading("Fields").help(help(field));
    match field.kind() {
        FieldType::Integer => flag.value_name("N").allow_negative_numbers(true),
        FieldType::Number => flag.value_name("NUMBER").allow_negative_numbers(true),
        FieldType::Boolean => flag.value_name("BOOL").num_args(0..=1).default_missing_value("true"),
        FieldType::Text if field.is_file() => flag.value_name("FILE"),
        FieldType::Text if field.is_files() => flag.value_name("FILE").action(ArgAction::Append),
        FieldType::Text => flag.value_name("TEXT"),
    }
}

/// The id of a field's flag, distinct from those of the command's own options.
fn id(field: &Field) -> String {
    format!("field {}", field.name)
}

fn help(field: &Field) -> String {
    let default = match field.default() {
        Some(Value::String(text)) if text.is_empty() => String::new(),
        Some(Value::String(text)) => format!(" [default: {text}]"),
        Some(value) => format!(" [default: {value}]"),
        None => String::new(),
    };
    let takes = match field.expects() {
        what if ["text", "a file", "true or false"].contains(&what.as_str()) => String::new(),
        what => format!(" ({what})"),
    };
    let description = field.description().trim_end_matches('.');
    let addition = field.addition().map(|more| format!(". {more}")).unwrap_or_default();
    format!("{description}{addition}{takes}{default}")
}

/// The request's JSON object: the fields that were given on the command line, and no others.
///
/// # Errors
/// A field is unknown or given twice, text is not of the field's type, or a file cannot be read.
pub fn given(schema: &Schema, matches: &ArgMatches) -> Result<Map<String, Value>, Failure> {
    let mut given = Map::new();
    let mut set = |field: &Field, value: Value| match given.insert(field.name.clone(), value) {
        // Several files may also be given by several flags.
        Some(earlier) if field.is_files() => {
            let both = [&earlier, &given[&field.name]].map(|files| files.as_str().unwrap_or_default());
            let both = schema::join(&both.map(schema::split).concat());
            given.insert(field.name.clone(), Value::String(both));
            Ok(())
        }
        Some(_) => Err(InputError::new(&field.name, Problem::Twice)),
        None => Ok(()),
    };
    for pair in matches.get_many::<String>(PAIRS).into_iter().flatten() {
        let Some((name, text)) = pair.split_once('=') else {
            let pair = pair.replace(char::is_control, " "); // a terminal would obey them
            return Err(Failure::BadInput(format!("-i {pair}: expected FIELD=VALUE")));
        };
        let field = schema.field(name)?;
        set(field, pair_value(field, text)?)?;
    }
    for field in schema.fields() {
        for text in matches.get_many::<String>(&id(field)).into_iter().flatten() {
            set(field, flag_value(field, text)?)?;
        }
    }
    // Other programs use −1 for a random seed, which is the default here.
    if given.get("seed").and_then(Value::as_i64) == Some(-1) {
        given.remove("seed");
    }
    Ok(given)
}

/// The value of a file's field, of a path with or without `@`.
///
/// # Errors
/// Nothing is there, or something that the field does not take.
pub fn path(field: &Field, text: &str) -> Result<Value, InputError> {
    flag_value(field, text)
}

/// The files of `-i field=@file`, each with the name of its field.
pub fn files_read(matches: &ArgMatches) -> Vec<(&str, &Path)> {
    let pairs = matches.get_many::<String>(PAIRS).into_iter().flatten();
    pairs.filter_map(|pair| pair.split_once("=@").map(|(name, path)| (name, Path::new(path)))).collect()
}

/// Whether the field `verbose` of a training asks for more output on stderr.
pub fn verbose(matches: &ArgMatches) -> bool {
    let true_in = |text: &str| text.eq_ignore_ascii_case("true");
    let flag = matches.try_get_many::<String>("field verbose").ok().flatten();
    let pairs = matches.try_get_many::<String>(PAIRS).ok().flatten();
    flag.into_iter().flatten().any(|text| true_in(text))
        || pairs.into_iter().flatten().any(|pair| pair.strip_prefix("verbose=").is_some_and(true_in))
}

/// The value of `-i field=text`. `@path` means the content of a file, or in a file's field, the file.
fn pair_value(field: &Field, text: &str) -> Result<Value, InputError> {
    if field.is_files() {
        return files(field, text);
    }
    match text.strip_prefix('@') {
        Some(path) if field.is_file() => file(field, path),
        Some(path) => {
            let contents = text_file(path).map_err(|e| unusable(field, path, &e))?;
            field.parse(contents.strip_suffix('\n').map_or(&*contents, |c| c.strip_suffix('\r').unwrap_or(c)))
        }
        None => field.parse(text),
    }
}

/// Reads a text file: UTF-8 with or without a byte order mark, or UTF-16 with one. The mark is removed.
fn text_file(path: &str) -> io::Result<String> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(wrong(format!("expected a text of at most {MAX_FILE} bytes, found more")));
    }
    text::decode(&bytes).map_err(|at| wrong(text::problem(at)))
}

/// The value of `--field text`. The text is literal, except that a file's field takes a path with or without `@`.
fn flag_value(field: &Field, text: &str) -> Result<Value, InputError> {
    if field.is_files() {
        return files(field, text);
    }
    match text.strip_prefix('@').filter(|_| field.is_file()) {
        Some(path) => file(field, path),
        None => field.parse(text),
    }
}

/// Files and folders, separated by commas, each with or without `@` before its name, and a scale after it.
fn files(field: &Field, text: &str) -> Result<Value, InputError> {
    let name = |path: PathBuf| {
        let text = path.to_string_lossy();
        let path = text.strip_prefix('@').unwrap_or(&text);
        let (file, _) = plans::weights_file(Path::new(path));
        fs::metadata(&file)
            .map(|_| path.to_string())
            .map_err(|e| unusable(field, &file.to_string_lossy(), &e))
    };
    let names = schema::split(text).into_iter().map(name).collect::<Result<Vec<_>, _>>()?;
    Ok(Value::String(schema::join(&names)))
}

fn file(field: &Field, path: &str) -> Result<Value, InputError> {
    match fs::metadata(Path::new(path)) {
        Ok(found) if found.is_dir() && !field.may_be_folder() => {
            let problem =
                Problem::File { path: path.into(), reason: "expected a file, found a directory".into() };
            Err(InputError::new(&field.name, problem))
        }
        Ok(_) => Ok(Value::String(path.into())),
        Err(e) => Err(unusable(field, path, &e)),
    }
}

fn unusable(field: &Field, path: &str, e: &io::Error) -> InputError {
    let path = if path.is_empty() { "@" } else { path };
    InputError::new(&field.name, Problem::File { path: path.into(), reason: e.to_string() })
}
