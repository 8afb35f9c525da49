//! How the tokens of a caption are chosen.

use calotype_models::config::BlipTextConfig;
use calotype_models::{Blip, PictureKeys, TextCache};
use calotype_tensor::rng::TorchCpu;

use super::networks::{NotFinite, finite};

/// The texts that a beam search follows.
const BEAMS: usize = 3;

/// The first and last token of a caption, and the tokens that it may have, these two among them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    begin: u32,
    end: u32,
    least: usize,
    most: usize,
}

impl Limits {
    pub(super) fn new(config: &BlipTextConfig, least: usize, most: usize) -> Self {
        let most = most.min(config.max_position_embeddings);
        Self { begin: config.bos_token_id, end: config.sep_token_id, least, most }
    }
}

/// Takes the likeliest token each time.
pub(super) fn greedy(net: &Blip, picture: &PictureKeys, limits: Limits) -> Result<Vec<u32>, NotFinite> {
    one_by_one(net, picture, limits, likeliest)
}

/// Draws each token by the probabilities of the `top_k` likeliest, after the logits have been divided by the temperature.
pub(super) fn sample(
    net: &Blip,
    picture: &PictureKeys,
    limits: Limits,
    (temperature, top_k): (f32, usize),
    seed: u64,
) -> Result<Vec<u32>, NotFinite> {
    // The generator takes 32 bits.
    let mut random = TorchCpu::new(seed ^ (seed >> 32));
    one_by_one(net, picture, limits, |logits| {
        draw(&probabilities(logits, temperature, top_k), f64::from(random.rand(1)[0]))
    })
}

fn one_by_one(
    net: &Blip,
    picture: &PictureKeys,
    limits: Limits,
    mut choose: impl FnMut(&[f32]) -> u32,
) -> Result<Vec<u32>, NotFinite> {
    let (mut tokens, mut cache, mut last) = (vec![limits.begin], [net.empty_text()], limits.begin);
    while tokens.len() < limits.most {
        last = choose(finite(&net.step(picture, &[last], &mut cache).to_vec())?);
        tokens.push(last);
        if last == limits.end {
            break;
        }
    }
    Ok(tokens)
}

/// The first of the largest logits.
fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0
}

/// Of each token that may be drawn, its probability. Of tokens as likely as the last of the `top_k`, all are kept.
fn probabilities(logits: &[f32], temperature: f32, top_k: usize) -> Vec<(u32, f64)> {
    let mut sorted = logits.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let Some((&largest, &least)) = sorted.first().zip(sorted.get(top_k - 1).or(sorted.last())) else {
        return Vec::new();
    };
    let kept = (0..).zip(logits).filter(|(_, logit)| **logit >= least);
    let weigh =
        |(token, logit): (u32, &f32)| (token, (f64::from(logit - largest) / f64::from(temperature)).exp());
    let weights: Vec<(u32, f64)> = kept.map(weigh).collect();
    let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
    weights.into_iter().map(|(token, weight)| (token, weight / sum)).collect()
}

/// The token where the sum of the probabilities up to it exceeds `uniform`, a number from 0 to below 1.
fn draw(probabilities: &[(u32, f64)], uniform: f64) -> u32 {
    let mut sum = 0.0;
    let exceeds = |(_, probability): &&(u32, f64)| {
        sum += probability;
        sum > uniform
    };
    let found = probabilities.iter().find(exceeds).or(probabilities.last());
    found.map_or(0, |(token, _)| *token)
}

/// A text of a beam search.
#[derive(Clone)]
struct Beam {
    tokens: Vec<u32>,
    cache: TextCache,
    /// The sum of the logarithms of the tokens' probabilities.
    score: f32,
}

/// Follows the [`BEAMS`] likeliest texts and takes the one whose tokens are the likeliest on average, as transformers does with
/// `num_beams=3`. Before it has `least` tokens, no text ends.
pub(super) fn beam(net: &Blip, picture: &PictureKeys, limits: Limits) -> Result<Vec<u32>, NotFinite> {
    let begin = Beam { tokens: vec![limits.begin], cache: net.empty_text(), score: 0.0 };
    let (mut running, mut finished) = (vec![begin], Vec::<(f32, Vec<u32>)>::new());
    while let Some(length) = running.first().map(|beam| beam.tokens.len()).filter(|n| *n < limits.most) {
        let candidates = candidates(net, picture, limits, &mut running)?;
        let ends = |token: u32| token == limits.end || length + 1 == limits.most;
        let longer = |beam: usize, token| [running[beam].tokens.as_slice(), &[token]].concat();
        // Only the first of the candidates may end a text; the others are there so that there are enough that go on.
        let ended = candidates.iter().take(BEAMS).filter(|(_, _, token)| ends(*token));
        finished.extend(ended.map(|&(score, beam, token)| (score / length as f32, longer(beam, token))));
        finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        finished.truncate(BEAMS);
        let going_on = candidates.iter().filter(|(_, _, token)| !ends(*token)).take(BEAMS);
        running = going_on
            .map(|&(score, beam, token)| Beam {
                tokens: longer(beam, token),
                cache: running[beam].cache.clone(),
                score,
            })
            .collect();
        let best = running.first().map_or(f32::NEG_INFINITY, |beam| beam.score / length as f32);
        if finished.len() == BEAMS && best <= finished[BEAMS - 1].0 {
            break;
        }
    }
    Ok(match finished.into_iter().next() {
        Some((_, tokens)) => tokens,
        None => running.into_iter().next().map_or(vec![limits.begin], |beam| beam.tokens),
    })
}

/// The likeliest continuations of all running texts, twice as many as [`BEAMS`]: score, text and token.
fn candidates(
    net: &Blip,
    picture: &PictureKeys,
    limits: Limits,
    running: &mut [Beam],
) -> Result<Vec<(f32, usize, u32)>, NotFinite> {
    let last: Vec<u32> = running.iter().map(|beam| beam.tokens[beam.tokens.len() - 1]).collect();
    let mut caches: Vec<TextCache> = running.iter_mut().map(|beam| std::mem::take(&mut beam.cache)).collect();
    let logits = net.step(picture, &last, &mut caches);
    let (mut all, values) = (Vec::new(), logits.to_vec());
    let texts = running.iter_mut().zip(caches).zip(finite(&values)?.chunks(logits.last_dim())).enumerate();
    for (i, ((beam, cache), logits)) in texts {
        beam.cache = cache;
        let may_end = beam.tokens.len() >= limits.least;
        let scored = (0..).zip(log_softmax(logits)).filter(|(token, _)| may_end || *token != limits.end);
        all.extend(scored.map(|(token, log)| (beam.score + log, i, token)));
    }
    // Sorted stably, so that of equals the first comes first.
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all.truncate(2 * BEAMS);
    Ok(all)
}

/// Logarithms of probabilities.
fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    logits.iter().map(|logit| logit - largest - sum.ln() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects what is drawn: only the likeliest tokens, in proportion to their probabilities, whatever the uniform number.
    #[test]
    fn draws_by_probability() {
        let logits = [0.0, 2.0_f32.ln(), -9.0, -8.0, 4.0_f32.ln()];
        let kept = probabilities(&logits, 1.0, 3);
        assert_eq!(kept.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 1, 4]);
        for ((_, found), want) in kept.iter().zip([1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0]) {
            assert!((found - want).abs() < 1e-6);
        }
        for (uniform, token) in [(0.0, 0), (0.14, 0), (0.15, 1), (0.43, 4), (0.999_999_999_999, 4), (1.0, 4)]
        {
            assert_eq!(draw(&kept, uniform), token, "{uniform}");
        }
        let sharper = probabilities(&logits, 0.5, 3);
        assert!((sharper[2].1 - 16.0 / 21.0).abs() < 1e-6, "{sharper:?}");
        assert_eq!(probabilities(&logits, 1.0, 50).len(), 5);
    }
}
