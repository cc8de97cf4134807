//! Training data: LLaVA files read lazily, the order of an epoch, and batches of ids, labels and pictures.
//!
//! Plain buffers only; the trainer turns them into tensors.

mod batches;
mod collate;
mod dataset;
mod error;
mod example;
mod grouping;
mod images;
mod loader;
mod micro;
mod prefetch;
mod random;
mod records;
mod sample;
mod sampler;

pub use batches::{DataPosition, Dealing, EpochBatches};
pub use collate::Batch;
pub use dataset::LlavaDataset;
pub use error::{DataError, OnBadSample, SampleProblem};
pub use example::{EncodeOptions, Example, SampleEncoder};
pub use grouping::{Grouping, length_grouped_indices, modality_length_grouped_indices, split_to_even_chunks};
pub use images::is_inside;
pub use loader::{Loader, Outcome, SampleNotice};
pub use micro::Micro;
pub(crate) use micro::plan;
pub use prefetch::Prefetch;
pub use random::Permutations;
pub use sample::Sample;
pub use sampler::{SampleOrder, Sampler};
