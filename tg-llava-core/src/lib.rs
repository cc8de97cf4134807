#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod assistant;
pub mod config;
pub mod conversation;
pub mod error;
pub mod generate;
pub mod guide;
pub mod llm;
pub mod model;
pub mod multimodal;
pub mod nn;
pub mod pass;
pub mod preprocess;
pub mod projector;
pub mod quant;
pub mod text;
pub mod tokenizer;
pub mod vision;
pub mod weights;

pub use burn;
pub use error::{Error, Result};
