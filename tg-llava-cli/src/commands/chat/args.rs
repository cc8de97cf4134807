use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use tg_llava_core::conversation::Template;

use crate::args::{GenerationArgs, GuideArgs, OutputArgs, PictureArgs};
use crate::device::ComputeArgs;
use crate::picture::PictureSource;
use crate::quantised::QuantizeArgs;

/// Arguments of `chat`.
#[derive(Debug, Args)]
#[command(after_help = CONVERSATION_HELP)]
pub struct ChatArgs {
    /// The question; without it, a conversation begins (a question a line where input is piped)
    pub prompt: Option<String>,
    /// Checkpoint: a folder, or a model on Hugging Face, OWNER/NAME(@REVISION) [default: the one in weights/]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// Picture to show, a file or an http(s) address; may be repeated
    #[arg(long = "image", value_name = "PATH|URL", value_parser = OsStringValueParser::new().try_map(PictureSource::parse))]
    pub images: Vec<PictureSource>,
    /// The decoder, named like --model, or a GGUF file: where --model holds none (stage-1 files, an adapter), or in the place of its own
    #[arg(long, value_name = "MODEL|FILE")]
    pub base: Option<PathBuf>,
    /// Conversation template, for example vicuna_v1 [default: as the checkpoint says]
    #[arg(long, value_name = "NAME", value_parser = template_name)]
    pub template: Option<String>,
    /// How answers are generated.
    #[command(flatten)]
    pub generation: GenerationArgs,
    /// How questions guide the pictures.
    #[command(flatten)]
    pub guide: GuideArgs,
    /// How pictures are read.
    #[command(flatten)]
    pub pictures: PictureArgs,
    /// Device and number format.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Formats of the decoder's matrices.
    #[command(flatten)]
    pub quantize: QuantizeArgs,
    /// Read the weights into memory instead of using the file's own pages, for a checkpoint that may be overwritten meanwhile
    #[arg(long)]
    pub no_mmap: bool,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

const CONVERSATION_HELP: &str = "\
In a conversation: /image PATH|URL shows a picture with the next question, /reset starts anew, /save FILE writes \
the turns as JSON, /help lists commands, /quit or Ctrl-D ends. Ctrl-C stops an answer.";

pub(crate) fn template_name(name: &str) -> Result<String, String> {
    Template::by_name(name).map(|template| template.name.to_owned()).map_err(|e| e.to_string())
}
