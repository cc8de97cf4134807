//! Answers the same question on every device that this build has, and compares the answers.
//!
//! ```sh
//! cargo run -p tg-llava-examples --features ndarray --example swap_device -- DIR PHOTO QUESTION
//! ```

use std::env;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use burn::tensor::Device;
use tg_llava_core::assistant::{Assistant, AssistantOptions, Chat};
use tg_llava_core::generate::{GenerateOptions, Sampling};
use tg_llava_core::preprocess::{DecodeOptions, RgbImage, decode_file};

/// Each Cargo feature brings a backend; nothing else in this program knows of them.
fn devices() -> Vec<(&'static str, Device)> {
    Vec::from([
        #[cfg(feature = "flex")]
        ("flex", Device::flex()),
        #[cfg(feature = "ndarray")]
        #[expect(deprecated, reason = "shown for comparison, as long as Burn has it")]
        ("ndarray", Device::ndarray()),
        #[cfg(feature = "wgpu")]
        ("wgpu", Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        ("vulkan", Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        ("cuda:0", Device::cuda(0)),
    ])
}

/// The tokens and the text of a greedy answer in f32.
fn answer(dir: &Path, picture: &RgbImage, question: &str, device: &Device) -> Result<(Vec<i64>, String)> {
    let assistant = Assistant::load(dir, device, &AssistantOptions::default(), &mut |_| {})?;
    let mut chat = Chat::new();
    chat.show(assistant.encode_image(picture)?);
    chat.ask(question)?;
    let options =
        GenerateOptions { max_new_tokens: 32, sampling: Sampling::Greedy, ..assistant.generate_options() };
    let mut answer = assistant.answer(&chat, &options)?;
    let text = answer.text()?;
    Ok((answer.token_ids().to_vec(), text))
}

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [dir, photo, question] = args.as_slice() else {
        bail!("usage: swap_device DIR PHOTO QUESTION");
    };
    let picture = decode_file(Path::new(photo), &DecodeOptions::default())?;

    let mut first: Option<Vec<i64>> = None;
    for (name, device) in devices() {
        let start = Instant::now();
        let (tokens, text) = answer(Path::new(dir), &picture, question, &device)?;
        let verdict = match &first {
            None => "the one to compare with",
            Some(other) if *other == tokens => "the same tokens",
            Some(_) => "OTHER tokens",
        };
        println!("{name}, {:.1} s, {verdict}: {text}", start.elapsed().as_secs_f64());
        first.get_or_insert(tokens);
    }
    if first.is_none() {
        bail!("this build has no backend; choose one with --features");
    }
    Ok(())
}
