//! Asks one question about one picture and prints the answer while it grows.
//!
//! ```sh
//! cargo run -p tg-llava-examples --example describe_picture -- DIR PHOTO QUESTION
//! ```

use std::env;
use std::io::{Write, stdout};
use std::path::Path;

use anyhow::{Result, bail};
use burn::tensor::Device;
use tg_llava_core::assistant::{Assistant, AssistantOptions, Chat};
use tg_llava_core::generate::GenerateOptions;
use tg_llava_core::preprocess::{DecodeOptions, decode_file};

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [dir, photo, question] = args.as_slice() else {
        bail!("usage: describe_picture DIR PHOTO QUESTION");
    };

    // The one line that chooses a backend: the first of those in this build, or what BURN_DEVICE names.
    let device = Device::default();
    let assistant = Assistant::load(Path::new(dir), &device, &AssistantOptions::default(), &mut |_| {})?;

    // The picture goes through the vision tower once; more questions about it would cost no second pass.
    let picture = decode_file(Path::new(photo), &DecodeOptions::default())?;
    let mut chat = Chat::new();
    chat.show(assistant.encode_image(&picture)?);
    chat.ask(question)?;

    // An answer is an iterator of text pieces. To stop it early, stop iterating.
    let options = GenerateOptions { max_new_tokens: 64, ..assistant.generate_options() };
    let mut answer = assistant.answer(&chat, &options)?;
    for piece in answer.by_ref() {
        print!("{}", piece?);
        stdout().flush()?;
    }
    println!();
    eprintln!("{} tokens, ended by {:?}", answer.token_ids().len(), answer.finish_reason());
    Ok(())
}
