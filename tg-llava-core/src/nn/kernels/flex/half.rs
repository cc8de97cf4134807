//! Values in half precision on their way to f32 and back.

use burn::tensor::DType;
use burn_flex::FlexTensor;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::{Simd, WithSimd};

/// Values in memory, as they are stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl<'a> Values<'a> {
    /// All of a tensor's buffer; `None` where it holds something else.
    pub fn of(tensor: &'a FlexTensor) -> Option<Self> {
        match tensor.dtype() {
            DType::F32 => Some(Self::F32(tensor.storage())),
            DType::F16 => Some(Self::F16(tensor.storage())),
            DType::BF16 => Some(Self::Bf16(tensor.storage())),
            _ => None,
        }
    }

    /// `len` values from `start` as f32: where they lie, or converted into `room`, which has at least as much.
    #[inline(always)]
    pub fn read<'b>(self, start: usize, len: usize, room: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Self::F32(values) => &values[start..start + len],
            Self::F16(values) => {
                let room = &mut room[..len];
                widen(&values[start..start + len], room);
                room
            }
            Self::Bf16(values) => {
                let room = &mut room[..len];
                for (to, from) in room.iter_mut().zip(&values[start..start + len]) {
                    *to = f32::from_bits(u32::from(from.to_bits()) << 16);
                }
                room
            }
        }
    }

    /// As [`Values::read`], always into `room`.
    #[inline(always)]
    pub fn copy(self, start: usize, room: &mut [f32]) {
        let len = room.len();
        match self {
            Self::F32(values) => room.copy_from_slice(&values[start..start + len]),
            Self::F16(_) | Self::Bf16(_) => {
                self.read(start, len, room);
            }
        }
    }
}

/// What is stored in memory and read into registers of f32.
pub(super) trait Number<S: Simd>: Copy {
    /// As many values as a register of f32 takes.
    type Vector: Copy;

    /// The values, but for those that fill no register.
    fn vectors(values: &[Self]) -> &[Self::Vector];

    fn widen(simd: S, vector: Self::Vector) -> S::f32s;

    fn to_f32(self) -> f32;
}

impl<S: Simd> Number<S> for f32 {
    type Vector = S::f32s;

    #[inline(always)]
    fn vectors(values: &[Self]) -> &[Self::Vector] {
        S::as_simd_f32s(values).0
    }

    #[inline(always)]
    fn widen(_: S, vector: Self::Vector) -> S::f32s {
        vector
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

/// What is computed with registers of 512 bits.
#[cfg(target_arch = "x86_64")]
pub(super) struct OnV4<T>(pub pulp::x86::V4, pub T);

/// Values in half precision are widened in registers where a processor has instructions for it that can be reached safely.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use pulp::x86::V4;
    use pulp::{as_arrays, cast, f32x16};

    use super::{HalfFloatSliceExt, Number, bf16, f16};

    impl Number<V4> for f16 {
        type Vector = [u16; 16];

        #[inline(always)]
        fn vectors(values: &[Self]) -> &[Self::Vector] {
            as_arrays::<16, u16>(values.reinterpret_cast()).0
        }

        #[inline(always)]
        fn widen(simd: V4, vector: Self::Vector) -> f32x16 {
            cast(simd.avx512f._mm512_cvtph_ps(cast(vector)))
        }

        #[inline(always)]
        fn to_f32(self) -> f32 {
            self.to_f32()
        }
    }

    impl Number<V4> for bf16 {
        type Vector = [u16; 16];

        #[inline(always)]
        fn vectors(values: &[Self]) -> &[Self::Vector] {
            as_arrays::<16, u16>(values.reinterpret_cast()).0
        }

        #[inline(always)]
        fn widen(simd: V4, vector: Self::Vector) -> f32x16 {
            let wide = simd.avx512f._mm512_cvtepu16_epi32(cast(vector));
            cast(simd.avx512f._mm512_slli_epi32::<16>(wide))
        }

        #[inline(always)]
        fn to_f32(self) -> f32 {
            f32::from_bits(u32::from(self.to_bits()) << 16)
        }
    }
}

/// Fills `to`, of the same length. In loops that are compiled for wide registers a processor's own instruction; a call for every few
/// values, as `half` has it where it knows no more, would cost several times what is done with them.
#[inline(always)]
fn widen(from: &[f16], to: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V4::try_new() {
        let (from, from_rest) = pulp::as_arrays::<16, u16>(from.reinterpret_cast());
        let (to, to_rest) = pulp::as_arrays_mut::<16, f32>(to);
        for (to, from) in to.iter_mut().zip(from) {
            *to = pulp::cast(simd.avx512f._mm512_cvtph_ps(pulp::cast(*from)));
        }
        for (to, from) in to_rest.iter_mut().zip(from_rest) {
            *to = f16::from_bits(*from).to_f32();
        }
        return;
    }
    from.convert_to_f32_slice(to);
}

/// Fills `to` with the values from `start`.
pub(super) struct Widen<'a> {
    pub to: &'a mut [f32],
    pub from: Values<'a>,
    pub start: usize,
}

impl WithSimd for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.from.copy(self.start, self.to);
    }
}

/// The nearest values in half precision, ties to even, into a slice of the same length.
pub(super) struct Narrow<'a, H> {
    pub to: &'a mut [H],
    pub from: &'a [f32],
}

impl WithSimd for Narrow<'_, f16> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { to, from } = self;
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V4::try_new() {
            let (from, from_rest) = pulp::as_arrays::<16, f32>(from);
            let (to, to_rest) = pulp::as_arrays_mut::<16, u16>(to.reinterpret_cast_mut());
            for (to, from) in to.iter_mut().zip(from) {
                *to = pulp::cast(simd.avx512f._mm512_cvtps_ph::<0>(pulp::cast(*from)));
            }
            for (to, from) in to_rest.iter_mut().zip(from_rest) {
                *to = f16::from_f32(*from).to_bits();
            }
            return;
        }
        to.convert_from_f32_slice(from);
    }
}

impl WithSimd for Narrow<'_, bf16> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            let bits = from.to_bits();
            let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
            let quiet = bits | 0x0040_0000;
            *to = bf16::from_bits(((if from.is_nan() { quiet } else { rounded }) >> 16) as u16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_value_is_widened_exactly() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let f16s: Vec<f16> = all.iter().copied().map(f16::from_bits).collect();
        let bf16s: Vec<bf16> = all.iter().copied().map(bf16::from_bits).collect();
        let mut room = vec![0.0; all.len()];
        for (from, exact) in [
            (Values::F16(&f16s), f16s.iter().map(|x| x.to_f32()).collect::<Vec<_>>()),
            (Values::Bf16(&bf16s), bf16s.iter().map(|x| x.to_f32()).collect()),
        ] {
            for (mine, exact) in from.read(0, all.len(), &mut room).iter().zip(exact) {
                assert!(*mine == exact || mine.is_nan() && exact.is_nan(), "{mine} != {exact}");
            }
        }
    }

    #[test]
    fn rounding_to_f16_is_to_the_nearest() {
        let bits = (0..=u32::MAX).step_by(65_521).chain([0x3f80_1000, 0x3f80_3000, 0x477f_f000, 0x3300_0000]);
        let from: Vec<f32> = bits.map(f32::from_bits).collect();
        let mut to = vec![f16::ZERO; from.len()];
        pulp::Arch::new().dispatch(Narrow { to: &mut to, from: &from });
        for (to, from) in to.iter().zip(from) {
            let exact = f16::from_f32(from);
            assert!(
                to.to_bits() == exact.to_bits() || to.is_nan() && exact.is_nan(),
                "{from}: {to} != {exact}"
            );
        }
    }

    #[test]
    fn rounding_to_bf16_is_to_the_nearest() {
        let bits = (0..=u32::MAX).step_by(65_521).chain([0x3f80_8000, 0x3f81_8000, 0x7f80_0001, 0x7f7f_ffff]);
        let from: Vec<f32> = bits.map(f32::from_bits).collect();
        let mut to = vec![bf16::ZERO; from.len()];
        pulp::Arch::new().dispatch(Narrow { to: &mut to, from: &from });
        for (to, from) in to.iter().zip(from) {
            let exact = bf16::from_f32(from);
            assert!(
                to.to_bits() == exact.to_bits() || to.is_nan() && exact.is_nan(),
                "{from}: {to} != {exact}"
            );
        }
    }
}
