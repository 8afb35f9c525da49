//! Clipping by the norm of the gradients.

/// The factor that reduces gradients of norm `norm` to a norm of at most `max`, as torch's `clip_grad_norm_` computes it. A
/// norm that is NaN gives NaN.
pub fn clip_factor(norm: f64, max: f64) -> f64 {
    (max / (norm + 1e-6)).clamp(0.0, 1.0)
}
