use std::arch::x86_64::{__m256bh, __m256i, __m512, __m512bh, __m512i, _mm512_cvtneps_pbh, _mm512_dpbf16_ps};
use std::mem::transmute;

use crate::with_v4;

with_v4! {
    /// The permission to compute with AVX-512, as far as `pulp`'s `V4` asks for it, and with its sums of two products of bf16: there is a
    /// value of it only where the processor has them (AMD's since 2022, Intel's servers since 2020).
    Bf16Pairs, avx512bf16: "avx512bf16"
}

impl Bf16Pairs {
    /// Adds to each of 16 sums the products of two values of bf16 with two others.
    #[inline(always)]
    pub fn add_products(self, sums: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: a value of `Bf16Pairs` exists where the processor has the instruction; any bits are 32 values of bf16.
        unsafe {
            _mm512_dpbf16_ps(sums, transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b))
        }
    }

    /// The nearest values of bf16, ties to even; zeros for what is subnormal.
    #[inline(always)]
    pub fn narrow(self, values: __m512) -> __m256i {
        // SAFETY: a value of `Bf16Pairs` exists where the processor has the instruction; both types are 32 bytes of any bits.
        unsafe { transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values)) }
    }
}
