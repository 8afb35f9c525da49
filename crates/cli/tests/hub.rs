//! Models by name, from a hub that is a few threads of the test.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use indicatif::DecimalBytes;

use common::hub::{COMMIT, Hub, OTHER_COMMIT, UNET, Way, sum};
use common::{Ended, Sandbox, copy_folder, tiny_model};

fn predict(here: &Sandbox, hub: Option<&Hub>, model: &str) -> Ended {
    let args = ["predict", "--model", model, "--width", "64", "--height", "64", "--num-inference-steps", "1"];
    ended(here, &[&args[..], &["--prompt", "a cat", "--seed", "1"]].concat(), hub, &[])
}

/// Fetches the model, and ends in a complaint about what comes after it.
fn fetch(here: &Sandbox, hub: Option<&Hub>, env: &[(&str, &str)]) -> Ended {
    let args = ["export", "none.tar", "--format", "kohya", "-o", "x.safetensors", "--model", "tiny/sdxl"];
    ended(here, &args, hub, env)
}

/// What [`fetch`] says if the model was fetched.
const FETCHED: &str = "none.tar";

fn ended(here: &Sandbox, args: &[&str], hub: Option<&Hub>, env: &[(&str, &str)]) -> Ended {
    let mut command = here.command(args);
    command.env("HF_HUB_DOWNLOAD_TIMEOUT", "0.3").envs(env.iter().copied());
    if let Some(hub) = hub {
        command.env("HF_ENDPOINT", &hub.address);
    }
    let output = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn repo(here: &Sandbox) -> PathBuf {
    here.path("hub/hub/models--tiny--sdxl")
}

fn snapshot(here: &Sandbox) -> PathBuf {
    repo(here).join("snapshots").join(COMMIT)
}

fn blob(here: &Sandbox, name: &str) -> PathBuf {
    repo(here).join("blobs").join(sum(&fs::read(tiny_model().join(name)).expect("a file")))
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// That the cache has the model, byte for byte, and nothing unfinished.
fn assert_whole(here: &Sandbox, what: &str) {
    let model = tiny_model();
    for path in files(&model) {
        let name = path.strip_prefix(&model).expect("below");
        let found = fs::read(snapshot(here).join(name)).unwrap_or_default();
        assert!(found == fs::read(&path).expect("a file"), "{what}: {}", name.display());
    }
    let blobs = files(&repo(here).join("blobs"));
    assert!(blobs.iter().all(|path| path.extension().is_none()), "{what}: {blobs:?}");
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
    let [a, b] = ["out-2.png", "out-3.png"].map(|name| fs::read(here.path(name)).expect("a file"));
    assert!(a == b);
}

/// Protects: a network that is no part of SDXL is fetched once in the revision that is asked for, its size is said before, and it is
/// found again without the network; a commit is a revision too, and needs no second fetch.
#[test]
fn a_safety_checker_by_name() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    let model = tiny_model().to_str().expect("text").to_owned();
    let run = |hub: Option<&Hub>, name: &str| {
        let small = ["--width", "64", "--height", "64", "--num-inference-steps", "1", "--seed", "1"];
        let args = ["predict", "--model", &model, "--safety-checker", name, "--prompt", "a cat"];
        ended(&here, &[&args[..], &small].concat(), hub, &[])
    };
    let first = run(Some(&hub), "tiny/checker@refs/pr/1");
    let golden = tiny_model().join("../models/safety_checker");
    let size: u64 = files(&golden).iter().map(|path| fs::metadata(path).expect("a file").len()).sum();
    let says = format!("tiny/checker@refs/pr/1: fetching 2 files, {}, once\n", DecimalBytes(size));
    assert!(first.stderr.contains(&says), "{}", first.stderr);
    assert!(!first.stderr.contains("pictures pass no safety checker"), "{}", first.stderr);
    assert!(matches!(first.code, Some(0 | 1)), "{}", first.stderr); // flagged or not: the weights are random
    let snapshot = here.path("hub/hub/models--tiny--checker/snapshots").join(COMMIT);
    for path in files(&golden) {
        let found = snapshot.join(path.file_name().expect("a name"));
        assert!(fs::read(&found).expect("fetched") == fs::read(&path).expect("a file"));
    }
    for name in ["tiny/checker@refs/pr/1", &format!("tiny/checker@{COMMIT}")] {
        let again = run(None, name);
        assert_eq!(
            (again.code, again.stderr.contains("error: no such")),
            (first.code, false),
            "{}",
            again.stderr
        );
    }
    // What was cut off is fetched again, and nothing else.
    let blob = fs::read_link(snapshot.join("model.safetensors")).expect("a link");
    fs::write(snapshot.join(blob), "cut").expect("written");
    hub.asked();
    let repaired = run(Some(&hub), "tiny/checker@refs/pr/1");
    assert_eq!(repaired.code, first.code, "{}", repaired.stderr);
    assert!(repaired.stderr.contains(": fetching 1 file, "), "{}", repaired.stderr);
    let asked = hub.asked();
    assert!(asked.len() == 2 && asked[1].ends_with("/model.safetensors"), "{asked:?}");
}

/// Protects: a decoder for previews is fetched by its name, and found again without the network. Another network is refused in one line.
#[test]
fn a_decoder_for_previews_by_name() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    let model = tiny_model().to_str().expect("text").to_owned();
    let run = |hub: Option<&Hub>, name: &str| {
        let small = ["--width", "64", "--height", "64", "--num-inference-steps", "1", "--seed", "1"];
        let args = [
            "predict",
            "--model",
            &model,
            "--prompt",
            "a cat",
            "--preview-every",
            "1",
            "--preview-vae",
            name,
        ];
        ended(&here, &[&args[..], &small].concat(), hub, &[])
    };
    let first = run(Some(&hub), "tiny/decoder");
    assert!(first.stderr.contains("tiny/decoder: fetching 2 files, "), "{}", first.stderr);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let again = run(None, "tiny/decoder");
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let other = run(Some(&hub), "tiny/sdxl");
    let says = "error: --preview-vae tiny/sdxl: expected a small decoder (AutoencoderTiny) as diffusers saves it, found no config.json";
    assert!(other.code == Some(2) && other.stderr.contains(says), "{}", other.stderr);
}

/// Protects: a name that is no safety checker, or a revision that is not there, is one line; nothing of it is fetched.
#[test]
fn names_that_are_no_safety_checker() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    let model = tiny_model().to_str().expect("text").to_owned();
    for (name, says) in [
        ("tiny/sdxl", "expected a safety checker as diffusers saves it, found no config.json"),
        (
            "tiny/checker",
            "expected a folder or a model on the hub that may be read, found neither (status 404)",
        ),
        ("tiny/checker@../x", "expected a folder, or OWNER/NAME of a model on the hub, found nothing there"),
        ("file", "expected a folder, or OWNER/NAME of a model on the hub, found a file"),
    ] {
        here.write("file", "");
        let args = ["predict", "--model", &model, "--prompt", "a cat", "--safety-checker", name];
        let ended = ended(&here, &args, Some(&hub), &[]);
        let says = format!("error: --safety-checker {name}: {says}");
        assert!(ended.code == Some(2) && ended.stderr.contains(&says), "{}", ended.stderr);
        assert!(files(&here.path("hub")).is_empty(), "{name}");
    }
}

/// Protects: a hub that answers for a commit with another one is refused, before anything is fetched.
#[test]
fn another_commit_than_was_asked_for() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    let model = tiny_model().to_str().expect("text").to_owned();
    let name = format!("tiny/checker@{OTHER_COMMIT}");
    let args = ["predict", "--model", &model, "--prompt", "a cat", "--safety-checker", &name];
    let ended = ended(&here, &args, Some(&hub), &[]);
    let says = format!("(sha: expected {OTHER_COMMIT}, which was asked for, found {COMMIT})");
    assert!(ended.code == Some(1) && ended.stderr.contains(&says), "{}", ended.stderr);
    assert_eq!(hub.asked().len(), 1);
    assert!(files(&here.path("hub")).is_empty());
}

/// Protects: what cannot be a model on the hub, or is none, and no network: one line each, in seconds.
#[test]
fn what_cannot_be_fetched() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    fs::create_dir(here.path("models")).expect("made");
    for (with, model, code, says) in [
        (Some(&hub), "tiny/none", 2, "--model tiny/none: expected a folder or a model on the hub"),
        (Some(&hub), "tiny/text", 2, "--model tiny/text: expected an SDXL model in diffusers' layout"),
        (None, "tiny/sdxl", 1, "connect to the network once, or give --model a folder that has the model"),
        (
            Some(&hub),
            "tiny/sdxl/unet",
            2,
            "--model tiny/sdxl/unet: expected a folder, a .safetensors file, or OWNER/NAME",
        ),
        (
            Some(&hub),
            "models/sdxl",
            2,
            "--model models/sdxl: expected a folder, a .safetensors file, or OWNER/NAME",
        ),
        (Some(&hub), "~/sdxl", 2, "--model ~/sdxl: expected a folder"),
        (Some(&hub), "models\\sdxl", 2, "expected a folder"),
    ] {
        hub.asked();
        let ended = predict(&here, with, model);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(code), 1), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(says), "{}", ended.stderr);
        assert_eq!(
            hub.asked().is_empty(),
            !says.contains("tiny/none") && !says.contains("tiny/text"),
            "{model}"
        );
    }
}

/// Protects: the token of the environment is shown to the hub.
#[test]
fn a_token_opens_what_is_gated() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    for (token, says) in [
        ("key", "found no model_index.json"),
        ("other", "HF_TOKEN (or the token that is saved) has to be of that account"),
        ("", "accept its licence at http://127.0.0.1"),
    ] {
        let ended = ended(&here, &["predict", "--model", "tiny/gated"], Some(&hub), &[("HF_TOKEN", token)]);
        assert!(ended.code == Some(2) && ended.stderr.contains(says), "{token}: {}", ended.stderr);
    }
}

/// Protects: a model is fetched whole from hubs, mirrors and lines of every kind.
#[test]
fn every_way_of_sending() {
    for way in [
        Way::Mirror,
        Way::Zips,
        Way::ZipsAlways,
        Way::Cut,
        Way::Silent,
        Way::Damaged,
        Way::Busy(500),
        Way::Busy(429),
        Way::Elsewhere,
        Way::Names("tokenizer/../../../../../../outside.json"),
    ] {
        let (here, hub) = (Sandbox::new(), Hub::with(way));
        let ended = fetch(&here, Some(&hub), &[("HF_TOKEN", "key")]);
        assert!(ended.stderr.contains(FETCHED), "{way:?}: {}", ended.stderr);
        assert_whole(&here, &format!("{way:?}"));
        let asked = hub.requests();
        let gone_on = asked.iter().filter(|asked| asked.range.is_some()).count();
        assert_eq!(gone_on, usize::from(matches!(way, Way::Cut | Way::Silent)), "{way:?}: {asked:?}");
        for asked in &asked {
            assert_eq!(asked.authorization.is_some(), asked.host == hub.address, "{way:?}: {asked:?}");
        }
        assert_eq!(asked.iter().any(|asked| asked.host != hub.address), way == Way::Elsewhere);
        let outside: Vec<_> =
            files(&here.path("")).into_iter().filter(|p| !p.starts_with(here.path("hub/hub"))).collect();
        assert_eq!(outside, Vec::<PathBuf>::new(), "{way:?}");
    }
}

/// Protects: a hub that sends what it must not, or nothing, ends in one line, soon, and no file of it is taken for whole.
#[test]
fn hubs_that_are_not_to_be_trusted() {
    for (way, code, says) in [
        (Way::Says("x-linked-etag", "\"/tmp/victim\""), 1, "ETag: expected 1 to 128 letters"),
        (Way::Says("etag", "\"../../../victim\""), 1, "ETag: expected 1 to 128 letters"),
        (Way::Says("x-repo-commit", "../../../../outside"), 1, "X-Repo-Commit: expected 4 to 64 hex digits"),
        (Way::Says("x-repo-commit", OTHER_COMMIT), 1, "X-Repo-Commit: expected 0123456789abcdef"),
        (Way::Says("x-linked-size", "5"), 1, "as the model's listing says, found 5"),
        (Way::Redirects(None), 1, "a redirect: expected to an address of the web, found none"),
        (Way::Redirects(Some("file:///etc/passwd")), 1, "a redirect: expected"),
        (Way::Redirects(Some("model_index.json")), 1, "expected at most 10 redirects"),
        (Way::DamagedAlways, 1, "unet/diffusion_pytorch_model.safetensors: its sum is not the one"),
        (Way::Longer, 1, "bytes, found more"),
        (Way::SilentAlways, 1, "nothing more came for 300ms"),
        (Way::Refuses(403), 2, "set HF_TOKEN"),
        (Way::Refuses(404), 2, "(status 404)"),
        (Way::Refuses(429), 1, "too many requests"),
        (Way::Refuses(503), 1, "try again later"),
        (Way::Refuses(418), 1, "status 418"),
    ] {
        let (here, hub) = (Sandbox::new(), Hub::with(way));
        let ended = fetch(&here, Some(&hub), &[]);
        assert!(ended.code == Some(code) && ended.stderr.contains(says), "{way:?}: {}", ended.stderr);
        let errors = ended.stderr.lines().filter(|line| !line.contains(": fetching ")).count();
        assert_eq!(errors, 1, "{way:?}: {}", ended.stderr);
        assert!(hub.requests().len() <= 30, "{way:?}");
        assert!(!snapshot(&here).join(UNET).exists() && !repo(&here).join("refs/main").exists(), "{way:?}");
        let root = here.path("hub/hub");
        let outside: Vec<_> =
            files(&here.path("")).into_iter().filter(|path| !path.starts_with(&root)).collect();
        assert_eq!(outside, Vec::<PathBuf>::new(), "{way:?}");
    }
}

/// Protects: a download that was given up is gone on with by the next run.
#[test]
fn a_download_is_gone_on_with() {
    let (here, hub) = (Sandbox::new(), Hub::with(Way::SilentAlways));
    fetch(&here, Some(&hub), &[]);
    let part = blob(&here, UNET).with_extension("incomplete");
    let there = fs::metadata(&part).expect("a part").len();
    let hub = Hub::start();
    let ended = fetch(&here, Some(&hub), &[]);
    assert!(ended.stderr.contains(FETCHED), "{}", ended.stderr);
    assert_whole(&here, "gone on with");
    let ranges: Vec<String> = hub.requests().into_iter().filter_map(|asked| asked.range).collect();
    assert_eq!(ranges, [format!("bytes={there}-")]);
}

/// Does something to a file of the model in the cache.
type Damage<'a> = &'a dyn Fn(&str);

/// Protects: what is missing, cut or damaged in the cache is found at the next run, and that alone is fetched again.
#[test]
fn a_cache_is_repaired() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    fetch(&here, Some(&hub), &[]);
    let flip = |name: &str| {
        let mut bytes = fs::read(blob(&here, name)).expect("a blob");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(blob(&here, name), bytes).expect("written");
    };
    let cut = |name: &str| {
        let bytes = fs::read(blob(&here, name)).expect("a blob");
        fs::write(blob(&here, name), &bytes[..bytes.len() / 2]).expect("written");
    };
    let remove = |name: &str| fs::remove_file(snapshot(&here).join(name)).expect("there");
    let vae = "vae/diffusion_pytorch_model.safetensors";
    let damages: [(Damage, &str); 8] = [
        (&flip, UNET),
        (&cut, vae),
        (&cut, "unet/config.json"),
        (&cut, "scheduler/scheduler_config.json"),
        (&remove, "scheduler/scheduler_config.json"),
        (&remove, vae),
        (&remove, "tokenizer_2/vocab.json"),
        (&remove, "model_index.json"),
    ];
    for (damage, name) in damages {
        hub.asked();
        damage(name);
        let offline = fetch(&here, Some(&hub), &[("HF_HUB_OFFLINE", "1")]);
        let says = "HF_HUB_OFFLINE is set";
        assert!(offline.code == Some(2) && offline.stderr.contains(says), "{name}: {}", offline.stderr);
        assert_eq!(hub.asked(), Vec::<String>::new());
        let ended = fetch(&here, Some(&hub), &[]);
        assert!(ended.stderr.contains(FETCHED), "{name}: {}", ended.stderr);
        assert_whole(&here, name);
        let asked = hub.asked();
        assert!(
            asked.iter().all(|path| path.ends_with(name) || path.starts_with("/api/")),
            "{name}: {asked:?}"
        );
    }
}

/// Protects: a cache that another program has filled, of files instead of links, where any of the variables says.
#[test]
fn a_cache_of_another_program() {
    let here = Sandbox::new();
    let model = here.path("elsewhere/models--tiny--sdxl");
    copy_folder(&tiny_model(), &model.join("snapshots").join(COMMIT));
    here.write("elsewhere/models--tiny--sdxl/refs/main", COMMIT);
    let elsewhere = here.path("elsewhere");
    for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
        let ended = fetch(&here, None, &[(name, elsewhere.to_str().expect("text")), ("HF_HUB_OFFLINE", "1")]);
        assert!(ended.stderr.contains(FETCHED), "{name}: {}", ended.stderr);
    }
    let ended = fetch(&here, None, &[("HF_HUB_OFFLINE", "perhaps")]);
    assert!(ended.stderr.contains("HF_HUB_OFFLINE: expected 1 or 0"), "{}", ended.stderr);
}

/// Protects: processes that fetch the same model at once do each other no harm, and fetch each large file once.
#[test]
fn several_at_once() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    let run = || fetch(&here, Some(&hub), &[]);
    std::thread::scope(|scope| {
        let runs = [(); 3].map(|()| scope.spawn(run));
        for run in runs {
            let ended = run.join().expect("no panic");
            assert!(ended.stderr.contains(FETCHED), "{}", ended.stderr);
        }
    });
    assert_whole(&here, "several");
}

/// Protects: a disk that is full is one line, which says for what.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    fs::create_dir_all(repo(&here).join("blobs")).expect("made");
    let part = blob(&here, UNET).with_extension("incomplete");
    std::os::unix::fs::symlink("/dev/full", part).expect("a link");
    let ended = fetch(&here, Some(&hub), &[]);
    let says = format!("the disk is too full for {UNET}");
    assert!(ended.code == Some(1) && ended.stderr.contains(&says), "{}", ended.stderr);
}
