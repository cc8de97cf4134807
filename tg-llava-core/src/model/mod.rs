//! The whole model.

mod batch;
mod images;
mod tg_llava;

pub use batch::{ForwardOutput, ModelBatch};
pub use images::{EncodedImage, GuidePlan, GuideTexts, ImageBatch, VisionFeatures};
pub use tg_llava::TgLlava;
