//! A job: a prediction, a training or a preparation, from its creation to its end.
//!
//! The row of a job in the database is the prediction or the training that the APIs show. Times are milliseconds since 1970 by the
//! database's clock.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The field of a training's output that has the URL of weights which were sent to another place.
pub const SENT_WEIGHTS: &str = "weights_url";

/// The kinds of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Pictures from a prompt.
    Prediction,
    /// Weights from pictures.
    Training,
    /// A training's set from its pictures, before the training.
    Preparation,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 3] = [Kind::Prediction, Kind::Training, Kind::Preparation];

    /// The name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Prediction => "prediction",
            Kind::Training => "training",
            Kind::Preparation => "preparation",
        }
    }

    /// The name of several in URLs.
    pub fn names(self) -> &'static str {
        match self {
            Kind::Prediction => "predictions",
            Kind::Training => "trainings",
            Kind::Preparation => "preparations",
        }
    }

    /// The kind of a name. `None`: no kind has the name.
    pub fn of_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The states of a job, by their names in Replicate's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The job waits for a worker.
    Starting,
    /// A worker has the job.
    Processing,
    /// The job has its output.
    Succeeded,
    /// The job has an error.
    Failed,
    /// A user canceled the job.
    Canceled,
}

impl Status {
    /// The name in the database and in the APIs.
    pub fn name(self) -> &'static str {
        match self {
            Status::Starting => "starting",
            Status::Processing => "processing",
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Canceled => "canceled",
        }
    }

    /// The status of a name. `None`: no status has the name.
    pub fn of_name(name: &str) -> Option<Status> {
        use Status::*;
        [Starting, Processing, Succeeded, Failed, Canceled].into_iter().find(|status| status.name() == name)
    }

    /// Whether the job is over.
    pub fn is_over(self) -> bool {
        !matches!(self, Status::Starting | Status::Processing)
    }
}

/// The place of a request in a trace, as W3C's Trace Context has it. Whoever is called on behalf of the request gets both headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The header `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The header `tracestate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl Trace {
    /// The headers of the trace, by name.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let headers = [("traceparent", &self.traceparent), ("tracestate", &self.tracestate)];
        headers.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

/// What a job carries along beside its input. The database keeps it as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The trace of the request that made the job.
    #[serde(flatten)]
    pub trace: Trace,
    /// Where the operator wants outputs of Cog's API to be sent: each file with `PUT` to this URL, a slash and the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_url: Option<String>,
    /// Where the client wants the outputs to be sent: each file as a form with `PUT` to this prefix and the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_file_prefix: Option<String>,
    /// What the client should know of the request. The job's log begins with these lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Context {
    /// The first lines of the job's log, each with its line feed.
    pub fn first_lines(&self) -> String {
        self.warnings.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// A job that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// The id: 26 characters of a-z and 0-9 where the service makes it, any that a Cog client names.
    pub id: String,
    /// The kind.
    pub kind: Kind,
    /// The account that made the job: the name of its token, or `local`.
    pub owner: String,
    /// `owner/name` of the model.
    pub model: String,
    /// The id of the model's version, as the client named it.
    pub version: String,
    /// The input: fields of the schema alone. Files are URLs, as given.
    pub input: Map<String, Value>,
    /// Of a training: `owner/name` of the model that gets the new version.
    pub destination: Option<String>,
    /// The address that is told of the job's events.
    pub webhook: Option<String>,
    /// The events that the webhook is told of: of `start`, `output`, `logs`, `completed`. Empty: all.
    pub webhook_events: Vec<String>,
    /// `api` or `web`.
    pub source: String,
    /// Seconds from its creation after which the job is canceled, if it is not over.
    pub cancel_after: Option<u64>,
    /// What goes along with the job.
    pub context: Context,
}

/// A job as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// As the job was made.
    pub made: NewJob,
    /// The state.
    pub status: Status,
    /// The number of times that workers took the job. Rises only. Names the attempt whose result counts.
    pub attempt: i64,
    /// The lines that the job has logged, each with its line feed.
    pub logs: String,
    /// The output, where it has one: of a prediction an array of storage keys, of the others an object. A file that was sent to
    /// another place has the URL there: a prediction's is an object of `key` and `url`, and a training's output has [`SENT_WEIGHTS`].
    pub output: Option<Value>,
    /// The error, where the job failed.
    pub error: Option<String>,
    /// Measured numbers: `predict_time`, `total_time` (seconds), …
    pub metrics: Map<String, Value>,
    /// What is known on the way: [`Progress`](crate::engine::Progress) and previews as JSON.
    pub progress: Option<Value>,
    /// When the job was made.
    pub created_at: i64,
    /// When a worker took the job for the first time.
    pub started_at: Option<i64>,
    /// When the job ended.
    pub completed_at: Option<i64>,
}

impl Job {
    /// The id.
    pub fn id(&self) -> &str {
        &self.made.id
    }
}
