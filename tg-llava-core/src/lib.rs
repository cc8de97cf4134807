//! TG-LLaVA: LLaVA-1.5 whose vision features are guided by the user's question, on any Burn backend.
//!
//! The library takes a [`burn::tensor::Device`] and enables no backend: the program that uses it chooses
//! one with Burn's Cargo features. Start at [`assistant::Assistant`] to ask about a picture, or at
//! [`model::TgLlava`] for the model itself.

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
pub mod text;
pub mod tokenizer;
pub mod vision;
pub mod weights;

pub use burn;
pub use error::{Error, Result};
