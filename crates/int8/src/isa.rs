//! Instruction sets: which of them this CPU has, and one text compiled for each.

/// An instruction set that there are kernels for, and that this CPU has: values come from [`Isa::available`] only,
/// which is what the calls of its functions rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Set);

/// See [`Isa`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Isa {
    /// Plain Rust, the definition of what all others compute.
    pub const PORTABLE: Isa = Isa(Set::Portable);

    /// Those that this CPU has, best first; [`Isa::PORTABLE`] is always the last.
    pub fn available() -> Vec<Isa> {
        let mut found = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni") {
                found.push(Isa(Set::Avx512Vnni));
            }
            if has!("avx2") && has!("fma") {
                found.push(Isa(Set::Avx2));
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                found.push(Isa(Set::NeonDot));
            }
            found.push(Isa(Set::Neon));
        }
        found.push(Isa::PORTABLE);
        found
    }

    /// The first of [`Isa::available`].
    pub fn best() -> Isa {
        Isa::available()[0]
    }

    /// As users know it.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni => "AVX-512 VNNI",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "AVX2",
            #[cfg(target_arch = "aarch64")]
            Set::NeonDot => "NEON with dot product",
            #[cfg(target_arch = "aarch64")]
            Set::Neon => "NEON",
            Set::Portable => "portable",
        }
    }

    /// Whether its kernels read weights of bytes in pairs of i16, which are twice as large.
    pub(crate) fn takes_pairs(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Set::Avx2;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    pub(crate) fn set(self) -> Set {
        self.0
    }
}

/// Makes of each `fn name(arguments) { text }` a `fn name(isa, arguments)`, whose text is compiled once for every
/// instruction set: for loops that a compiler vectorises by itself. Sums of floats must run in lanes of a fixed order,
/// and products are fused with additions only where the text says so, by `mul_add`; then every CPU gives the same bits.
macro_rules! compiled_for_every_isa {
    ($($(#[$meta:meta])* pub(crate) fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $text:block)*) => { $(
        $(#[$meta])*
        pub(crate) fn $name(isa: $crate::isa::Isa, $($argument: $kind),*) {
            #[inline(always)]
            fn portable($($argument: $kind),*) $text
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
            fn avx512($($argument: $kind),*) {
                portable($($argument),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $kind),*) {
                portable($($argument),*);
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            fn neon($($argument: $kind),*) {
                portable($($argument),*);
            }
            match isa.set() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` is one that this CPU has.
                $crate::isa::Set::Avx512Vnni => unsafe { avx512($($argument),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::isa::Set::Avx2 => unsafe { avx2($($argument),*) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                $crate::isa::Set::NeonDot | $crate::isa::Set::Neon => unsafe { neon($($argument),*) },
                $crate::isa::Set::Portable => portable($($argument),*),
            }
        }
    )* };
}
pub(crate) use compiled_for_every_isa;

/// Lanes that sums of floats run in.
pub(crate) const LANES: usize = 16;

/// Sum of 16 lanes, halves first.
#[inline(always)]
pub(crate) fn tree_sum(lanes: &[f32; LANES]) -> f32 {
    let mut sums = *lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

/// `x·x`, of whole lanes.
#[inline(always)]
pub(crate) fn squared_length(x: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    for part in x.chunks_exact(LANES) {
        for (sum, &x) in sums.iter_mut().zip(part) {
            *sum += x * x;
        }
    }
    tree_sum(&sums)
}

/// A whole number, saturated; what is no number becomes `low`.
#[inline(always)]
pub(crate) fn to_byte(value: f32, low: u8, high: u8) -> u8 {
    let (low, high) = (f32::from(low), f32::from(high));
    let value = if value > low { value } else { low };
    let value = if value < high { value } else { high };
    // SAFETY: it lies between two bytes. One instruction, where `as` is several.
    unsafe { value.to_int_unchecked::<i32>() as u8 }
}
