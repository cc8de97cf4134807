//! What goes over the wire: OpenAI's chat completions, read strictly and written in full.

mod answer;
mod error;
mod fields;
mod messages;
mod request;

pub use answer::{Choice, Completion, Delta, TokenLogprob, Usage};
pub use error::ApiError;
pub use messages::{Message, Part, Role};
pub use request::ChatRequest;

use fields::Fields;
