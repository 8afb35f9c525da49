//! Tensors, autograd and fused kernels. Knows nothing about diffusion.
