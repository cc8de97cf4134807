//! The formats of bitsandbytes: NF4 and FP4 in blocks of 64 values ([`FourBit`]), and int8 by rows ([`Int8Rows`]).
//!
//! Quantising gives the bytes of the library's CPU code, dequantising the values of its definition: each product rounded to f32
//! once, whatever the processor.

mod codes;
mod error;
mod four_bit;
#[cfg(test)]
mod golden_tests;
mod int8;
mod mean;
mod state;

pub use codes::FourBitKind;
pub use error::BnbError;
pub use four_bit::{Absmax, AbsmaxStorage, FourBit, NestedAbsmax};
pub use int8::Int8Rows;
pub use state::{NestedState, QuantState};
