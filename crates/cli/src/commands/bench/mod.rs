//! `calotype bench unet|vae|upscaler|ops|train`: times the networks and their ops, for the tables of docs/benchmarks/.
//!
//! `tools/reference/bench` makes the inputs and also times other programs. The last line of stdout is JSON.

mod inputs;
mod train;

use std::path::{Path, PathBuf};
use std::time::Instant;

use calotype_models::config::{UNetConfig, VaeConfig};
use calotype_models::weights::Network;
use calotype_models::{Swin2Sr, UNet, Vae};
use calotype_tensor::ops::{self, Conv, ConvArgs, LinearArgs, Mask, Padding};
use calotype_tensor::{DType, Tensor, Weight};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use self::inputs::{Inputs, weights};
use crate::dtype::DtypeName;
use crate::failure::Failure;
use crate::output;

/// What needs a network and its inputs.
const NETWORKS: [(&str, &str); 4] =
    [("what", "unet"), ("what", "vae"), ("what", "upscaler"), ("what", "train")];

#[derive(Debug, Args)]
struct BenchArgs {
    /// What to time
    #[arg(value_parser = ["unet", "vae", "upscaler", "ops", "train"])]
    what: String,
    /// Folder of the network
    #[arg(long, value_name = "DIR", required_if_eq_any(NETWORKS))]
    model: Option<PathBuf>,
    /// Safetensors with the network's inputs, images as NHWC
    #[arg(long, value_name = "FILE", required_if_eq_any(NETWORKS))]
    inputs: Option<PathBuf>,
    /// Where to write the network's output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// linear:M,K,N, gemm:M,K,N, conv:B,I,O,H,W,k,stride, attention:B,heads,d,T,S or attention_bwd:…
    #[arg(long = "op", value_name = "OP")]
    ops: Vec<String>,
    /// Rank of the LoRA that is trained
    #[arg(long, default_value_t = 32)]
    rank: usize,
    /// Recompute blocks on the way back
    #[arg(long)]
    recompute: bool,
    /// train: the UNet itself, by Adafactor, rather than LoRA
    #[arg(long)]
    full: bool,
    /// How often to run
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Number format
    #[arg(long, value_enum, default_value = "f32")]
    dtype: DtypeName,
    /// Threads to compute with
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

/// Adds the options. The command is for the project's own benchmarks, so the help does not list it.
pub fn options(command: Command) -> Command {
    BenchArgs::augment_args(command).hide(true).about("Time the networks and their ops")
}

/// Times the networks or ops, and prints the seconds.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let settings = BenchArgs::from_arg_matches(matches).map_err(|e| crate::args::in_one_line(&e))?;
    let report = match (settings.what.as_str(), &settings.model, &settings.inputs) {
        ("unet", Some(model), Some(inputs)) => time_unet(&settings, model, inputs)?,
        ("vae", Some(model), Some(inputs)) => time_vae(&settings, model, inputs)?,
        ("upscaler", Some(model), Some(inputs)) => time_upscaler(&settings, model, inputs)?,
        ("train", Some(model), Some(inputs)) => {
            let BenchArgs { dtype, runs, rank, recompute, full, .. } = settings;
            train::run(model, inputs, &train::Case { dtype: dtype.into(), runs, rank, recompute, full })?
        }
        _ => time_ops(&settings)?,
    };
    output::print(&format!("{report}\n"))
}

/// The seconds of each run, and the result of the last.
fn time<T>(runs: usize, mut f: impl FnMut() -> T) -> (Vec<f64>, Option<T>) {
    let mut last = None;
    let seconds = (0..runs).map(|_| {
        drop(last.take());
        let start = Instant::now();
        last = Some(f());
        start.elapsed().as_secs_f64()
    });
    (seconds.collect(), last)
}

fn time_unet(settings: &BenchArgs, model: &Path, inputs: &Path) -> Result<Value, Failure> {
    let dtype = settings.dtype.into();
    let start = Instant::now();
    let config = UNetConfig::read(model).map_err(calotype_sdxl::Error::from)?;
    let unet =
        UNet::load(&weights(model, Network::UNet, dtype)?, &config).map_err(calotype_sdxl::Error::from)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let inputs = Inputs::read(inputs)?;
    let sample = inputs.tensor("sample")?.to_dtype(dtype);
    let timestep = inputs.tensor("timestep")?.to_vec();
    let text = inputs.tensor("encoder_hidden_states")?.to_dtype(dtype);
    let (pooled, ids) = (inputs.tensor("text_embeds")?, inputs.tensor("time_ids")?);
    let (seconds, out) = time(settings.runs, || {
        // The texts' keys and values are part of a forward pass here, as in the other programs.
        unet.forward(&sample, &timestep, &unet.prepare(&text, &pooled, &ids))
    });
    write_output(settings.output.as_deref(), out)?;
    Ok(json!({ "seconds": seconds, "load_seconds": load_seconds }))
}

fn time_vae(settings: &BenchArgs, model: &Path, inputs: &Path) -> Result<Value, Failure> {
    let dtype = settings.dtype.into();
    let start = Instant::now();
    let config = VaeConfig::read(model).map_err(calotype_sdxl::Error::from)?;
    let vae =
        Vae::load(&weights(model, Network::Vae, dtype)?, &config).map_err(calotype_sdxl::Error::from)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let latents = Inputs::read(inputs)?.tensor("latents")?.to_dtype(dtype);
    let (seconds, out) = time(settings.runs, || vae.decode(&latents));
    write_output(settings.output.as_deref(), out)?;
    Ok(json!({ "seconds": seconds, "load_seconds": load_seconds }))
}

fn time_upscaler(settings: &BenchArgs, model: &Path, inputs: &Path) -> Result<Value, Failure> {
    let start = Instant::now();
    let network = Swin2Sr::open(model, settings.dtype.into()).map_err(calotype_sdxl::Error::from)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let pixels = Inputs::read(inputs)?.tensor("pixels")?;
    let (seconds, out) = time(settings.runs, || network.forward(&pixels));
    write_output(settings.output.as_deref(), out)?;
    Ok(json!({ "seconds": seconds, "load_seconds": load_seconds }))
}

fn time_ops(settings: &BenchArgs) -> Result<Value, Failure> {
    let mut report = serde_json::Map::new();
    for op in &settings.ops {
        report.insert(op.clone(), json!(time_op(op, settings)?));
    }
    Ok(json!({ "seconds": report }))
}

fn time_op(op: &str, settings: &BenchArgs) -> Result<Vec<f64>, Failure> {
    let bad = || Failure::BadInput(format!("--op {op}: unknown op or sizes"));
    let (kind, sizes) = op.split_once(':').ok_or_else(bad)?;
    let sizes: Vec<usize> =
        sizes.split(',').map(|n| n.parse().map_err(|_| bad())).collect::<Result<_, _>>()?;
    let dtype: DType = settings.dtype.into();
    let seconds = match (kind, sizes.as_slice()) {
        ("linear" | "gemm", &[m, k, n]) => {
            let (x, w) = (values(&[m, k], dtype), Weight::from_tensor(&values(&[n, k], dtype)));
            let bias = (kind == "linear").then(|| values(&[n], DType::F32));
            let args = LinearArgs { bias: bias.as_ref(), ..LinearArgs::default() };
            time(settings.runs, || ops::linear(&x, &w, args)).0
        }
        ("conv", &[b, i, o, h, w, k, stride]) => {
            let x = values(&[b, h, w, i], dtype);
            let weight = Weight::from_tensor(&values(&[o, i, k, k], dtype));
            let (bias, conv) = (values(&[o], DType::F32), Conv { stride, padding: Padding::Same });
            let args = ConvArgs { bias: Some(&bias), ..ConvArgs::default() };
            time(settings.runs, || ops::conv2d(&x, &weight, conv, args)).0
        }
        ("attention" | "attention_bwd", &[b, heads, d, t, s]) => {
            let [q, k, v] = [t, s, s].map(|rows| values(&[b, rows, heads * d], dtype));
            if kind == "attention" {
                time(settings.runs, || ops::attention(&q, &k, &v, heads, Mask::None)).0
            } else {
                let [q, k, v] = [q, k, v].map(Tensor::var);
                time(settings.runs, || ops::attention(&q, &k, &v, heads, Mask::None).backward()).0
            }
        }
        _ => return Err(bad()),
    };
    Ok(seconds)
}

/// Numbers from −1 to 1 that repeat with a long period.
fn values(shape: &[usize], dtype: DType) -> Tensor {
    let count = shape.iter().product();
    let values = (0..count).map(|i: usize| (i * 7919 % 2003) as f32 / 1001.0 - 1.0);
    Tensor::from_vec(values.collect(), shape).to_dtype(dtype)
}

fn write_output(path: Option<&Path>, out: Option<Tensor>) -> Result<(), Failure> {
    let (Some(path), Some(out)) = (path, out) else { return Ok(()) };
    let bytes: Vec<u8> = out.to_vec().into_iter().flat_map(f32::to_le_bytes).collect();
    let failed = |e: String| Failure::Failed(format!("{}: {e}", path.display()));
    let view =
        TensorView::new(Dtype::F32, out.shape().to_vec(), &bytes).map_err(|e| failed(e.to_string()))?;
    let file = safetensors::serialize([("out", view)], None).map_err(|e| failed(e.to_string()))?;
    std::fs::write(path, file).map_err(|e| failed(e.to_string()))
}
