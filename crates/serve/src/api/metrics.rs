//! Numbers for Prometheus.

use std::collections::VecDeque;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;

use crate::job::{Job, Kind};
use crate::queue::{Counts, Queue};

/// Jobs that ended last, so that none is counted twice.
const REMEMBERED: usize = 1000;

/// The numbers of this process.
pub struct Metrics {
    registry: Registry,
    database_up: Gauge,
    waiting: Family<KindLabel, Gauge>,
    ended: Family<JobLabels, Counter>,
    predict_time: Family<KindLabel, Histogram, fn() -> Histogram>,
    total_time: Family<KindLabel, Histogram, fn() -> Histogram>,
    running: Family<KindLabel, Gauge>,
    requests: Family<RequestLabels, Counter>,
    request_time: Family<RouteLabel, Histogram, fn() -> Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    kind: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

/// From half a second to some hours.
fn of_jobs() -> Histogram {
    Histogram::new([
        0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10800.0, 36000.0,
    ])
}

/// From a millisecond to a minute.
fn of_requests() -> Histogram {
    Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0])
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("calotype");
        let database_up = Gauge::default();
        let help =
            "Whether the database answers: 1, or 0, and then there are no numbers of jobs that wait or run";
        registry.register("database_up", help, database_up.clone());
        let waiting = Family::default();
        let running = Family::default();
        let ended = Family::default();
        let predict_time = Family::new_with_constructor(of_jobs as fn() -> Histogram);
        let total_time = Family::new_with_constructor(of_jobs as fn() -> Histogram);
        let requests = Family::default();
        let request_time = Family::new_with_constructor(of_requests as fn() -> Histogram);
        registry.register("jobs_waiting", "Jobs that wait for a worker", Family::clone(&waiting));
        registry.register("jobs_running", "Jobs that a worker has", Family::clone(&running));
        registry.register(
            "jobs_ended",
            "Jobs that are over, since this process began",
            Family::clone(&ended),
        );
        let help = "The time that a job has computed";
        registry.register_with_unit("job_compute", help, Unit::Seconds, Family::clone(&predict_time));
        let help = "The time from a job's creation to its end";
        registry.register_with_unit("job_total", help, Unit::Seconds, Family::clone(&total_time));
        registry.register("http_requests", "Requests that were answered", Family::clone(&requests));
        let help = "The time until an answer begins";
        registry.register_with_unit("http_request", help, Unit::Seconds, Family::clone(&request_time));
        Metrics {
            registry,
            database_up,
            waiting,
            running,
            ended,
            predict_time,
            total_time,
            requests,
            request_time,
        }
    }
}

impl Metrics {
    /// Counts a request that was answered. `route` is the pattern of its path.
    pub fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"];
        // Clients may invent methods; each would be a series of its own.
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        self.requests.get_or_create(&RequestLabels { method, route: route.into(), status }).inc();
        self.request_time.get_or_create(&RouteLabel { route: route.into() }).observe(took.as_secs_f64());
    }

    /// Counts a job that is over.
    fn ended(&self, job: &Job) {
        let kind = job.made.kind.name();
        self.ended.get_or_create(&JobLabels { kind, status: job.status.name() }).inc();
        for (name, times) in [("predict_time", &self.predict_time), ("total_time", &self.total_time)] {
            if let Some(seconds) = job.metrics.get(name).and_then(Value::as_f64) {
                times.get_or_create(&KindLabel { kind }).observe(seconds);
            }
        }
    }

    /// The numbers in Prometheus' text format. `counts`: the queue's. `None`: the database does not answer.
    pub fn text(&self, counts: Option<&[(Kind, Counts)]>) -> String {
        self.database_up.set(counts.is_some().into());
        if counts.is_none() {
            // Old numbers would pass for new ones.
            self.waiting.clear();
            self.running.clear();
        }
        for (kind, counts) in counts.unwrap_or_default() {
            let label = KindLabel { kind: kind.name() };
            let [queued, running] =
                [counts.queued, counts.running].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
            self.waiting.get_or_create(&label).set(queued);
            self.running.get_or_create(&label).set(running);
        }
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// Counts jobs as they end, whoever computes them, for ever.
pub async fn count(queue: &Queue, metrics: &Metrics) {
    let mut changes = queue.changes();
    let mut counted: VecDeque<String> = VecDeque::new();
    loop {
        let id = match changes.recv().await {
            Ok(id) => id,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if counted.contains(&id) {
            continue;
        }
        // Where the database is away, the number is a little too small.
        let Ok(Some(job)) = queue.find(&id, None).await else { continue };
        if job.status.is_over() {
            metrics.ended(&job);
            counted.push_back(id);
            if counted.len() > REMEMBERED {
                counted.pop_front();
            }
        }
    }
}
