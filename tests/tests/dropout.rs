//! Dropout; alone in its file, since the CPU backends have one random generator a process.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use tg_llava_core::config::tiny;
use tg_llava_core::guide::FeatureGuide;
use tg_llava_core::pass::{Site, Trace};

#[test]
fn dropout_works_in_training_alone_and_follows_the_seed() {
    let device = Device::flex().autodiff();
    device.seed(5);
    let model = tiny(50).init(&device).unwrap();
    let guide = model.feature_guide.as_ref().unwrap();
    // The last layer starts at zero, so look before it.
    let latents = |guide: &FeatureGuide, device: &Device| {
        let mut latents = Vec::new();
        let mut trace = Trace::new(|at, outputs: &[Tensor<3>]| {
            if let Site::GuideBlock(_) = at {
                latents = outputs[0].clone().into_data().try_to_vec::<f32>().unwrap();
            }
        });
        guide.walk(&mut trace, Tensor::<3>::ones([1, 1, 16], device));
        latents
    };
    let run = |seed: u64| {
        device.seed(seed);
        latents(guide, &device)
    };
    // The first pass also draws the initial weights.
    run(0);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let evaluated = guide.valid();
    let still = || latents(&evaluated, &Device::flex());
    assert_eq!(still(), still());
}
