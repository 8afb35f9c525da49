//! A tensor in a file or in memory, whose bytes are read only when they are needed.

use std::io::{self, Write};
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use calotype_tensor::io::Mmap;
use calotype_tensor::{DType, Tensor, WeightBytes};

use calotype_models::nn::Trainable;
use calotype_models::weights::to_f32;

/// A part of a mapped file. A clone is cheap; the map lives as long as its last part.
#[derive(Clone)]
pub(super) struct Region {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl Region {
    pub(super) fn whole(map: Mmap) -> Self {
        let range = 0..map.len();
        Self { map: Arc::new(map), range }
    }

    /// A part of this part. `None`: the range is not inside.
    pub(super) fn part(&self, range: Range<usize>) -> Option<Self> {
        let inside = range.start <= range.end && range.end <= self.len();
        let range = self.range.start + range.start..self.range.start + range.end;
        inside.then(|| Self { map: self.map.clone(), range })
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

/// A tensor that may be large, such as a full fine-tune's. The tensor is mapped from its file, in memory, or a parameter that is
/// being trained.
#[derive(Clone)]
pub struct Stored {
    shape: Vec<usize>,
    dtype: DType,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Held(Tensor),
    Mapped(Region),
    /// With a copy of the values, made at the first call of `bytes`.
    Training(Arc<dyn Trainable>, OnceLock<Tensor>),
}

impl Stored {
    /// A tensor in a file. The length of `region` suits shape and dtype.
    pub(super) fn mapped(region: Region, shape: Vec<usize>, dtype: DType) -> Self {
        Self { shape, dtype, data: Data::Mapped(region) }
    }

    /// A parameter of this shape that is being trained, f32. Its values are those at the first call of [`Self::bytes`], or at
    /// the time of writing.
    pub fn training(shape: Vec<usize>, parameter: Arc<dyn Trainable>) -> Self {
        Self { shape, dtype: DType::F32, data: Data::Training(parameter, OnceLock::new()) }
    }

    /// The sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The dtype of the elements, which may be f16.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The elements' bytes, little-endian.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Mapped(region) => region,
            Data::Held(tensor) => tensor_bytes(tensor),
            Data::Training(parameter, values) => {
                // Copying is a parallel loop, so it stays outside of the cell (see `Weight::packed`).
                let copied = values.get().is_none().then(|| parameter.values());
                tensor_bytes(values.get_or_init(|| copied.unwrap_or_else(|| parameter.values())))
            }
        }
    }

    /// The number of bytes.
    pub fn size(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }

    /// Writes the bytes. Keeps no copy in memory that was not there before.
    pub(super) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        match &self.data {
            Data::Training(parameter, _) => to.write_all(tensor_bytes(&parameter.values())),
            _ => to.write_all(self.bytes()),
        }
    }

    /// The elements as an f32 tensor.
    pub fn to_tensor(&self) -> Tensor {
        Tensor::from_vec(to_f32(self.bytes(), self.dtype), &self.shape)
    }
}

impl WeightBytes for Stored {
    fn bytes(&self) -> &[u8] {
        self.bytes()
    }

    fn release(&self) {
        if let Data::Mapped(region) = &self.data {
            region.map.release(region.range.clone());
        }
    }
}

fn tensor_bytes(tensor: &Tensor) -> &[u8] {
    match tensor.dtype() {
        DType::F32 => bytemuck::cast_slice(tensor.f32s()),
        _ => bytemuck::cast_slice(tensor.bf16s()),
    }
}

impl From<Tensor> for Stored {
    fn from(tensor: Tensor) -> Self {
        Self { shape: tensor.shape().to_vec(), dtype: tensor.dtype(), data: Data::Held(tensor) }
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        (&self.shape, self.dtype) == (&other.shape, other.dtype) && self.bytes() == other.bytes()
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({:?}, {})", self.shape, self.dtype)
    }
}
