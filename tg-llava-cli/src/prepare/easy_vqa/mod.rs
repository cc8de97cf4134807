//! easy-VQA (MIT, by Victor Zhou): simple questions about one coloured shape a picture, as LLaVA data.
//!
//! The input is the Python package `easy-vqa` 1.0 from PyPI, which holds 4,000 pictures with 38,575 questions to
//! train on and 1,000 with 9,673 to test with; 13 answers in all.

mod convert;
mod curriculum;
mod draws;
mod options;
mod package;
mod questions;
mod summary;
mod variants;

pub use convert::prepare_easy_vqa;
pub use options::{Copies, EasyVqaOptions, QuestionsPerSample};
pub use summary::{EasyVqaSummary, SplitSummary};
