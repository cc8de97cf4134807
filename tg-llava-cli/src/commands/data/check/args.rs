use std::path::PathBuf;

use clap::Args;

use crate::args::{OutputArgs, PictureArgs};

/// Arguments of `data check`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct CheckArgs {
    /// LLaVA files, JSON or JSONL
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub data: Vec<PathBuf>,
    /// Folder that the samples' pictures are named from
    #[arg(long, value_name = "DIR")]
    pub image_folder: PathBuf,
    /// Take pictures from elsewhere too: absolute names, `..`, links
    #[arg(long)]
    pub allow_outside: bool,
    /// Read and decode every picture; without it, only that there is a file that is not empty
    #[arg(long)]
    pub decode: bool,
    /// Limits of pictures, for --decode.
    #[command(flatten)]
    pub pictures: PictureArgs,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

const HELP: &str = "\
Exit code 0 where everything is there, 1 where something is missing or cannot be used. LLaVA's mixture of 665k names pictures in \
coco/train2017, gqa/images, ocr_vqa/images, textvqa/train_images, vg/VG_100K and vg/VG_100K_2.";
