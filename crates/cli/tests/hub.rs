//! Models by name, from a hub that is a thread of the test.

mod common;

use std::fs;

use common::hub::{COMMIT, Hub};
use common::{Ended, Sandbox, tiny_model};

fn predict(here: &Sandbox, hub: Option<&Hub>, model: &str) -> Ended {
    let args = ["predict", "--model", model, "--width", "64", "--height", "64", "--num-inference-steps", "1"];
    let mut command = here.command(&[&args[..], &["--prompt", "a cat", "--seed", "1"]].concat());
    if let Some(hub) = hub {
        command.env("HF_ENDPOINT", &hub.address);
    }
    let output = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Protects: a model is fetched once, only what is needed of it, and found again without the network; what was not fetched to
/// the end is fetched then.
#[test]
fn a_model_by_name() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    let first = predict(&here, Some(&hub), "tiny/sdxl");
    assert_eq!((first.code, first.stdout.as_str()), (Some(0), "out-0.png\n"), "{}", first.stderr);
    assert!(first.stderr.contains("tiny/sdxl: fetching "), "{}", first.stderr);
    let asked = hub.asked();
    assert!(asked.iter().any(|path| path.ends_with("/unet/config.json")), "{asked:?}");
    let folder = predict(&here, None, tiny_model().to_str().expect("text"));
    assert_eq!(folder.stdout, "out-1.png\n", "{}", folder.stderr);

    let second = predict(&here, Some(&hub), "tiny/sdxl");
    assert_eq!((second.code, second.stdout.as_str()), (Some(0), "out-2.png\n"), "{}", second.stderr);
    assert_eq!(hub.asked(), Vec::<String>::new());
    let third = predict(&here, None, "tiny/sdxl");
    assert_eq!(third.code, Some(0), "{}", third.stderr);
    assert!(
        fs::read(here.path("out-2.png")).expect("a file")
            == fs::read(here.path("out-3.png")).expect("a file")
    );

    let snapshot = here.path("hub/hub/models--tiny--sdxl/snapshots").join(COMMIT);
    fs::remove_file(snapshot.join("vae/diffusion_pytorch_model.safetensors")).expect("there");
    assert_eq!(predict(&here, Some(&hub), "tiny/sdxl").code, Some(0));
    assert!(hub.asked().iter().all(|path| path.contains("/vae/") || path.starts_with("/api/")));
}

/// Protects: no such model, one that is none of SDXL, and no network: one line each, in seconds.
#[test]
fn what_cannot_be_fetched() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    for (hub, model, code, says) in [
        (Some(&hub), "tiny/none", 2, "--model tiny/none: expected a folder or a model on the hub"),
        (Some(&hub), "tiny/text", 2, "--model tiny/text: expected an SDXL model in diffusers' layout"),
        (None, "tiny/sdxl", 1, "connect to the network once, or give --model a folder that has the model"),
        (None, "tiny/sdxl/unet", 2, "--model tiny/sdxl/unet: expected a folder, found nothing there"),
    ] {
        let ended = predict(&here, hub, model);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(code), 1), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(says), "{}", ended.stderr);
    }
}

/// Protects: the token of the environment is shown to the hub.
#[test]
fn a_token_opens_what_is_gated() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    for (token, says) in [
        ("key", "found no model_index.json"),
        ("other", "a model on the hub that may be read"),
        ("", "that may be read"),
    ] {
        let mut command = here.command(&["predict", "--model", "tiny/gated"]);
        let output =
            command.env("HF_ENDPOINT", &hub.address).env("HF_TOKEN", token).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(says), "{token}: {said}");
    }
}
