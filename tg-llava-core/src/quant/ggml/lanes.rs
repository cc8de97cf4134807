//! Numbers of several groups side by side, so that one instruction computes with all of them and each group's sums are in the order
//! of a loop over it alone.

use std::ops::{Add, Div, Mul, Sub};

use super::block::nearest;

/// A number of each of `L` groups. Operations are those of `f32`, one by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes<const L: usize>(pub [f32; L]);

impl<const L: usize> Lanes<L> {
    /// The same for each.
    #[inline(always)]
    pub fn all(value: f32) -> Self {
        Self([value; L])
    }

    /// Value `i` of each of the groups that `values` consists of, for every `i`.
    #[inline(always)]
    pub fn of_groups<const N: usize>(values: &[f32]) -> [Self; N] {
        let mut out = [Self::all(0.0); N];
        for (group, values) in values.chunks_exact(N).enumerate() {
            for (lanes, value) in out.iter_mut().zip(values) {
                lanes.0[group] = *value;
            }
        }
        out
    }

    #[inline(always)]
    pub fn abs(mut self) -> Self {
        self.0.iter_mut().for_each(|x| *x = x.abs());
        self
    }

    #[inline(always)]
    pub fn sqrt(mut self) -> Self {
        self.0.iter_mut().for_each(|x| *x = x.sqrt());
        self
    }

    /// The nearest whole numbers from `least` to `most`; what is no number stays so.
    #[inline(always)]
    pub fn nearest(mut self, least: f32, most: f32) -> Self {
        self.0.iter_mut().for_each(|x| *x = nearest(*x).clamp(least, most));
        self
    }

    /// `yes` where this is less than `other`, `no` elsewhere, and so where one of them is no number.
    #[inline(always)]
    pub fn if_less(self, other: Self, yes: Self, mut no: Self) -> Self {
        for i in 0..L {
            no.0[i] = if self.0[i] < other.0[i] { yes.0[i] } else { no.0[i] };
        }
        no
    }
}

/// An operator, lane by lane.
macro_rules! operator {
    ($operator:ident, $name:ident, $symbol:tt) => {
        impl<const L: usize> $operator for Lanes<L> {
            type Output = Self;

            #[inline(always)]
            fn $name(mut self, other: Self) -> Self {
                for (x, other) in self.0.iter_mut().zip(other.0) {
                    *x $symbol other;
                }
                self
            }
        }
    };
}

operator!(Add, add, +=);
operator!(Sub, sub, -=);
operator!(Mul, mul, *=);
operator!(Div, div, /=);
