use std::arch::x86_64::{__m512i, _mm512_dpbusd_epi32};

pulp::simd_type! {
    /// The permission to compute with AVX-512, as far as `pulp`'s `V4` asks for it, and with its products of bytes (VNNI): there is a value
    /// of it only where the processor has them.
    #[allow(missing_docs)]
    pub struct Vnni {
        pub sse: "sse",
        pub sse2: "sse2",
        pub fxsr: "fxsr",
        pub sse3: "sse3",
        pub ssse3: "ssse3",
        pub sse4_1: "sse4.1",
        pub sse4_2: "sse4.2",
        pub popcnt: "popcnt",
        pub avx: "avx",
        pub avx2: "avx2",
        pub bmi1: "bmi1",
        pub bmi2: "bmi2",
        pub fma: "fma",
        pub lzcnt: "lzcnt",
        pub avx512f: "avx512f",
        pub avx512bw: "avx512bw",
        pub avx512cd: "avx512cd",
        pub avx512dq: "avx512dq",
        pub avx512vl: "avx512vl",
        pub avx512vnni: "avx512vnni",
    }
}

impl Vnni {
    /// Adds to each of 16 sums the products of four unsigned bytes with four signed ones.
    #[inline(always)]
    pub fn add_products(self, sums: __m512i, unsigned: __m512i, signed: __m512i) -> __m512i {
        // SAFETY: a value of `Vnni` exists where the processor has the instruction.
        unsafe { _mm512_dpbusd_epi32(sums, unsigned, signed) }
    }
}
