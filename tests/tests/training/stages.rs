//! From the first stage to the second.

use super::*;

#[test]
fn stage_one_leaves_bridges_that_stage_two_starts_from() {
    let _turn = turn();
    let (base, first, second) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // A start with weights, as a downloaded decoder with towers has them.
    run(&everything(config(Stage::Finetune, base.path(), 1)));
    let from = |stage, out: &Path| {
        let mut config = config(stage, out, 2);
        config.model.path = base.path().to_path_buf();
        config.model.init = Init::Checkpoint;
        config
    };
    run(&from(Stage::Pretrain, first.path()));
    for name in ["mm_projector", "mm_cross_attn", "mm_patch_encoder"] {
        for extension in ["safetensors", "bin"] {
            assert!(first.path().join(format!("{name}.{extension}")).is_file(), "{name}.{extension}");
        }
    }
    assert!(!first.path().join("model.safetensors").exists());
    let mut config = from(Stage::Finetune, second.path());
    config.model.bridges = Some(Bridges::Folder(first.path().to_path_buf()));
    let session = open(&config).unwrap();
    let started = weights(session.trainer());
    let key = "model.mm_projector.0.weight";
    assert!(started[key] == projector(first.path()) && started[key] != projector_whole(base.path()));
    drop(session);
    run(&config);
    assert!(second.path().join("model.safetensors").is_file());
}

fn projector(dir: &Path) -> Vec<f32> {
    floats(&dir.join("mm_projector.safetensors"))
}

fn projector_whole(dir: &Path) -> Vec<f32> {
    floats(&dir.join("model.safetensors"))
}

fn floats(file: &Path) -> Vec<f32> {
    let bytes = std::fs::read(file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor("model.mm_projector.0.weight").unwrap().data().to_vec();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}
