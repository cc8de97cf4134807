//! Weights in fewer bits than a float: the arithmetic of the formats, over plain slices.

pub mod bnb;
