//! The selection of training timesteps.

/// The selection of training timesteps: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2023), table 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// From the last timestep to the first, both included.
    Linspace,
    /// Whole multiples from the first timestep on, so that the last timesteps are left out.
    Leading,
    /// Whole multiples from the last timestep on, as models for few steps need.
    Trailing,
}

impl Spacing {
    /// The names in configurations.
    pub(super) const NAMES: &[(&str, Spacing)] =
        &[("linspace", Spacing::Linspace), ("leading", Spacing::Leading), ("trailing", Spacing::Trailing)];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Spacing::Linspace => "linspace",
            Spacing::Leading => "leading",
            Spacing::Trailing => "trailing",
        }
    }
}
