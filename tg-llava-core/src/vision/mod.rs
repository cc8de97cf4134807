//! Vision towers: pictures in, features of a chosen hidden layer out.

mod embeddings;
mod tower;

pub use embeddings::VisionEmbeddings;
pub use tower::VisionTower;
