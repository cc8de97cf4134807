//! What loading with `--quantize` takes; alone in its file, since it counts the whole process's memory.

use burn::tensor::Device;
use peak_alloc::PeakAlloc;
use tg_llava_core::config::tiny;
use tg_llava_core::quant::{Activations, Scheme};
use tg_llava_core::weights::{Encoding, LoadOptions, Quantization, SaveOptions, load_model, save_model};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The floats of the model are never there together, nor those of one of its matrices: only a piece beside what is kept.
#[test]
fn loading_quantised_takes_little_more_than_the_blocks() {
    let mut config = tiny(8000);
    config.multimodal = None;
    config.llm.num_hidden_layers = 10;
    config.llm.hidden_size = 512;
    config.llm.intermediate_size = 2048;
    config.llm.head_dim = 512 / config.llm.num_attention_heads;
    let folder = tempfile::tempdir().unwrap();
    let model = config.init(&Device::flex()).unwrap();
    save_model(&model, folder.path(), &SaveOptions::default()).unwrap();
    drop(model);

    let quantization =
        Some(Quantization { encoding: Encoding::Ggml(Scheme::Q8_0), activations: Activations::Int8 });
    let options = LoadOptions { quantization, ..LoadOptions::default() };
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let loaded = load_model(folder.path(), &Device::flex(), &options, &mut |_| {}).unwrap();
    let more = MEMORY.peak_usage().saturating_sub(before);

    let blocks: usize = loaded.report.quantised.iter().map(|matrix| matrix.bytes).sum();
    let values: usize = blocks / 34 * 32;
    assert!(values > 30_000_000, "large enough to tell: {values}");
    assert!(more < blocks + (16 << 20), "{more} bytes for {blocks} bytes of blocks");
}
