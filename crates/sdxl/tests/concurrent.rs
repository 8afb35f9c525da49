//! Many predictions at once, from one pipeline, on the threads of one pool: as a service runs them.

mod plan;
mod temp;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use calotype_sdxl::PredictPlan;
use calotype_sdxl::pipeline::{EmptyNegative, Options, Pipeline, Rng, Step};
use calotype_tensor::DType;
use calotype_tensor::cpu::Workers;
use serde_json::json;
use temp::golden;

/// Far more than the work takes on a busy machine: only a deadlock lasts so long.
const LIMIT: Duration = Duration::from_secs(240);

fn open() -> Pipeline {
    let options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
    Pipeline::open(&golden().join("pipeline"), options).expect("the tiny model")
}

/// A small request with these trained weights.
fn plan(weights: &[PathBuf]) -> PredictPlan {
    let request = json!({"prompt": "a TOK", "width": 32, "height": 32, "num_inference_steps": 1, "seed": 5});
    PredictPlan { replicate_weights: weights.to_vec(), ..plan::plan(&request) }
}

fn predict(pipeline: &Pipeline, plan: &PredictPlan) -> Vec<u8> {
    pipeline.predict(plan, &mut |_| ControlFlow::Continue(())).expect("a picture").remove(0).rgb
}

/// Runs `count` predictions at once on a fresh pipeline and in a pool of their own, the plans in turn, and gives each picture's
/// plan and bytes. The test fails where they do not end.
fn at_once(plans: &[PredictPlan], count: usize) -> Vec<(usize, Vec<u8>)> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).stack_size(64 << 20).build().expect("a pool");
    let (pipeline, (done, results)) = (Arc::new(open()), mpsc::channel());
    for i in (0..count).map(|i| i % plans.len()) {
        let (pipeline, plan, done) = (pipeline.clone(), plans[i].clone(), done.clone());
        // A thread that waits in a parallel loop may take up such a task, in the middle of another.
        pool.spawn(move || drop(done.send((i, predict(&pipeline, &plan)))));
    }
    let next = |_| results.recv_timeout(LIMIT).expect("no picture within the time limit: a deadlock");
    (0..count).map(next).collect()
}

/// Protects a service: predictions at once in one pool end, and each gives the picture that its plan gives alone. They load and
/// pack the same weights at the same time, and other weights in between.
#[test]
fn predictions_at_once() {
    let lora = golden().join("adapters");
    let plans = [plan(&[]), plan(&[lora.join("kohya.safetensors")]), plan(&[lora.join("trained_model.tar")])];
    let alone: Vec<Vec<u8>> = plans.iter().map(|plan| predict(&open(), plan)).collect();
    for kinds in [&plans[..1], &plans] {
        for _ in 0..4 {
            for (i, found) in at_once(kinds, 12) {
                assert_eq!(found, alone[i], "plan {i}");
            }
        }
    }
}

/// Protects services with several pipelines: two that have workers of their own predict at once, each on its own threads alone
/// and on none of the caller's, with the same pictures as ever.
#[test]
fn pipelines_with_their_own_workers() {
    let (plan, alone) = (plan(&[]), predict(&open(), &plan(&[])));
    let run = |threads: usize| {
        let pipeline = open().with_workers(Workers::new(threads).expect("threads"));
        let mut seen = HashSet::new();
        for _ in 0..4 {
            let mut note = |_: Step<'_>| {
                assert_eq!(rayon::current_num_threads(), threads, "threads that compute");
                seen.insert(std::thread::current().id());
                ControlFlow::Continue(())
            };
            assert_eq!(pipeline.predict(&plan, &mut note).expect("a picture").remove(0).rgb, alone);
        }
        seen
    };
    let [one, two] = std::thread::scope(|scope| {
        [1, 2]
            .map(|threads| {
                scope.spawn({
                    let run = &run;
                    move || run(threads)
                })
            })
            .map(|run| run.join().expect("pictures"))
    });
    assert!(one.len() == 1 && two.len() <= 2 && one.is_disjoint(&two), "{one:?}, {two:?}");
    assert!(!one.contains(&std::thread::current().id()));
}
