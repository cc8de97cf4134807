use std::arch::x86_64::{__m512i, _mm512_dpbusd_epi32};

use crate::with_v4;

with_v4! {
    /// The permission to compute with AVX-512, as far as `pulp`'s `V4` asks for it, and with its products of bytes (VNNI): there is a value
    /// of it only where the processor has them.
    Vnni, avx512vnni: "avx512vnni"
}

impl Vnni {
    /// Adds to each of 16 sums the products of four unsigned bytes with four signed ones.
    #[inline(always)]
    pub fn add_products(self, sums: __m512i, unsigned: __m512i, signed: __m512i) -> __m512i {
        // SAFETY: a value of `Vnni` exists where the processor has the instruction.
        unsafe { _mm512_dpbusd_epi32(sums, unsigned, signed) }
    }
}
