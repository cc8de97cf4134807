//! Preparing training data: public data sets as LLaVA files with pictures, and small tokenizers for a model that
//! is trained from scratch.
//!
//! What is written depends on the input and the options alone, byte for byte.

mod easy_vqa;
mod error;
mod llava;
mod output;
mod tokenizer;

pub use easy_vqa::{
    Copies, EasyVqaOptions, EasyVqaSummary, QuestionsPerSample, SplitSummary, prepare_easy_vqa,
};
pub use error::PrepareError;
pub use output::Existing;
pub use tokenizer::{
    DECODER_FOLDER, GUIDE_FOLDER, TokenizerOptions, TokenizerSummary, least_decoder_vocabulary,
    least_guide_vocabulary, prepare_tokenizers,
};
