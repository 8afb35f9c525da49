//! The input of a job: fields of the schema are checked; other names are left out, with a warning in the job's log.

use std::sync::LazyLock;

use calotype_request::schema::{self, Schema};
use calotype_request::{PredictInput, Problem, TrainInput};
use serde_json::{Map, Value};

use super::body::short;
use super::refusal::{FieldProblem, Refusal};
use crate::job::{Job, Kind, Status};

/// The field of a body that has the input.
const INPUT: &str = "input";
/// The most warnings of an input.
const MOST_WARNINGS: usize = 20;
/// The most characters of a name that a warning shows. Longer ones are no field's misspelt name.
const SHOWN: usize = 60;

/// The published schemas, of predictions and trainings.
static PUBLISHED: LazyLock<[Schema; 2]> = LazyLock::new(|| [PredictInput::schema(), TrainInput::schema()]);
/// The schema of predictions with all samplers.
static WIDE: LazyLock<Schema> = LazyLock::new(PredictInput::command_line_schema);

/// The published schema of a kind's input.
pub fn schema(kind: Kind) -> &'static Schema {
    match kind {
        Kind::Prediction => &PUBLISHED[0],
        Kind::Training | Kind::Preparation => &PUBLISHED[1],
    }
}

/// The schema of a kind's input with all samplers, as the command line has it.
pub fn wide_schema(kind: Kind) -> &'static Schema {
    match kind {
        Kind::Prediction => &WIDE,
        Kind::Training | Kind::Preparation => schema(kind),
    }
}

/// The field of its input for which a job failed, and what is wrong: the error of such a job begins with the field's name. `None`: the job
/// failed for something else, or did not fail.
pub fn wrong_field(job: &Job) -> Option<(&str, &str)> {
    let (field, problem) = job.error.as_deref().filter(|_| job.status == Status::Failed)?.split_once(": ")?;
    schema(job.made.kind).field(field).is_ok().then_some((field, problem))
}

/// An input whose fields are all of the schema, and valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The fields.
    pub fields: Map<String, Value>,
    /// A line for each field that was left out.
    pub warnings: Vec<String>,
}

/// The input of a body, checked against the published schema.
///
/// # Errors
/// The input is no object, or has invalid fields. The refusal names all of them.
pub fn of_body(kind: Kind, body: &mut Map<String, Value>) -> Result<Checked, Refusal> {
    let schema = schema(kind);
    let given = match body.remove(INPUT) {
        None | Some(Value::Null) => None,
        Some(Value::Object(input)) => Some(input),
        Some(other) => {
            return Err(Refusal::body(INPUT, format!("expected an object, found {}", short(&other))));
        }
    };
    let outside = outside(schema, body, given.is_some());
    let mut checked = check(schema, given.unwrap_or_default())?;
    checked.warnings.extend(outside);
    checked.warnings.truncate(MOST_WARNINGS);
    Ok(checked)
}

/// Checks an input, and leaves out what is no field of the schema.
///
/// # Errors
/// Fields are invalid. The refusal names all of them.
pub fn check(schema: &Schema, mut input: Map<String, Value>) -> Result<Checked, Refusal> {
    let warnings = leave_out(schema, &mut input);
    let mut problems = Vec::new();
    // A check names one field. Without that field it names the next.
    let mut checked = schema::check(schema, input.clone());
    let mut rest = input;
    loop {
        let e = match checked {
            Ok(fields) if problems.is_empty() => return Ok(Checked { fields, warnings }),
            Ok(_) => return Err(Refusal::fields(problems)),
            Err(e) => e,
        };
        let is_missing = e.problem == Problem::Missing;
        // A field that was taken out for its value is not missing.
        if !problems.iter().any(|problem: &FieldProblem| problem.field == e.field) {
            let message = if is_missing { "Field required".into() } else { e.problem.to_string() };
            problems.push(FieldProblem { of_input: true, field: e.field.clone(), message, is_missing });
        }
        if rest.remove(&e.field).is_none() {
            return Err(Refusal::fields(problems));
        }
        checked = schema::check(schema, rest.clone());
    }
}

/// Removes what is no field, as the published service does, and says so.
fn leave_out(schema: &Schema, input: &mut Map<String, Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    input.retain(|name, _| {
        let is_known = has(schema, name);
        if !is_known && warnings.len() < MOST_WARNINGS {
            let what = format!("input.{} is not a field of this model", clean(name));
            let fields = schema.fields().iter().map(|field| field.name.as_str());
            warnings.push(warning(&what, nearest(name, fields)));
        }
        is_known
    });
    warnings
}

/// Warnings about fields of a body that stand beside the input and belong into it, or that have a misspelt input.
fn outside(schema: &Schema, body: &Map<String, Value>, has_input: bool) -> Vec<String> {
    let line = |name: &String| match has(schema, name) {
        true => Some(warning(&format!("{name} is not within input"), Some(&format!("input.{name}")))),
        false => nearest(name, [INPUT].into_iter())
            .filter(|_| !has_input)
            .map(|meant| warning(&format!("{} is not a field of a request", clean(name)), Some(meant))),
    };
    body.keys().filter_map(line).take(MOST_WARNINGS).collect()
}

fn warning(what: &str, meant: Option<&str>) -> String {
    let hint = meant.map(|meant| format!(" Did you mean {meant}?")).unwrap_or_default();
    format!("warning: {what}, and was left out.{hint}")
}

fn has(schema: &Schema, name: &str) -> bool {
    schema.fields().iter().any(|field| field.name == name)
}

/// The most similar of the names. Looks at no name that is longer than a field's.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > SHOWN { None } else { calotype_request::nearest(name, known) }
}

/// The beginning of a name, in one line.
fn clean(name: &str) -> String {
    let line = name.replace(char::is_control, " ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn warnings(kind: Kind, body: Value) -> Vec<String> {
        let mut body = body.as_object().unwrap().clone();
        of_body(kind, &mut body).unwrap().warnings
    }

    /// Protects people who misspell a field: the warning names the field and the likely one; fields that are right get no warning.
    #[test]
    fn fields_that_are_left_out() {
        let left_out =
            |name: &str| format!("warning: input.{name} is not a field of this model, and was left out.");
        for (kind, body, lines) in [
            (
                Kind::Prediction,
                json!({ "input": { "prompt": "a", "seed": 1 }, "webhook": null, "version": "x", "id": "y" }),
                vec![],
            ),
            (
                Kind::Prediction,
                json!({ "input": { "promt": "a" } }),
                vec![left_out("promt") + " Did you mean prompt?"],
            ),
            (
                Kind::Prediction,
                json!({ "input": { "xyz": 1, "widht": 2 } }),
                vec![left_out("xyz"), left_out("widht") + " Did you mean width?"],
            ),
            (
                Kind::Training,
                json!({ "input": { "input_images": "a", "max_steps": 10 }, "destination": "me/fox" }),
                vec![left_out("max_steps") + " Did you mean max_train_steps?"],
            ),
            (
                Kind::Prediction,
                json!({ "prompt": "a", "stream": true }),
                vec![
                    "warning: prompt is not within input, and was left out. Did you mean input.prompt?"
                        .into(),
                ],
            ),
            (
                Kind::Prediction,
                json!({ "inputs": { "prompt": "a" } }),
                vec![
                    "warning: inputs is not a field of a request, and was left out. Did you mean input?"
                        .into(),
                ],
            ),
            (Kind::Prediction, json!({ "input": { "a\nb": 1 } }), vec![left_out("a b")]),
        ] {
            assert_eq!(warnings(kind, body.clone()), lines, "{body}");
        }
    }

    /// Protects the log and the time for it: names that are long, or many, are not shown as a whole.
    #[test]
    fn long_names_and_many() {
        let lines = warnings(Kind::Prediction, json!({ "input": { "x".repeat(1 << 20): 1 } }));
        assert!(lines[0].len() < 200 && lines[0].contains('…'), "{lines:?}");
        let many: Map<String, Value> = (0..1000).map(|number| (format!("x{number}"), json!(1))).collect();
        assert_eq!(warnings(Kind::Prediction, json!({ "input": many })).len(), MOST_WARNINGS);
    }
}
