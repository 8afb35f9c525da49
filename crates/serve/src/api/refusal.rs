//! A request that is refused, and the forms that the APIs give a refusal.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error::Error;

/// Seconds after which a client may come back where the queue is full or something beneath does not answer.
const COME_BACK: u64 = 5;

/// Why a request is refused. Nothing was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: StatusCode,
    /// The field of the input that is wrong, if one is: the first of `problems`.
    pub field: Option<String>,
    /// What is wrong, in one line.
    pub message: String,
    /// Seconds after which the client may come back.
    pub retry_after: Option<u64>,
    /// All fields that are wrong.
    pub problems: Vec<FieldProblem>,
    /// Whether the service has as much to do as it takes, which Cog's API calls a conflict.
    pub is_busy: bool,
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// Whether the field is one of the input; else it is one of the body.
    pub of_input: bool,
    /// The field's name.
    pub field: String,
    /// What is wrong, in one line.
    pub message: String,
    /// Whether the field is required and was not given.
    pub is_missing: bool,
}

/// The APIs, by the form of their errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `{"detail": …}` and `{"error", "status"}`.
    Cog,
    /// `application/problem+json`.
    Replicate,
    /// `{"error": {"message", "type", "code"}}`.
    OpenAi,
}

impl Dialect {
    /// The API that a path belongs to.
    pub fn of_path(path: &str) -> Dialect {
        let under = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match path {
            _ if under("/v1/images") || under("/v1/v1/images") => Dialect::OpenAi,
            _ if under("/v1") => Dialect::Replicate,
            _ => Dialect::Cog,
        }
    }
}

impl Refusal {
    /// A refusal that concerns no field.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        let (message, problems) = (message.into(), Vec::new());
        Refusal { status, field: None, message, retry_after: None, problems, is_busy: false }
    }

    /// Fields of the input, or of the body, are wrong.
    pub fn fields(problems: Vec<FieldProblem>) -> Refusal {
        let name = |field: &str| if field.is_empty() { "body".to_owned() } else { field.to_owned() };
        let lines: Vec<String> =
            problems.iter().map(|p| format!("{}: {}", name(&p.field), p.message)).collect();
        let first = problems.first().map(|problem| problem.field.clone());
        Refusal {
            field: first.filter(|field| !field.is_empty()),
            problems,
            ..Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, lines.join("; "))
        }
    }

    /// A field of the body is wrong.
    pub fn body(field: &str, message: impl Into<String>) -> Refusal {
        let (field, message) = (field.to_owned(), message.into());
        Refusal::fields(vec![FieldProblem { of_input: false, field, message, is_missing: false }])
    }

    /// A field of the input is wrong.
    pub fn input(field: &str, message: impl Into<String>) -> Refusal {
        let (field, message) = (field.to_owned(), message.into());
        Refusal::fields(vec![FieldProblem { of_input: true, field, message, is_missing: false }])
    }

    /// There is no such thing.
    pub fn not_found(what: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, what)
    }

    /// There is no such model, as OpenAI's clients know it.
    pub fn no_model(name: &str) -> Refusal {
        let message = format!("The model `{name}` does not exist; GET /v1/models lists those that do");
        Refusal { field: Some("model".into()), ..Refusal::not_found(message) }
    }

    /// As many jobs wait as may.
    pub fn full() -> Refusal {
        let message = "At capacity: as many jobs wait as may; come back later";
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, message);
        Refusal { retry_after: Some(COME_BACK), is_busy: true, ..refusal }
    }

    /// As many of the caller's jobs wait as may.
    pub fn full_of_caller(most: usize) -> Refusal {
        let message = format!("At capacity: {most} of your jobs wait, and no more may; come back later");
        Refusal { retry_after: Some(COME_BACK), ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// The caller asks too often, and may ask again after some seconds.
    pub fn throttled(seconds: u64) -> Refusal {
        let plural = if seconds == 1 { "" } else { "s" };
        let message = format!("Request was throttled. Expected available in {seconds} second{plural}.");
        Refusal { retry_after: Some(seconds), ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// The service cannot do it now.
    pub fn unavailable(message: impl Into<String>) -> Refusal {
        Refusal { retry_after: Some(COME_BACK), ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// The answer in an API's form.
    pub fn in_dialect(self, dialect: Dialect) -> Response {
        match dialect {
            Dialect::Cog => self.cog(),
            Dialect::Replicate => self.problem(),
            Dialect::OpenAi => self.openai(),
        }
    }

    /// The answer in Cog's form. A full queue is what Cog calls busy: 409.
    pub fn cog(self) -> Response {
        let status = if self.is_busy { StatusCode::CONFLICT } else { self.status };
        let body = match status {
            StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE => {
                json!({ "error": self.message, "status": "failed" })
            }
            StatusCode::NOT_ACCEPTABLE => json!({ "error": self.message }),
            _ if !self.problems.is_empty() => {
                json!({ "detail": self.problems.iter().map(FieldProblem::cog).collect::<Vec<_>>() })
            }
            _ => json!({ "detail": self.message }),
        };
        self.answer(status, "application/json", &body)
    }

    /// The answer in Replicate's form: RFC 9457.
    pub fn problem(self) -> Response {
        let mut body =
            json!({ "title": self.title(), "detail": self.message, "status": self.status.as_u16() });
        if !self.problems.is_empty() {
            let lines = self.problems.iter().map(|p| format!("- {}: {}\n", p.path(), p.message));
            body["detail"] = lines.collect::<String>().into();
            body["invalid_fields"] = self.problems.iter().map(FieldProblem::replicate).collect();
        }
        self.answer(self.status, "application/problem+json", &body)
    }

    /// The answer in OpenAI's form.
    pub fn openai(self) -> Response {
        // Its clients know 400 for a wrong field, and no 422.
        let status = match self.status {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        self.answer(status, "application/json", &json!({ "error": self.openai_error() }))
    }

    /// The error as OpenAI has it.
    pub fn openai_error(&self) -> Value {
        let (kind, code) = match self.status {
            StatusCode::UNAUTHORIZED => ("invalid_request_error", "invalid_api_key"),
            StatusCode::TOO_MANY_REQUESTS => ("requests", "rate_limit_exceeded"),
            StatusCode::NOT_FOUND if self.field.as_deref() == Some("model") => {
                ("invalid_request_error", "model_not_found")
            }
            StatusCode::NOT_FOUND => ("invalid_request_error", "not_found"),
            status if status.is_server_error() => ("server_error", "server_error"),
            _ => ("invalid_request_error", "invalid_value"),
        };
        json!({ "message": self.message, "type": kind, "param": self.field, "code": code })
    }

    fn title(&self) -> &'static str {
        match self.status {
            StatusCode::UNPROCESSABLE_ENTITY if !self.problems.is_empty() => "Input validation failed",
            StatusCode::UNAUTHORIZED => "Unauthenticated",
            StatusCode::TOO_MANY_REQUESTS => "Request was throttled",
            status => status.canonical_reason().unwrap_or("Error"),
        }
    }

    fn answer(&self, status: StatusCode, kind: &'static str, body: &Value) -> Response {
        let mut answer = (status, Json(body)).into_response();
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        answer
    }
}

impl FieldProblem {
    fn path(&self) -> String {
        match self.field.as_str() {
            "" => "body".into(),
            field if self.of_input => format!("input.{field}"),
            field => field.into(),
        }
    }

    /// As FastAPI lists it.
    fn cog(&self) -> Value {
        let mut loc = vec!["body"];
        if self.of_input {
            loc.push("input");
        }
        if !self.field.is_empty() {
            loc.push(&self.field);
        }
        let kind = if self.is_missing { "value_error.missing" } else { "value_error" };
        json!({ "loc": loc, "msg": self.message, "type": kind })
    }

    /// As Replicate lists it.
    fn replicate(&self) -> Value {
        let kind = if self.is_missing { "required" } else { "invalid" };
        json!({ "type": kind, "field": self.path(), "description": self.message })
    }
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Refusal {
        // The log is for the operator, who may see addresses of databases.
        tracing::error!("{e}");
        let what = match e {
            Error::Database(_) => "the service's database does not answer; try again",
            Error::Storage(_) => "the service's storage does not answer; try again",
            Error::Settings(_) => "the service is not ready; try again",
        };
        Refusal::unavailable(what)
    }
}

/// A refusal as Cog's API answers it.
#[derive(Debug)]
pub struct CogRefusal(pub Refusal);

/// A refusal as Replicate's API answers it.
#[derive(Debug)]
pub struct Problem(pub Refusal);

impl<E: Into<Refusal>> From<E> for CogRefusal {
    fn from(e: E) -> CogRefusal {
        CogRefusal(e.into())
    }
}

impl<E: Into<Refusal>> From<E> for Problem {
    fn from(e: E) -> Problem {
        Problem(e.into())
    }
}

impl IntoResponse for CogRefusal {
    fn into_response(self) -> Response {
        self.0.cog()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.0.problem()
    }
}

#[cfg(test)]
mod tests {
    use super::Dialect;

    /// Protects clients' error handling: each API answers in its own form, under both of its prefixes.
    #[test]
    fn the_form_follows_the_path() {
        let table = [
            ("/predictions", Dialect::Cog),
            ("/v10", Dialect::Cog),
            ("/sdapi/v1/txt2img", Dialect::Cog),
            ("/v1/predictions", Dialect::Replicate),
            ("/v1/v1/models", Dialect::Replicate),
            ("/v1/imagesque", Dialect::Replicate),
            ("/v1/images/generations", Dialect::OpenAi),
            ("/v1/v1/images/edits", Dialect::OpenAi),
        ];
        for (path, dialect) in table {
            assert_eq!(Dialect::of_path(path), dialect, "{path}");
        }
    }
}
