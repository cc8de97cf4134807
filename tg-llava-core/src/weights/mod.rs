//! Checkpoints: reading and writing the reference's files, strictly.

mod adapter;
mod adapter_save;
mod bnb;
mod bridges;
mod card;
mod checkpoint;
mod component;
mod convert;
mod encode;
mod error;
mod file;
mod ggml_blocks;
mod gguf;
mod load;
mod merge;
mod names;
mod origin;
mod placeholder;
mod pytorch;
mod quantise;
mod save;
mod shards;
mod source;
mod staging;
mod stored;
mod walk;
mod write;

pub use adapter::Adapter;
pub use adapter_save::save_adapter;
pub use bridges::{folder_has_bridges, open_bridges, save_bridges};
pub use checkpoint::{LoadOptions, Loaded, base_of, find_base, load_model, open_sources, open_towers};
pub use component::Component;
pub use encode::Encoding;
pub use error::{TensorProblem, WeightsError};
pub use gguf::Gguf;
pub use load::{LoadReport, apply};
pub use merge::{
    ConvertEvent, Converted, ExistingModel, MergeBase, MergeOptions, convert_checkpoint, merge_adapter,
};
pub use names::{is_adapter_key, is_adapter_path, is_block_matrix, is_unused_key, reference_key};
pub use quantise::{QuantisedTensor, Quantization, fill_nf4, quantise_decoder};
pub use save::{SaveOptions, reference_tensors, save_model};
pub use source::TensorSource;
pub use staging::{Earlier, clean, has_unfinished_save};
pub use stored::{StoredDType, StoredTensor};
pub use walk::{ParameterMapper, ParameterPath, ParameterVisitor, map_parameters, visit_parameters};
pub use write::{NewTensor, write_safetensors};
