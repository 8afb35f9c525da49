//! Reading PyTorch's files: what torch wrote (`tools/reference/golden/torch_files.py`) has the values that it had, and files that are cut
//! off, changed, or ask for anything but tensors are refused, each with one line.

#[path = "../../sdxl/tests/temp/mod.rs"]
mod temp;

use std::path::{Path, PathBuf};

use calotype_models::weights::{Network, Weights};
use safetensors::{Dtype, SafeTensors};
use temp::{Temp, golden};

fn file(name: &str) -> PathBuf {
    golden().join("torch_files").join(name)
}

fn open(path: &Path) -> Result<Weights, String> {
    Weights::open_file(path, Network::UNet, None).map_err(|e| e.to_string())
}

/// The error of opening these bytes.
fn refused(bytes: &[u8]) -> String {
    let temp = Temp::new();
    let said = open(&temp.write("weights.bin", bytes)).err().expect("refused");
    assert!(!said.contains('\n') && said.contains("weights.bin: "), "{said}");
    said
}

/// Tensors of each dtype, tied ones, parts of others, transposed and permuted ones, an empty one and a scalar.
#[test]
fn tensors_are_those_of_torch() {
    let weights = open(&file("plain.bin")).unwrap();
    let bytes = std::fs::read(file("plain.safetensors")).unwrap();
    let want = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for (key, view) in want.tensors() {
        if view.dtype() != Dtype::F32 {
            continue;
        }
        let values: Vec<f32> =
            view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert_eq!(weights.tensor(&key, view.shape()).unwrap().to_vec(), values, "{key}");
        compared += 1;
    }
    assert_eq!(compared, 15);
    let said = weights.tensor("i64", &[1, 6]).unwrap_err().to_string();
    assert!(said.ends_with("i64: expected f32, f16, bf16, f8_e4m3 or f8_e5m2, found I64"), "{said}");
    let said = weights.tensor("f32", &[5, 3]).unwrap_err().to_string();
    assert!(said.ends_with("plain.bin: f32: expected (5, 3), found (3, 5)"), "{said}");
}

/// A layer's weights, and the state dict of a training's file: the averages, where there are some.
#[test]
fn state_dicts() {
    for name in ["module.bin", "params.pth", "params_ema.pth"] {
        let weights = open(&file(name)).unwrap();
        assert_eq!(
            weights.tensor("weight", &[2, 3]).unwrap().f32s(),
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
            "{name}"
        );
        assert_eq!(weights.tensor("bias", &[2]).unwrap().f32s(), [0.0, 1.0]);
        weights.finish().unwrap();
    }
}

/// A folder's safetensors are preferred, then PyTorch's file, whole or in shards.
#[test]
fn folders() {
    let temp = Temp::new();
    let open = || Weights::open(temp.path(), Network::SafetyChecker, None, None);
    let module = std::fs::read(file("module.bin")).unwrap();
    temp.write("pytorch_model-00001-of-00001.bin", &module);
    let said = open().err().expect("no weights").to_string();
    assert!(said.contains("expected model.safetensors or pytorch_model.bin"), "{said}");
    let index = r#"{"weight_map": {"weight": "pytorch_model-00001-of-00001.bin", "bias": "pytorch_model-00001-of-00001.bin"}}"#;
    temp.write("pytorch_model.bin.index.json", index);
    assert_eq!(open().unwrap().tensor("bias", &[2]).unwrap().f32s(), [0.0, 1.0]);
    std::fs::remove_file(temp.path().join("pytorch_model.bin.index.json")).unwrap();
    temp.write("pytorch_model.bin", &module);
    assert_eq!(open().unwrap().tensor("bias", &[2]).unwrap().f32s(), [0.0, 1.0]);
    temp.write("model.safetensors", std::fs::read(file("plain.safetensors")).unwrap());
    assert!(open().unwrap().tensor("f32", &[3, 5]).is_ok());
}

/// Files that torch writes and that are not weights, or not in the format that is read. Nothing is called.
#[test]
fn other_files_are_refused() {
    for (name, says) in [
        ("calls.pth", "asks for posix.system: only plain tensors are read, and nothing is ever called"),
        ("whole_module.pth", "asks for torch.nn.modules.linear.Linear"),
        (
            "old_format.pth",
            "before version 1.6 (a bare pickle), which is not read: load it with torch.load and save it again",
        ),
        ("list.pth", "data.pkl"),
        ("number.pth", "epoch: expected a tensor, found a number"),
        ("f64.pth", "asks for torch.DoubleStorage"),
        ("protocol_4.pth", "expected pickle protocol 2, found 4"),
        ("expanded.pth", "shape (1000, 1000), strides (0, 0), offset 0: expected a part of 1 elements"),
        ("compressed.pth", "data/1: expected a stored entry, found a compressed or encrypted one"),
        ("no_weights.zip", "without PyTorch's data.pkl"),
    ] {
        let said = open(&file(name)).err().expect(name);
        assert!(said.contains(says) && said.contains(name) && !said.contains('\n'), "{said}");
    }
}

/// A file that ends anywhere is refused, or has all that it had.
#[test]
fn truncated_files_are_refused() {
    let whole = std::fs::read(file("module.bin")).unwrap();
    for length in (0..whole.len()).step_by(7) {
        let said = refused(&whole[..length]);
        let says =
            "not a whole PyTorch file (a zip archive): its list of entries, which is at its end, is missing";
        assert!(length < 9 || said.contains(says), "{length}: {said}");
    }
    // Bare pickles, of each protocol; a safetensors file may begin with the same bytes.
    for protocol in 2..=5 {
        assert!(refused(&[0x80, protocol, b'}', b'q', 0, b'.']).contains("before version 1.6"), "{protocol}");
        let header = [&[0x80, protocol, 0, 0, 0, 0, 0, 0, b'{'][..], &[b' '; 2000]].concat();
        assert!(refused(&header).contains("not a safetensors file"), "{protocol}");
    }
}

/// The bytes of `module.bin` with a part of its pickle replaced, once, by another of the same length.
fn edited(from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(file("module.bin")).unwrap();
    let at = bytes.windows(from.len()).position(|part| part == from).expect("the part");
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

/// Sizes, offsets and strides that lead out of a storage, storages that are larger than the file says, and programs that a pickle should not
/// have.
#[test]
fn false_pickles_are_refused() {
    // (2, 3) and (3, 1): numbers of one byte each, tuples of two, each with its place in the memo.
    let shape = |text: &[u8]| {
        let bytes = std::fs::read(file("module.bin")).unwrap();
        assert!(bytes.windows(text.len()).any(|part| part == text), "{text:?}");
    };
    shape(b"K\x02K\x03\x86");
    shape(b"K\x03K\x01\x86");
    for (from, to, says) in [
        (&b"K\x02K\x03\x86"[..], &b"K\x03K\x03\x86"[..], "weight: shape (3, 3), strides (3, 1), offset 0"),
        (
            b"K\x03K\x01\x86",
            b"K\x04K\x01\x86",
            "weight: shape (2, 3), strides (4, 1), offset 0: expected a part of 6",
        ),
        (b"K\x06tq", b"K\x07tq", "weight: expected 7 elements of 4 bytes, found 24 bytes"),
        (b"QK\x00K\x02K\x03", b"QK\x01K\x02K\x03", "offset 1"),
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009", "data/9: missing"),
        (b"FloatStorage", b"EvilsStorage", "asks for torch.EvilsStorage"),
        (b"OrderedDict", b"OrderedDick", "asks for collections.OrderedDick"),
        (b"\x80\x02ccoll", b"\x80\x05ccoll", "expected pickle protocol 2, found 5"),
        (b"\x80\x02ccoll", b"\x80\x02icoll", "instruction 0x69"),
        (b"X\x06\x00\x00\x00weight", b"X\xff\xff\xff\xffweight", "expected 4294967295 more bytes"),
        (b"X\x06\x00\x00\x00weight", b"X\x06\x00\x00\x00weigh\xff", "expected UTF-8"),
    ] {
        let said = refused(&edited(from, to));
        assert!(said.contains(says), "{said}, expected {says}");
    }
}

/// Protects terminals: a key is quoted without its control characters.
#[test]
fn keys_are_quoted_on_one_line() {
    let temp = Temp::new();
    let path = temp.write("weights.bin", edited(b"X\x06\x00\x00\x00weight", b"X\x06\x00\x00\x00we\n\x1bht"));
    let said = open(&path).unwrap().tensor("we\n\x1bht", &[6]).unwrap_err().to_string();
    assert!(said.ends_with("we  ht: expected (6,), found (2, 3)"), "{said:?}");
}

/// A zip of one entry, `a/data.pkl`, and a storage of 8 bytes.
fn torch_file(program: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("a/data.pkl", program), ("a/data/0", &[0; 8])] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Protects memory against programs that make more values than a state dict of their length has, each of few bytes, in each table that the
/// reader keeps; and against a dict of more tensors than a file may have.
#[test]
fn programs_that_hold_too_much() {
    let tensor = b"ctorch._utils\n_rebuild_tensor_v2\nq\x00ctorch\nFloatStorage\nq\x01\
        ((X\x07\x00\x00\x00storageh\x01X\x01\x00\x00\x000h\x01K\x01tQK\x00(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01tq\x02h\x02tq\x03";
    for (begins, each, count) in [
        (&b""[..], &b"N"[..], 1 << 18),
        (b"", b"}", 1 << 18),
        (b")", b"\x85", 1 << 18),
        (tensor, b"h\x00h\x03R", 1 << 14),
    ] {
        let program = [b"\x80\x02", begins, &each.repeat(count), b"."].concat();
        let said = refused(&torch_file(&program));
        let most = (1 << 16) + 16 * program.len();
        let says = format!("expected values of at most {most} bytes, as a state dict has, found more");
        assert!(said.contains(&says), "{each:?}: {said}");
    }
    let many =
        [&b"\x80\x02}(X\x01\x00\x00\x00kq\x00K\x01q\x01"[..], &b"h\x00h\x01".repeat(1 << 16), b"u."].concat();
    assert!(refused(&torch_file(&many)).contains("a dict: expected at most 65536 items, found 65537"));
}

/// Protects memory, time and the stack against programs: values nested a million deep, values that contain themselves, text that many
/// keys share, and stacks that are empty.
#[test]
fn hostile_programs_end() {
    let nested = [&b"\x80\x02)"[..], &b"\x85".repeat(2_000), b"."].concat();
    assert!(refused(&torch_file(&nested)).contains("expected a dict of tensors, found a tuple"));
    // A dict that is its own value.
    let said = refused(&torch_file(b"\x80\x02}q\x00X\x06\x00\x00\x00paramsh\x00s."));
    assert!(said.contains("params: expected a tensor, found a dict"), "{said}");
    let long = [&b"\x80\x02}(X\x00\x00\x01\x00"[..], &b"k".repeat(1 << 16), b"q\x00K\x01"].concat();
    let shared = [&long[..], &b"h\x00K\x01".repeat(60_000), b"u."].concat();
    assert!(refused(&torch_file(&shared)).contains("expected a tensor, found a number"));
    for (program, says) in [
        (&b""[..], "truncated?"),
        (b"\x80\x02", "truncated?"),
        (b"\x80\x02.", "expected 1 values on the stack, found 0"),
        (b"\x80\x02((u.", "found nothing"),
        (b"\x80\x02}(}s.", "expected 2 values on the stack, found 1"),
        (b"\x80\x02h\x07.", "no value has the number 7"),
        (b"\x80\x02t.", "expected a mark"),
        (b"\x80\x02)R.", "expected 2 values"),
        (b"\x80\x02))R.", "expected a tensor or an empty dict, found a tuple of a tuple"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "found a name of a tuple"),
        (b"\x80\x02)Q.", "a storage: expected"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "a tensor: expected"),
        (b"\x80\x02\x8a\xff", "truncated?"),
        (b"\x80\x02}K\x01K\x02s.", "a key of a dict: expected text, found a number"),
        (b"\x80\x02ctorch\n", "expected the end of a line"),
    ] {
        let said = refused(&torch_file(program));
        assert!(said.contains(says), "{said}, expected {says}");
    }
}
