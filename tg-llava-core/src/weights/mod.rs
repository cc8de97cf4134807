//! Checkpoints: reading and writing the reference's files, strictly.

mod bridges;
mod checkpoint;
mod component;
mod convert;
mod error;
mod file;
mod load;
mod names;
mod placeholder;
mod pytorch;
mod quantise;
mod save;
mod source;
mod staging;
mod walk;
mod write;

pub use bridges::{folder_has_bridges, open_bridges, save_bridges};
pub use checkpoint::{LoadOptions, Loaded, find_base, load_model, open_sources, open_towers};
pub use component::Component;
pub use error::{TensorProblem, WeightsError};
pub use file::{StoredDType, StoredTensor};
pub use load::{LoadReport, apply};
pub use names::{is_unused_key, reference_key};
pub use quantise::{QuantisedTensor, Quantization, quantise_decoder};
pub use save::{SaveOptions, reference_tensors, save_model};
pub use source::TensorSource;
pub use staging::{clean, has_unfinished_save};
pub use walk::{ParameterMapper, ParameterPath, ParameterVisitor, map_parameters, visit_parameters};
pub use write::{NewTensor, write_safetensors};
