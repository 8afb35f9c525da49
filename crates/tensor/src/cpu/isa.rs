//! Which instructions this CPU has, and functions compiled once for each set.

use std::ffi::OsString;
use std::fmt;
use std::sync::OnceLock;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// The kernels of [`Isa::Avx512Bf16`], bf16 pairs and tile sizes and all, in plain Rust: so that tests go through
    /// them on every CPU. Never chosen by itself.
    Emulated,
    /// Plain Rust, for any CPU.
    Portable,
    /// aarch64 with NEON.
    Neon,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same with AVX-512 BF16.
    Avx512Bf16,
}

impl Isa {
    const ALL: [(Isa, &'static str); 6] = [
        (Isa::Emulated, "emulated"),
        (Isa::Portable, "portable"),
        (Isa::Neon, "neon"),
        (Isa::Avx2, "avx2"),
        (Isa::Avx512, "avx512"),
        (Isa::Avx512Bf16, "avx512bf16"),
    ];

    /// The name that `CALOTYPE_ISA` takes.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Whether products of bf16 numbers are an instruction here.
    pub fn has_bf16(self) -> bool {
        matches!(self, Isa::Avx512Bf16 | Isa::Emulated)
    }

    /// All the sets that this CPU has, from least to most.
    pub fn available() -> Vec<Isa> {
        Self::ALL.iter().map(|&(isa, _)| isa).filter(|isa| isa.detected()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn detected(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match self {
            Isa::Emulated | Isa::Portable => true,
            Isa::Neon => false,
            Isa::Avx2 => avx2,
            Isa::Avx512 => avx512,
            Isa::Avx512Bf16 => avx512 && is_x86_feature_detected!("avx512bf16"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detected(self) -> bool {
        self <= Isa::Portable || (self == Isa::Neon && cfg!(target_arch = "aarch64"))
    }
}

/// The environment variable that names the instruction set to use.
const VARIABLE: &str = "CALOTYPE_ISA";

/// `CALOTYPE_ISA` names an instruction set that this CPU does not have, or none at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownIsa {
    found: String,
}

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
        let names = names.join(", ");
        write!(f, "{VARIABLE}: expected one of this CPU's instruction sets ({names}), found {:?}", self.found)
    }
}

impl std::error::Error for UnknownIsa {}

/// The best instruction set of this CPU, or the one that `CALOTYPE_ISA` names (`portable`, `avx2`, …). An empty variable
/// is the same as none.
///
/// # Errors
/// `CALOTYPE_ISA` names no instruction set of this CPU.
pub fn try_isa() -> Result<Isa, UnknownIsa> {
    static CHOSEN: OnceLock<Result<Isa, UnknownIsa>> = OnceLock::new();
    CHOSEN.get_or_init(|| choose(std::env::var_os(VARIABLE))).clone()
}

/// The instruction set of [`try_isa`].
///
/// # Panics
/// `CALOTYPE_ISA` names no instruction set of this CPU.
pub fn isa() -> Isa {
    try_isa().unwrap_or_else(|e| panic!("{e}"))
}

fn choose(asked: Option<OsString>) -> Result<Isa, UnknownIsa> {
    let available = Isa::available();
    match asked.filter(|name| !name.is_empty()) {
        None => Ok(*available.last().unwrap_or(&Isa::Portable)),
        Some(asked) => {
            let named = available.into_iter().find(|isa| asked == isa.name());
            named.ok_or_else(|| UnknownIsa { found: asked.to_string_lossy().into_owned() })
        }
    }
}

/// Declares a function whose body is compiled once for each instruction set; the
/// function takes the set as its first argument. Loops in it are left to the
/// compiler to vectorise.
///
/// `simd_fn! { fn double(x: &mut [f32]) { BODY } }` stands for
/// ```ignore
/// fn double(isa: Isa, x: &mut [f32]) {
///     fn body<const FMA: bool>(x: &mut [f32]) { BODY }             // inlined into each of
///     #[target_feature(enable = "avx2,fma,f16c")] fn avx2(..)      // these two, and
///     #[target_feature(enable = "avx2,..,avx512vl")] fn avx512(..) // for all other sets here:
///     match isa { Avx2 => avx2(x), Avx512 | Avx512Bf16 => avx512(x), _ => body(x) }
/// }
/// ```
///
/// With `fn name[FMA]`, the body has a constant FMA for [`math::mul_add`](super::math::mul_add): the compiler never
/// fuses products and sums by itself.
macro_rules! simd_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident[$fma:ident] $(<$($g:ident: $bound:path),+>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($g: $bound),+>)? (isa: $crate::cpu::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<const $fma: bool $(, $($g: $bound),+)?>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx2 $(<$($g: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? { body::<true $(, $($g),+)?>($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            #[allow(clippy::too_many_arguments)]
            fn avx512 $(<$($g: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? { body::<true $(, $($g),+)?>($($arg),*) }
            match isa {
                // SAFETY: an Isa is only ever had by detection, so the CPU has these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::isa::Isa::Avx2 => unsafe { avx2 $(::<$($g),+>)? ($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::isa::Isa::Avx512 | $crate::cpu::isa::Isa::Avx512Bf16 => unsafe { avx512 $(::<$($g),+>)? ($($arg),*) },
                _ => body::<{ cfg!(target_arch = "aarch64") } $(, $($g),+)?>($($arg),*),
            }
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($g:ident: $bound:path),+>)? ($($args:tt)*) $(-> $ret:ty)? $body:block) => {
        $crate::cpu::isa::simd_fn! {
            $(#[$meta])*
            $vis fn $name[_FMA] $(<$($g: $bound),+>)? ($($args)*) $(-> $ret)? $body
        }
    };
}
pub(crate) use simd_fn;

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: a misspelt `CALOTYPE_ISA` is an error that names the sets of this CPU; an empty one is the same as none.
    #[test]
    fn only_sets_of_this_cpu_are_chosen() {
        let best = Isa::available().pop().expect("each CPU has one");
        assert_eq!(choose(None), Ok(best));
        assert_eq!(choose(Some("".into())), Ok(best));
        assert_eq!(choose(Some("portable".into())), Ok(Isa::Portable));
        for wrong in ["avx-512", "AVX2", "portable "] {
            let said = choose(Some(wrong.into())).expect_err("no such set").to_string();
            assert!(
                said.starts_with("CALOTYPE_ISA: expected one of") && said.contains("emulated, portable"),
                "{said}"
            );
            assert!(said.ends_with(&format!("found {wrong:?}")), "{said}");
        }
    }
}
