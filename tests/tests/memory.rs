//! What an update takes; alone in its file, since it counts the whole process's memory.

use burn::tensor::Device;
use peak_alloc::PeakAlloc;
use tg_llava_core::config::tiny;
use tg_llava_core::model::{GuideTexts, ModelBatch};
use tg_llava_core::multimodal::SpliceRow;
use tg_llava_train::data::Micro;
use tg_llava_train::engine::{TrainedParts, Trainer, TrainerOptions};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// An update replaces weight by weight: old and new weights are never there together, so a step takes little more than the gradients.
#[test]
fn an_update_does_not_hold_the_weights_twice() {
    let mut config = tiny(50);
    config.multimodal = None;
    config.llm.num_hidden_layers = 12;
    config.llm.hidden_size = 256;
    config.llm.intermediate_size = 1024;
    config.llm.head_dim = 256 / config.llm.num_attention_heads;
    let model = config.init(&Device::flex()).unwrap();
    let ids: Vec<i64> = (1..20).collect();
    let batch = ModelBatch {
        rows: vec![SpliceRow { labels: Some(ids.clone()), input_ids: ids, images: Vec::new() }],
        images: None,
        guides: GuideTexts { ids: Vec::new(), pad_id: 0, sample_of_image: Vec::new() },
    };
    let mut trainer = Trainer::new(model, TrainerOptions::new(TrainedParts::FINETUNE, 1e-3));
    let micro = Micro::of(batch, trainer.model().config()).unwrap();
    let weights = 4 * trainer.table().trainable();
    // The first step also makes the moments.
    for step in 0..2 {
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        assert!(trainer.step(std::slice::from_ref(&micro)).unwrap().updated);
        let more = MEMORY.peak_usage().saturating_sub(before);
        assert!(step == 0 || more < weights / 2 * 3, "{more} bytes more for {weights} bytes of weights");
    }
}
