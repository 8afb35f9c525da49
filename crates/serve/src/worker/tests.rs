//! The worker with a queue in a file, a storage in a folder, and an engine that computes nothing.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::engine::{Forecast, Predicted, Prepared, PreparedPicture, Progress, Trained, Work};
use crate::job::NewJob;
use crate::queue::Inserted;
use crate::storage::Links;

/// An engine that does what the prompt, or the token, says.
#[derive(Default)]
struct Fake {
    /// What it did.
    seen: Mutex<Vec<String>>,
}

impl Fake {
    fn saw(&self, what: impl Into<String>) {
        self.seen.lock().expect("no panic").push(what.into());
    }
}

/// Asks from time to time, until there is an answer.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
}

impl Engine for Fake {
    fn model(&self) -> String {
        "fake".into()
    }

    fn set_up(&self) -> std::result::Result<(), EngineError> {
        Ok(())
    }

    fn check_prediction(&self, _: &Map<String, Value>) -> std::result::Result<(), EngineError> {
        Ok(())
    }

    fn check_training(&self, _: &Map<String, Value>) -> std::result::Result<(), EngineError> {
        Ok(())
    }

    fn predict(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> std::result::Result<Predicted, EngineError> {
        let prompt = input["prompt"].as_str().unwrap_or_default();
        work.log("a line");
        let progress =
            Progress { stage: "sampling".into(), done: 1, total: 2, seconds_left: None, losses: Vec::new() };
        work.progress(progress);
        work.preview(0, b"preview");
        match prompt {
            "wait" => return Err(EngineError::Stopped(until(|| work.stop()))),
            "wrong" => {
                let problem = format!("{}: bad", folder.join("x.png").display());
                return Err(EngineError::Input { field: "image".into(), problem });
            }
            "panic" => panic!("as the test wants"),
            // Until the training has seen that this prediction computes.
            "busy" => {
                until(|| self.seen.lock().expect("no panic").contains(&"rests".to_owned()).then_some(()))
            }
            _ => {}
        }
        let path = folder.join("out-0.png");
        fs::write(&path, prompt).expect("written");
        Ok(Predicted { pictures: vec![Some(path), None], metrics: Map::new() })
    }

    /// Four steps, each with a checkpoint. In the second it waits for a prediction, or for the end of the worker, as the token says. With the
    /// token `cancel` it has a checkpoint on its disk alone when it is stopped.
    fn train(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> std::result::Result<Trained, EngineError> {
        fs::write(folder.join("settings.json"), "{}").expect("written");
        let steps = folder.join("checkpoints");
        let names = fs::read_dir(&steps).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let numbers = names.filter_map(|name| name.to_str()?.strip_prefix("step-")?.parse::<usize>().ok());
        let done = numbers.max().unwrap_or(0);
        self.saw(format!("from {done}"));
        for step in done + 1..=4 {
            let checkpoint = steps.join(format!("step-{step:06}"));
            fs::create_dir_all(&checkpoint).expect("made");
            fs::write(checkpoint.join("state.json"), step.to_string()).expect("written");
            let earlier = steps.join(format!("step-{:06}", step - 1));
            let _ = fs::remove_dir_all(earlier);
            work.checkpoint(folder);
            match (step, input["token_string"].as_str()) {
                (2, Some("cancel")) => {
                    work.preview(0, b"sample");
                    let stop = until(|| work.stop());
                    until(|| self.seen.lock().expect("no panic").contains(&"leave".to_owned()).then_some(()));
                    fs::rename(&checkpoint, steps.join("step-000003")).expect("renamed");
                    work.checkpoint(folder);
                    return Err(EngineError::Stopped(stop));
                }
                (2, Some("drain")) => return Err(EngineError::Stopped(until(|| work.stop()))),
                (2, Some("rest")) => {
                    until(|| work.is_paused().then_some(()));
                    self.saw("rests");
                    until(|| (!work.is_paused()).then_some(()));
                    self.saw("goes on");
                }
                _ => {}
            }
        }
        let weights = folder.join("trained_model.tar");
        fs::write(&weights, "weights").expect("written");
        Ok(Trained { weights, files: Vec::new(), metrics: Map::new() })
    }

    /// A set of two pictures. As the token says, it first waits until a training rests, or for the end of the worker, once.
    fn prepare(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> std::result::Result<Prepared, EngineError> {
        let has_seen = |what: &str| self.seen.lock().expect("no panic").iter().any(|seen| seen == what);
        match input["token_string"].as_str() {
            Some("drain") if !has_seen("waits") => {
                self.saw("waits");
                work.log("a line");
                return Err(EngineError::Stopped(until(|| work.stop())));
            }
            Some("busy") => until(|| has_seen("rests").then_some(())),
            _ => {}
        }
        let file = |name: &str| {
            let path = folder.join(name);
            fs::write(&path, name).expect("written");
            path
        };
        let picture = |name: &str, mask: Option<&str>| PreparedPicture {
            name: name.into(),
            picture: file(name),
            mask: mask.map(&file),
            caption: "a photo of TOK".into(),
            size: [3, 2],
            upscaled: false,
            warnings: Vec::new(),
        };
        Ok(Prepared {
            set: file("set.zip"),
            contact_sheet: file("contact_sheet.png"),
            pictures: vec![picture("b.png", Some("b.mask.png")), picture("a.png", None)],
            warnings: vec!["few pictures".into()],
            forecast: Forecast { steps: Some(10), seconds: Some(1.5), bytes: None },
            metrics: Map::new(),
        })
    }
}

/// All that a worker needs, in a folder.
struct Here {
    data: TempDir,
    settings: Settings,
    queue: Queue,
    storage: Storage,
    inputs: Inputs,
    engine: Arc<Fake>,
}

impl Here {
    async fn new() -> Here {
        let data = tempfile::tempdir().expect("a folder");
        let settings = Settings::in_folder(data.path());
        let queue = Queue::open(&settings).await.expect("a queue");
        let storage = Storage::open(&settings).expect("a storage");
        let links = Links::new([0; 32]);
        let inputs = Inputs::new(&settings, storage.clone(), queue.clone(), links).expect("inputs");
        Here { data, settings, queue, storage, inputs, engine: Arc::default() }
    }

    /// A worker, and what ends it.
    fn worker(&self, once: bool) -> (tokio::task::JoinHandle<Result<bool>>, watch::Sender<bool>) {
        let (end, drain) = watch::channel(false);
        let settings = Arc::new(Settings { once, ..self.settings.clone() });
        let (queue, storage, inputs) = (self.queue.clone(), self.storage.clone(), self.inputs.clone());
        (tokio::spawn(run(settings, queue, storage, inputs, self.engine.clone(), drain)), end)
    }

    async fn insert(&self, id: &str, kind: Kind, input: Value) {
        let job = NewJob {
            id: id.into(),
            kind,
            owner: "local".into(),
            model: "a/b".into(),
            version: "0".repeat(64),
            input: input.as_object().cloned().expect("an object"),
            destination: (kind == Kind::Training).then(|| "me/it".into()),
            webhook: None,
            webhook_events: Vec::new(),
            source: "api".into(),
            cancel_after: None,
            context: Default::default(),
        };
        let inserted = self.queue.insert(job, 100).await.expect("inserted");
        assert!(matches!(inserted, Inserted::New(_)));
    }

    /// The job, once it is as it should be.
    async fn when(&self, kind: Kind, id: &str, is: impl Fn(&Job) -> bool) -> Job {
        let mut changes = self.queue.changes();
        loop {
            let job = self.queue.get(kind, id).await.expect("an answer").expect("a job");
            if is(&job) {
                return job;
            }
            let _ = tokio::time::timeout(POLL, changes.recv()).await;
        }
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys: Vec<String> =
            self.storage.list(prefix).await.expect("a list").into_iter().map(|(key, _)| key).collect();
        keys.sort();
        keys
    }

    async fn file(&self, key: &str) -> String {
        let path = self.data.path().join("fetched");
        assert!(self.storage.get_to(key, &path).await.expect("fetched"), "{key}");
        fs::read_to_string(path).expect("text")
    }
}

const PREDICTION: Kind = Kind::Prediction;
const TRAINING: Kind = Kind::Training;
const PREPARATION: Kind = Kind::Preparation;

/// Protects predictions: the pictures are in the storage, the log and the error are the job's, without the worker's paths; a wrong field is
/// named; a panic ends one job, and not the worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end() {
    let here = Here::new().await;
    for (id, prompt) in [("good", "a cat"), ("bad", "wrong"), ("worse", "panic"), ("last", "a dog")] {
        here.insert(id, PREDICTION, json!({ "prompt": prompt })).await;
    }
    let (worker, end) = here.worker(false);
    let last = here.when(PREDICTION, "last", |job| job.status.is_over()).await;
    end.send(true).expect("there");
    worker.await.expect("no panic").expect("ended");
    assert_eq!((last.status, &last.output), (Status::Succeeded, &Some(json!(["jobs/last/1/out-0.png"]))));
    assert_eq!(here.file("jobs/last/1/out-0.png").await, "a dog");
    assert_eq!(last.logs, "a line\n");
    assert!(last.metrics.contains_key("predict_time"));
    assert_eq!(here.keys("jobs/good/").await, ["jobs/good/1/out-0.png"], "no preview is left");
    let bad = here.when(PREDICTION, "bad", |job| job.status.is_over()).await;
    assert_eq!((bad.status, bad.error.as_deref()), (Status::Failed, Some("image: x.png: bad")));
    let worse = here.when(PREDICTION, "worse", |job| job.status.is_over()).await;
    assert_eq!(worse.status, Status::Failed);
}

/// Protects people who cancel: the worker lets go of the job at once, removes its files, and takes the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canceled_job() {
    let here = Here::new().await;
    here.insert("long", PREDICTION, json!({ "prompt": "wait" })).await;
    here.insert("next", PREDICTION, json!({ "prompt": "a" })).await;
    let (worker, end) = here.worker(false);
    here.when(PREDICTION, "long", |job| job.logs == "a line\n").await;
    let canceled = here.queue.cancel(PREDICTION, "long").await.expect("an answer").expect("a job");
    assert_eq!(canceled.status, Status::Canceled);
    let next = here.when(PREDICTION, "next", |job| job.status.is_over()).await;
    assert_eq!(next.status, Status::Succeeded);
    end.send(true).expect("there");
    worker.await.expect("no panic").expect("ended");
    assert_eq!(here.keys("jobs/long/").await, Vec::<String>::new());
}

/// Protects trainings: a worker that ends releases its training with the last checkpoint in the storage; another goes on from there, makes
/// the version in the same transaction, and removes the checkpoints.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_training_goes_on() {
    let here = Here::new().await;
    let set = "data:application/zip;base64,AAAA";
    here.insert("t", TRAINING, json!({ "input_images": set, "token_string": "drain" })).await;
    let (worker, end) = here.worker(false);
    until_async(|| async { (here.keys("trainings/t/checkpoints/").await.len() >= 5).then_some(()) }).await;
    end.send(true).expect("there");
    worker.await.expect("no panic").expect("ended");
    let job = here.when(TRAINING, "t", |_| true).await;
    assert!(!job.status.is_over());
    here.insert("p", PREDICTION, json!({ "prompt": "a" })).await;
    let (worker, _end) = here.worker(true);
    worker.await.expect("no panic").expect("ended");
    let (worker, _end) = here.worker(true);
    worker.await.expect("no panic").expect("ended");
    let job = here.when(TRAINING, "t", |job| job.status.is_over()).await;
    assert_eq!((job.status, job.attempt), (Status::Succeeded, 2), "{:?}", job.error);
    assert_eq!(*here.engine.seen.lock().expect("no panic"), ["from 0", "from 2"]);
    assert_eq!(here.keys("trainings/t/").await, Vec::<String>::new());
    let version = job.output.as_ref().and_then(|output| output["version"].as_str()).expect("a version");
    let id = version.strip_prefix("me/it:").expect("of the destination");
    let record = here.queue.record("version", id).await.expect("an answer").expect("a record");
    assert_eq!((id.len(), record.parent.as_str()), (64, "me/it"));
    assert_eq!(here.file(record.body["weights"].as_str().expect("a key")).await, "weights");
}

/// Protects whoever wants a picture while a training computes: the training rests until the picture is made, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_training_rests() {
    let here = Here::new().await;
    let set = "data:application/zip;base64,AAAA";
    here.insert("t", TRAINING, json!({ "input_images": set, "token_string": "rest" })).await;
    let (worker, end) = here.worker(false);
    here.insert("p", PREDICTION, json!({ "prompt": "busy" })).await;
    let training = here.when(TRAINING, "t", |job| job.status.is_over()).await;
    assert_eq!(training.status, Status::Succeeded, "{:?}", training.error);
    assert_eq!(here.when(PREDICTION, "p", |job| job.status.is_over()).await.status, Status::Succeeded);
    assert_eq!(*here.engine.seen.lock().expect("no panic"), ["from 0", "rests", "goes on"]);
    end.send(true).expect("there");
    worker.await.expect("no panic").expect("ended");
}

/// Protects who resumes a training that was canceled: the new training begins from the last checkpoint, and fails with a line where the checkpoints
/// are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_training_is_resumed() {
    let here = Here::new().await;
    let input = json!({ "input_images": "data:application/zip;base64,AAAA", "token_string": "drain" });
    here.insert("t", TRAINING, input.clone()).await;
    let (worker, end) = here.worker(false);
    until_async(|| async { (here.keys("trainings/t/checkpoints/").await.len() >= 5).then_some(()) }).await;
    assert!(has_checkpoint(&here.storage, "t").await.expect("an answer"));
    here.queue.cancel(TRAINING, "t").await.expect("an answer");
    here.queue.set_resumes("next", "t").await.expect("an answer");
    here.insert("next", TRAINING, input.clone()).await;
    let next = here.when(TRAINING, "next", |job| job.status.is_over()).await;
    assert_eq!(next.status, Status::Succeeded, "{:?}", next.error);
    assert_eq!(*here.engine.seen.lock().expect("no panic"), ["from 0", "from 2"]);
    here.queue.set_resumes("late", "none").await.expect("an answer");
    here.insert("late", TRAINING, input).await;
    let late = here.when(TRAINING, "late", |job| job.status.is_over()).await;
    assert_eq!(late.error.as_deref(), Some("the checkpoints of the training none are gone"));
    end.send(true).expect("there");
    worker.await.expect("no panic").expect("ended");
}

/// Protects who cancels a training, and wants it after all: what the engine has done until it stops is stored, so that the next training
/// begins there; the samples that the page shows stay. The cancel itself waits for none of it; another worker that has the next training does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canceled_training_leaves_its_last_step() {
    let here = Here::new().await;
    let input = json!({ "input_images": "data:application/zip;base64,AAAA", "token_string": "cancel" });
    here.insert("t", TRAINING, input.clone()).await;
    let workers = [here.worker(false), here.worker(false)];
    here.when(TRAINING, "t", |job| {
        job.progress.as_ref().is_some_and(|progress| !progress["previews"].is_null())
    })
    .await;
    let canceled = here.queue.cancel(TRAINING, "t").await.expect("an answer").expect("a job");
    assert_eq!(canceled.status, Status::Canceled);
    assert!(here.queue.is_leaving("t").await.expect("an answer"));
    here.queue.set_resumes("next", "t").await.expect("an answer");
    here.insert("next", TRAINING, input).await;
    here.when(TRAINING, "next", |job| job.progress.is_some()).await;
    here.engine.saw("leave");
    let next = here.when(TRAINING, "next", |job| job.status.is_over()).await;
    assert_eq!(next.status, Status::Succeeded, "{:?}", next.error);
    assert_eq!(*here.engine.seen.lock().expect("no panic"), ["from 0", "leave", "from 3"]);
    assert_eq!(here.file("jobs/t/1/preview-0-1.png").await, "sample");
    assert!(!here.queue.is_leaving("t").await.expect("an answer"));
    for (worker, end) in workers {
        end.send(true).expect("there");
        worker.await.expect("no panic").expect("ended");
    }
}

/// Protects preparations: the set is stored whole and by its pictures, whose keys depend on no name; a worker that ends gives the
/// preparation back, and another begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preparation() {
    let here = Here::new().await;
    let set = "data:application/zip;base64,AAAA";
    here.insert("s", PREPARATION, json!({ "input_images": set, "token_string": "drain" })).await;
    let (worker, end) = here.worker(false);
    here.when(PREPARATION, "s", |job| job.logs == "a line\n").await;
    end.send(true).expect("there");
    worker.await.expect("no panic").expect("ended");
    let (worker, _end) = here.worker(true);
    worker.await.expect("no panic").expect("ended");
    let job = here.when(PREPARATION, "s", |_| true).await;
    assert_eq!((job.status, job.attempt), (Status::Succeeded, 2), "{:?}", job.error);
    let picture = |name: &str, number: usize, mask: Value| {
        json!({ "name": name, "picture": format!("jobs/s/2/picture-{number}.png"), "mask": mask, "caption": "a photo of TOK",
            "size": [3, 2], "upscaled": false, "warnings": [] })
    };
    let expected = json!({
        "set": "jobs/s/2/set.zip",
        "contact_sheet": "jobs/s/2/contact_sheet.png",
        "pictures": [picture("b.png", 0, json!("jobs/s/2/picture-0.mask.png")), picture("a.png", 1, Value::Null)],
        "warnings": ["few pictures"],
        "forecast": { "steps": 10, "seconds": 1.5, "bytes": null },
    });
    assert_eq!(job.output, Some(expected));
    for (file, content) in
        [("set.zip", "set.zip"), ("picture-0.mask.png", "b.mask.png"), ("picture-1.png", "a.png")]
    {
        assert_eq!(here.file(&format!("jobs/s/2/{file}")).await, content);
    }
}

/// Protects people who look through a set while a training computes: the training rests until the set is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_training_rests_for_a_preparation() {
    let here = Here::new().await;
    let set = "data:application/zip;base64,AAAA";
    here.insert("t", TRAINING, json!({ "input_images": set, "token_string": "rest" })).await;
    let (worker, end) = here.worker(false);
    here.insert("s", PREPARATION, json!({ "input_images": set, "token_string": "busy" })).await;
    let training = here.when(TRAINING, "t", |job| job.status.is_over()).await;
    assert_eq!(training.status, Status::Succeeded, "{:?}", training.error);
    assert_eq!(here.when(PREPARATION, "s", |job| job.status.is_over()).await.status, Status::Succeeded);
    end.send(true).expect("there");
    worker.await.expect("no panic").expect("ended");
}

async fn until_async<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F) -> T {
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
