//! Dropout; alone in its file, since the CPU backends have one random generator a process.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use tg_llava_core::config::tiny;

#[test]
fn dropout_works_in_training_alone_and_follows_the_seed() {
    let device = Device::flex().autodiff();
    device.seed(5);
    let model = tiny(50).init(&device).unwrap();
    let guide = model.feature_guide.as_ref().unwrap();
    let text = Tensor::<2>::ones([1, 16], &device);
    // The last layer starts at zero, so look before it.
    let run = |seed: u64| {
        device.seed(seed);
        let context = guide.resize_linear.forward(text.clone()).unsqueeze_dim::<3>(1);
        let states = guide.qformer.forward(guide.queries(1), &context);
        states.into_data().try_to_vec::<f32>().unwrap()
    };
    // The first pass also draws the initial weights.
    run(0);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let evaluated = guide.valid();
    let text = Tensor::<2>::ones([1, 16], &Device::flex());
    let still = || {
        let context = evaluated.resize_linear.forward(text.clone()).unsqueeze_dim::<3>(1);
        evaluated.qformer.forward(evaluated.queries(1), &context).into_data().try_to_vec::<f32>().unwrap()
    };
    assert_eq!(still(), still());
}
