//! Which kernels compute on a device, and tensors' ways in and out of its memory.

use crate::backend::Backend;
use crate::cpu::Cpu;
use crate::dtype::DType;
use crate::memory::Device;
use crate::meta::Meta;
use crate::tensor::Tensor;

impl Device {
    pub(crate) fn kernels(self) -> &'static dyn Backend {
        match self {
            Device::Cpu => &Cpu,
            Device::Meta => &Meta,
            #[cfg(test)]
            Device::Reference => &crate::reference::Reference,
        }
    }

    /// An f32 tensor with a copy of these values, in the device's memory.
    ///
    /// # Panics
    /// If the shape has another number of elements.
    pub fn upload(self, values: &[f32], shape: &[usize]) -> Tensor {
        self.kernels().upload(values, shape, DType::F32)
    }

    /// A tensor of zeros, in the device's memory.
    ///
    /// # Panics
    /// If the dtype is f16, or no memory can be so large.
    pub fn zeros(self, shape: &[usize], dtype: DType) -> Tensor {
        self.full(shape, 0.0, dtype)
    }

    /// A tensor of zeros, f32, in memory of exactly its size: for what is kept for long, as the averages of an optimizer.
    ///
    /// # Panics
    /// If no memory can be so large.
    pub fn kept_zeros(self, shape: &[usize]) -> Tensor {
        self.kernels().kept_zeros(shape)
    }

    /// A tensor filled with one value, in the device's memory.
    ///
    /// # Panics
    /// If the dtype is f16, or no memory can be so large.
    pub fn full(self, shape: &[usize], value: f32, dtype: DType) -> Tensor {
        assert_ne!(dtype, DType::F16, "dtype of a tensor: expected f32 or bf16, found f16");
        self.kernels().full(shape, value, dtype)
    }
}

/// Tensors on the CPU. What computes with tensors that lie elsewhere makes its own by their [`Device`].
impl Tensor {
    /// An f32 tensor of these values, on the CPU.
    ///
    /// # Panics
    /// If the shape has another number of elements.
    pub fn from_vec(data: Vec<f32>, shape: &[usize]) -> Tensor {
        Self::from_slice(&data, shape)
    }

    /// An f32 tensor with a copy of these values, on the CPU.
    ///
    /// # Panics
    /// If the shape has another number of elements.
    pub fn from_slice(data: &[f32], shape: &[usize]) -> Tensor {
        Device::Cpu.upload(data, shape)
    }

    /// A tensor of zeros, on the CPU.
    ///
    /// # Panics
    /// If the dtype is f16, or no memory can be so large.
    pub fn zeros(shape: &[usize], dtype: DType) -> Tensor {
        Device::Cpu.zeros(shape, dtype)
    }

    /// A tensor filled with one value, on the CPU.
    ///
    /// # Panics
    /// If the dtype is f16, or no memory can be so large.
    pub fn full(shape: &[usize], value: f32, dtype: DType) -> Tensor {
        Device::Cpu.full(shape, value, dtype)
    }
}

impl Tensor {
    /// The same numbers on a device, cut off from the tape.
    pub fn to_device(&self, device: Device) -> Tensor {
        if device == self.device() {
            return self.detach();
        }
        device.kernels().upload(&self.to_vec(), self.shape(), self.dtype())
    }

    /// Gives an f32 tensor other numbers, in the memory that it has.
    ///
    /// # Panics
    /// If their number is another, or the dtype.
    pub fn write(&mut self, values: &[f32]) {
        assert_eq!(
            (self.dtype(), self.numel()),
            (DType::F32, values.len()),
            "numbers for {:?}",
            self.shape()
        );
        self.kernels().write(self, values);
    }

    /// The kernels of the device where the tensor lies.
    pub(crate) fn kernels(&self) -> &'static dyn Backend {
        self.device().kernels()
    }

    /// The elements as f32, whatever the dtype and the device.
    pub fn to_vec(&self) -> Vec<f32> {
        self.kernels().download(self)
    }
}
