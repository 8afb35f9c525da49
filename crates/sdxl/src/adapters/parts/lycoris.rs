//! The parts of LoHa, LoKr and OFT, as LyCORIS and PEFT store them.

use calotype_tensor::Tensor;

use super::super::change::{Factor, FactorForm, Hadamard, Kronecker, Rotation};
use super::super::key::Part;
use super::super::values::shape_problem;
use super::{Layer, Parts, Problem};
use calotype_models::weights::tuple;

/// The two factors of a matrix, with Tucker's core between them.
type Factors = (Tensor, Tensor, Option<Tensor>);

impl Parts {
    /// A layer's LoHa.
    pub(super) fn hadamard(mut self, layer: &Layer) -> Result<Hadamard, Problem> {
        let size = self.size(layer, "LoHa")?;
        let parts = |i| [Part::HadaA(i), Part::HadaB(i), Part::HadaCore(i)];
        let (a1, b1, core1) = self.factors(parts(0), ["hada_w1_a", "hada_w1_b"], size, layer)?;
        let (a2, b2, core2) = self.factors(parts(1), ["hada_w2_a", "hada_w2_b"], size, layer)?;
        let cores = match (core1, core2) {
            (None, None) => None,
            (Some(first), Some(second)) => Some([first, second]),
            _ => return Err((layer.path.into(), "expected hada_t1 and hada_t2, found one of them".into())),
        };
        let rank = b1.dim(0);
        let scale = f64::from(self.alpha(layer, rank)?) / rank as f64;
        self.none_left()?;
        Ok(Hadamard { a: [a1, a2], b: [b1, b2], cores, scale })
    }

    /// A layer's LoKr.
    pub(super) fn kronecker(mut self, layer: &Layer) -> Result<Kronecker, Problem> {
        let [out, inputs, taps] = self.size(layer, "LoKr")?;
        let (first, first_rank) = match self.0.remove(&Part::Lokr(0)) {
            Some((key, whole)) => match *whole.shape() {
                [rows, columns] | [rows, columns, 1, 1] if rows * columns > 0 => {
                    (Factor { size: [rows, columns, 1], form: FactorForm::Whole(whole) }, None)
                }
                _ => return Err((key, shape_problem("a matrix", &whole))),
            },
            None => {
                let (_, a) = self.peek(Part::LokrA(0), "lokr_w1 or lokr_w1_a")?;
                let (_, b) = self.peek(Part::LokrB(0), "lokr_w1_b")?;
                let rows = a.shape().first().copied().unwrap_or(0);
                let size = [rows, b.shape().get(1).copied().unwrap_or(0), 1];
                self.low_rank([Part::LokrA(0), Part::LokrB(0)], None, size, layer)?
            }
        };
        let [rows, columns, _] = first.size;
        if rows * columns == 0 || !out.is_multiple_of(rows) || !inputs.is_multiple_of(columns) {
            let problem =
                format!("expected a first factor that divides ({out}, {inputs}), found ({rows}, {columns})");
            return Err((layer.path.into(), problem));
        }
        let size = [out / rows, inputs / columns, taps];
        let (second, second_rank) = match self.0.remove(&Part::Lokr(1)) {
            Some((key, whole)) => {
                let elements: usize = size.iter().product();
                if whole.shape().first() != Some(&size[0]) || whole.numel() != elements {
                    let expected = tuple(&[&size[..2], &layer.weight(&key, "LoKr")?[2..]].concat());
                    return Err((key, shape_problem(&expected, &whole)));
                }
                (Factor { size, form: FactorForm::Whole(whole) }, None)
            }
            None => self.low_rank([Part::LokrA(1), Part::LokrB(1)], Some(Part::LokrCore), size, layer)?,
        };
        let scale = self.kronecker_scale(layer, second_rank.or(first_rank))?;
        self.none_left()?;
        Ok(Kronecker { first, second, scale })
    }

    /// alpha / rank. Where neither factor is of low rank, LyCORIS does not scale; PEFT does, by its config.
    fn kronecker_scale(&mut self, layer: &Layer, rank: Option<usize>) -> Result<f64, Problem> {
        if let Some(rank) = rank {
            return Ok(f64::from(self.alpha(layer, rank)?) / rank as f64);
        }
        let fail = |problem| (layer.path.to_owned(), problem);
        let configured = layer.peft.rank(layer.component, layer.path).map_err(fail)?;
        match (self.0.remove(&Part::Alpha), configured) {
            (None, Some(rank)) => {
                let alpha = layer.peft.alpha(layer.component, layer.path, 1).map_err(fail)?;
                Ok(alpha.map_or(1.0, |alpha| f64::from(alpha) / rank))
            }
            _ => Ok(1.0),
        }
    }

    /// A factor of LoKr that is of low rank itself, and its rank.
    fn low_rank(
        &mut self,
        [a, b]: [Part; 2],
        core: Option<Part>,
        size: [usize; 3],
        layer: &Layer,
    ) -> Result<(Factor, Option<usize>), Problem> {
        let names =
            if core.is_some() { ["lokr_w2 or lokr_w2_a", "lokr_w2_b"] } else { ["lokr_w1_a", "lokr_w1_b"] };
        let (a, b, core) = self.factors([a, b, core.unwrap_or(Part::LokrCore)], names, size, layer)?;
        let rank = b.dim(0);
        Ok((Factor { size, form: FactorForm::LowRank { a, b, core } }, Some(rank)))
    }

    /// Two factors of a matrix of this size (rows, columns, kernel positions), and Tucker's core if there is one.
    fn factors(
        &mut self,
        [a, b, core]: [Part; 3],
        names: [&str; 2],
        [rows, columns, taps]: [usize; 3],
        layer: &Layer,
    ) -> Result<Factors, Problem> {
        let (a_key, a) = self.need(a, names[0])?;
        let (b_key, b) = self.need(b, names[1])?;
        let core = if taps > 1 { self.0.remove(&core) } else { None };
        let rank = b.shape().first().copied().unwrap_or(0);
        let a_rank = a.shape().get(usize::from(core.is_none())).copied();
        if rank == 0 || a.shape().len() != 2 || (core.is_none() && a_rank != Some(rank)) || a_rank == Some(0)
        {
            let expected =
                if core.is_none() { format!("({rows}, {rank})") } else { format!("(rank, {rows})") };
            return Err((a_key, shape_problem(&expected, &a)));
        }
        let (want_a, want_b) = match core {
            None => (vec![rows, rank], vec![rank, columns * taps]),
            Some(_) => (vec![a.dim(0), rows], vec![rank, columns]),
        };
        if a.shape() != want_a {
            return Err((a_key, shape_problem(&tuple(&want_a), &a)));
        }
        if b.numel() != want_b.iter().product::<usize>() {
            return Err((b_key, shape_problem(&tuple(&want_b), &b)));
        }
        let b = b.reshape(&want_b);
        let Some((core_key, core)) = core else { return Ok((a, b, None)) };
        let want = [&[a.dim(0), rank], &layer.weight(&core_key, "LoKr")?[2..]].concat();
        match core.shape() == want {
            true => Ok((a, b, Some(core))),
            false => Err((core_key, shape_problem(&tuple(&want), &core))),
        }
    }

    /// A layer's OFT, or BOFT where the blocks have stages.
    pub(super) fn rotation(mut self, layer: &Layer) -> Result<Rotation, Problem> {
        let [out, ..] = self.size(layer, "OFT")?;
        let (key, blocks) = self.need(Part::OftBlocks, "oft_blocks")?;
        let fits = match *blocks.shape() {
            [blocks, rows, columns] => rows == columns && blocks * rows == out,
            [stages, blocks, rows, columns] => {
                // Each stage brings groups of rows together that are twice as far apart.
                let last = u32::try_from(stages).ok().and_then(|n| 1usize.checked_shl(n)).unwrap_or(0);
                let group = last.checked_mul(rows / 2).filter(|group| *group > 0);
                rows == columns
                    && rows.is_multiple_of(2)
                    && stages > 0
                    && blocks * rows == out
                    && group.is_some_and(|group| out.is_multiple_of(group))
            }
            _ => false,
        };
        if !fits {
            let expected = format!("(blocks, size, size) of {out} rows in all, or BOFT's stages of such");
            return Err((key, shape_problem(&expected, &blocks)));
        }
        let rescale = self.0.remove(&Part::OftRescale);
        if let Some((key, rescale)) = rescale.as_ref().filter(|(_, rescale)| rescale.numel() != out) {
            return Err((key.clone(), shape_problem(&format!("({out})"), rescale)));
        }
        // The file's alpha is the limit for each output.
        let alpha = self.0.remove(&Part::Alpha).and_then(|(_, alpha)| alpha.f32s().first().copied());
        let constraint = f64::from(alpha.unwrap_or(0.0)) * out as f64;
        self.none_left()?;
        Ok(Rotation { blocks, rescale: rescale.map(|(_, rescale)| rescale), constraint })
    }

    /// Outputs, inputs, and positions of the kernel (1 for a linear layer).
    fn size(&self, layer: &Layer, kind: &str) -> Result<[usize; 3], Problem> {
        let key = self.0.values().next().map_or(layer.path, |(key, _)| key);
        let shape = layer.weight(key, kind)?;
        Ok([shape[0], shape[1], shape[2..].iter().product()])
    }

    /// A part that must be there, which stays.
    fn peek(&self, part: Part, what: &str) -> Result<&(String, Tensor), Problem> {
        let key = || self.0.values().next().map_or_else(String::new, |(key, _)| key.clone());
        self.0.get(&part).ok_or_else(|| (key(), format!("without {what}")))
    }
}
