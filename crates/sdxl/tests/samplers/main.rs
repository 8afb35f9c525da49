//! The samplers against diffusers: every trajectory of the golden file, and what bad configurations answer.

mod ranges;
mod runs;

use std::ops::ControlFlow;

use calotype_sdxl::samplers::{Hooks, Sampler, Schedule, SchedulerConfig, Spacing, sample};
use calotype_tensor::Tensor;

use runs::{Golden, LATENTS, close, run, schedule};

/// Protects every sampler's whole way through every variant of the configuration: each timestep that the network is told, each
/// latent that it sees, the result, and that progress counts the steps that were asked for.
#[test]
fn trajectories_equal_diffusers() {
    let file = Golden::open();
    let cases = file.cases(2);
    assert!(cases.len() > 100, "{} cases", cases.len());
    for (case, config) in &cases {
        let mut parts = case.split('.');
        let name = parts.next().expect("sampler");
        let steps: usize = parts.next_back().and_then(|steps| steps.parse().ok()).expect("steps");
        let schedule = schedule(name, config, steps).unwrap_or_else(|error| panic!("{case}: {error}"));
        let golden = |key: &str| file.floats(&format!("{case}.{key}"));
        close(case, &[schedule.init_noise_sigma()], &golden("init_noise_sigma").expect("init_noise_sigma"));

        let run = run(&schedule, 7);
        let told: Vec<f32> = run.calls.iter().map(|(_, t)| *t).collect();
        close(&format!("{case}: timesteps"), &told, &golden("timesteps").expect("timesteps"));
        let x = golden("x").expect("x");
        let scaled = name.starts_with("K_") || name == "HeunDiscrete";
        let sigmas = golden("sigmas").filter(|_| scaled).unwrap_or(vec![0.0; told.len()]);
        for (i, (seen, _)) in run.calls.iter().enumerate() {
            let c_in = 1.0 / (sigmas[i] * sigmas[i] + 1.0).sqrt();
            let input: Vec<f32> = x[i * LATENTS..(i + 1) * LATENTS].iter().map(|x| x * c_in).collect();
            close(&format!("{case}: input {i}"), seen, &input);
        }
        close(&format!("{case}: result"), &run.x, &x[told.len() * LATENTS..]);
        assert_eq!(run.steps, (0..steps).map(|i| (i, steps)).collect::<Vec<_>>(), "{case}");
    }
}

/// Protects the options that the golden file does not vary: the first four values of the result, as diffusers 0.42 gives them
/// for SDXL's betas.
#[test]
fn further_options_equal_diffusers() {
    let betas = r#""beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear""#;
    for (name, steps, options, expected) in [
        ("PNDM", 30, r#"{"steps_offset": 1}"#, [-2.313646, 0.5651984, 3.349203, -7.417565]),
        (
            "PNDM",
            7,
            r#"{"timestep_spacing": "trailing", "skip_prk_steps": true, "set_alpha_to_one": true}"#,
            [-2.661614, 0.5912806, 4.137672, -9.065119],
        ),
        (
            "DPMSolverMultistep",
            5,
            r#"{"final_sigmas_type": "sigma_min"}"#,
            [-2.900886, 0.8524529, 4.848605, -9.44241],
        ),
        (
            "DPMSolverMultistep",
            20,
            r#"{"final_sigmas_type": "sigma_min"}"#,
            [-2.766966, 0.6821762, 4.395498, -9.258405],
        ),
        (
            "DPMSolverMultistep",
            20,
            r#"{"final_sigmas_type": "sigma_min", "euler_at_final": true}"#,
            [-2.740511, 0.6995822, 4.422743, -9.23168],
        ),
        (
            "DPMSolverMultistep",
            6,
            r#"{"solver_order": 1, "solver_type": "bh2"}"#,
            [-2.934828, 1.031159, 5.065383, -9.426089],
        ),
        (
            "DPMSolverMultistep",
            6,
            r#"{"lambda_min_clipped": -1.0, "prediction_type": "sample"}"#,
            [-0.4326121, 0.3134634, 0.5109921, -0.5318542],
        ),
        (
            "KarrasDPM",
            3,
            r#"{"beta_schedule": "squaredcos_cap_v2", "sigma_max": 7.0, "sigma_min": 0.1}"#,
            [-1.589104, 0.5791888, 2.590424, -4.683021],
        ),
        (
            "KarrasDPM",
            6,
            r#"{"sigma_min": 0.1, "sigma_max": 10}"#,
            [-2.122285, 0.3993219, 2.80103, -6.595762],
        ),
        (
            "HeunDiscrete",
            6,
            r#"{"clip_sample": true, "clip_sample_range": 0.5, "use_karras_sigmas": true, "sigma_max": 12}"#,
            [-0.5, 0.3631868, 0.5, -0.5],
        ),
        (
            "K_EULER",
            6,
            r#"{"final_sigmas_type": "sigma_min", "prediction_type": "sample"}"#,
            [-0.5897822, 0.3081419, 0.5219958, -0.7065739],
        ),
        (
            "K_EULER",
            6,
            r#"{"use_karras_sigmas": true, "sigma_min": 0.1, "timestep_spacing": "trailing"}"#,
            [-2.911637, 1.031109, 5.023722, -9.341533],
        ),
        (
            "DDIM",
            6,
            r#"{"prediction_type": "sample", "clip_sample": false, "set_alpha_to_one": false}"#,
            [-0.5426022, 0.3157386, 0.5281579, -0.6609851],
        ),
    ] {
        let config = if options.contains("beta_schedule") {
            options.to_string()
        } else {
            options.replacen('{', &format!("{{{betas}, "), 1)
        };
        let schedule =
            schedule(name, &config, steps).unwrap_or_else(|error| panic!("{name} {options}: {error}"));
        close(&format!("{name} {options}"), &run(&schedule, 7).x[..4], &expected);
    }
}

/// Protects which way KarrasDPM makes timesteps whole: to the nearest, but down for cosine betas (907.9, 539.5, 55.5 here).
#[test]
fn karras_timesteps_are_whole() {
    let cosine = r#"{"beta_schedule": "squaredcos_cap_v2", "sigma_max": 7.0, "sigma_min": 0.1}"#;
    assert_eq!(schedule("KarrasDPM", cosine, 3).expect("valid").timesteps(), [907.0, 539.0, 55.0]);
}

/// Protects the rule that a class takes only the keys it knows, each with its own default: what another class would
/// choke on does not matter.
#[test]
fn keys_of_other_classes_are_ignored() {
    let config = r#"{"algorithm_type": "sde-dpmsolver", "skip_prk_steps": "?", "thresholding": true, "solver_order": 9}"#;
    let plain = run(&schedule("K_EULER", "{}", 4).expect("defaults"), 1);
    assert_eq!(run(&schedule("K_EULER", config, 4).expect("ignored"), 1).x, plain.x);
}

/// Protects users from guessing: an option that is wrong or not supported is named, with what may stand there.
#[test]
fn bad_configurations_name_the_field() {
    let error = |name, config, steps| schedule(name, config, steps).map(|_| ()).expect_err(config);
    for (name, config, expected) in [
        (
            "K_EULER",
            r#"{"num_train_timesteps": 0}"#,
            "num_train_timesteps: expected a whole number from 1 to 100000, found 0",
        ),
        ("K_EULER", r#"{"num_train_timesteps": 1e99}"#, "num_train_timesteps: expected a whole number"),
        ("DDIM", r#"{"beta_start": 0}"#, "beta_start: expected a number between 0 and 1, found 0"),
        ("DDIM", r#"{"beta_start": 1e-12}"#, "beta_schedule: expected betas that leave signal and noise"),
        ("PNDM", r#"{"beta_end": "x"}"#, r#"beta_end: expected a number between 0 and 1, found "x""#),
        ("PNDM", r#"{"beta_end": null}"#, "beta_end: expected a number between 0 and 1, found null"),
        (
            "K_EULER",
            r#"{"beta_start": 0.99, "beta_end": 0.99}"#,
            "beta_schedule: expected betas that leave signal",
        ),
        (
            "DDIM",
            r#"{"beta_schedule": "exp"}"#,
            r#"beta_schedule: expected linear, scaled_linear, squaredcos_cap_v2, found "exp""#,
        ),
        (
            "DDIM",
            r#"{"trained_betas": [0.1, 0.2]}"#,
            "trained_betas: expected 1000 numbers, one for each of num_train_timesteps, found 2 numbers",
        ),
        (
            "DDIM",
            r#"{"trained_betas": [0.1, 2]}"#,
            "trained_betas[1]: expected a number between 0 and 1, found 2",
        ),
        ("DDIM", r#"{"thresholding": true}"#, "thresholding: expected false, found true"),
        ("DDIM", r#"{"clip_sample_range": -1}"#, "clip_sample_range: expected a positive number, found -1"),
        (
            "DDIM",
            r#"{"steps_offset": 900, "num_train_timesteps": 1000}"#,
            "steps_offset: expected at most 199 for 5 steps, found 900",
        ),
        (
            "DDIM",
            r#"{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}"#,
            "prediction_type: expected v_prediction",
        ),
        (
            "K_EULER",
            r#"{"rescale_betas_zero_snr": true, "num_train_timesteps": 1}"#,
            "num_inference_steps: expected 1 to 1 ",
        ),
        (
            "K_EULER",
            r#"{"timestep_spacing": "even"}"#,
            r#"timestep_spacing: expected linspace, leading, trailing, found "even""#,
        ),
        (
            "K_EULER",
            r#"{"prediction_type": 3}"#,
            "prediction_type: expected epsilon, v_prediction, sample, original_sample, found 3",
        ),
        (
            "K_EULER",
            r#"{"use_karras_sigmas": "yes"}"#,
            r#"use_karras_sigmas: expected true or false, found "yes""#,
        ),
        ("K_EULER", r#"{"use_beta_sigmas": true}"#, "use_beta_sigmas: expected false, found true"),
        ("K_EULER", r#"{"sigma_min": -3}"#, "sigma_min: expected a positive number or null, found -3"),
        (
            "KarrasDPM",
            r#"{"algorithm_type": "sde-dpmsolver"}"#,
            r#"algorithm_type: expected dpmsolver++, deis, sde-dpmsolver++, found "sde-dpmsolver""#,
        ),
        ("KarrasDPM", r#"{"solver_order": 3}"#, "solver_order: expected a whole number from 1 to 2, found 3"),
        ("KarrasDPM", r#"{"variance_type": "learned"}"#, "variance_type: expected null, found learned"),
        ("UniPC", r#"{"predict_x0": false}"#, "predict_x0: expected true, found false"),
        ("UniPC", r#"{"disable_corrector": [0]}"#, "disable_corrector: expected no steps, found 1 steps"),
        (
            "LCM",
            r#"{"original_inference_steps": 1001}"#,
            "original_inference_steps: expected a whole number from 1 to 1000, found 1001",
        ),
        ("LCM", r#"{"timestep_scaling": 0}"#, "timestep_scaling: expected a positive number, found 0"),
        ("TCD", r#"{"eta": 1.5}"#, "eta: expected a number from 0 to 1, found 1.5"),
        ("TCD", r#"{"rescale_betas_zero_snr": true}"#, "prediction_type: expected v_prediction"),
        (
            "TCD",
            r#"{"original_inference_steps": 4}"#,
            "num_inference_steps: expected 1 to 4 (the scheduler's original_inference_steps), found 5",
        ),
    ] {
        let message = error(name, config, 5);
        assert!(message.contains(expected), "{config}: {message}");
        let file =
            message.starts_with("scheduler_config.json: ") || message.starts_with("num_inference_steps: ");
        assert!(file, "{message}");
    }
    assert_eq!(
        error("K_EULER", "{}", 0),
        "num_inference_steps: expected 1 to 1000 (the scheduler's num_train_timesteps), found 0"
    );
    assert!(error("DDIM", "{}", 1001).contains("expected 1 to 1000"));
    assert!(
        error("PNDM", "{}", 3)
            .contains("expected at least 4 (the scheduler's skip_prk_steps is false), found 3")
    );
    assert!(error("DPMSolverMultistep", "{}", 1000).starts_with("num_inference_steps: expected fewer steps"));
    assert_eq!(
        error("EULER", "{}", 5),
        "scheduler: expected one of DDIM, DPMSolverMultistep, HeunDiscrete, KarrasDPM, K_EULER_ANCESTRAL, K_EULER, PNDM, \
         LCM, TCD, UniPC, DPMSolverMultistepSDE, found \"EULER\""
    );
}

/// Protects a spacing that is asked for: it replaces that of the file, and samplers that have no use for it refuse it.
#[test]
fn a_spacing_replaces_the_files() {
    for sampler in Sampler::ALL {
        let config = SchedulerConfig::parse("f", r#"{"timestep_spacing": "leading"}"#).expect("readable");
        let asked = Schedule::new(sampler, &config.clone().with_spacing(Some(Spacing::Trailing)), 4);
        if ["KarrasDPM", "LCM", "TCD"].contains(&sampler.name()) {
            let error = format!(
                "timestep_spacing: expected none with {}, which has timesteps of its own, found trailing",
                sampler.name()
            );
            assert_eq!(asked.expect_err("a refusal").to_string(), error);
        } else {
            assert_eq!(asked.expect("a schedule").timesteps(), [999.0, 749.0, 499.0, 249.0], "{sampler:?}");
        }
        let unasked = Schedule::new(sampler, &config.clone().with_spacing(None), 4).expect("a schedule");
        assert_eq!(unasked.timesteps(), Schedule::new(sampler, &config, 4).expect("a schedule").timesteps());
    }
}

/// Protects against NaN and panics: every combination of options either runs to finite latents or is refused.
#[test]
fn odd_configurations_stay_finite() {
    let mut ran = 0;
    for sampler in Sampler::ALL {
        for train in (1..=13).chain([1000]) {
            for spacing in ["linspace", "leading", "trailing"] {
                for beta in ["linear", "squaredcos_cap_v2"] {
                    for options in [
                        r#""prediction_type": "v_prediction", "rescale_betas_zero_snr": true, "steps_offset": 1"#,
                        r#""use_karras_sigmas": true, "final_sigmas_type": "sigma_min", "skip_prk_steps": true"#,
                        r#""prediction_type": "sample", "lower_order_final": false, "lambda_min_clipped": -1"#,
                    ] {
                        let config = format!(
                            r#"{{"num_train_timesteps": {train}, "timestep_spacing": "{spacing}",
                            "beta_schedule": "{beta}", {options}}}"#
                        );
                        for steps in [1, 2, 3, 4, 7, 61] {
                            let Ok(schedule) = schedule(sampler.name(), &config, steps) else { continue };
                            let finite = run(&schedule, 3).x.iter().all(|value| value.is_finite());
                            assert!(finite, "{sampler:?} {steps} {config}");
                            ran += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(ran > 1000, "only {ran} were accepted");
}

/// Protects cancelling: sampling ends with the step in which it is asked to.
#[test]
fn stops_when_told() {
    for sampler in Sampler::ALL {
        let schedule = schedule(sampler.name(), "{}", 8).expect("defaults");
        let mut last = None;
        let mut hooks = Hooks {
            denoise: &mut |x, _| x.clone(),
            noise: &mut || Tensor::from_vec(vec![0.0; 2], &[2]),
            constrain: &mut |x, _| x,
            on_step: &mut |step| {
                last = Some(step.index);
                if step.index == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        };
        let x = Tensor::from_vec(vec![1.0, -1.0], &[2]);
        assert!(sample(&schedule, 0..8, x, &mut hooks).is_break());
        assert_eq!(last, Some(2), "{sampler:?}");
    }
}
