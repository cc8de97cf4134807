//! Sizes of a configuration.

use super::*;

/// Sizes that no model has are refused before anything is allocated for them.
#[test]
fn sizes_of_a_configuration_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    save_model(&tiny(50).init(&Device::flex()).unwrap(), dir.path(), &SaveOptions::default()).unwrap();
    let path = dir.path().join("config.json");
    let whole = json_of(&path);
    let large = [1u64 << 20, 1 << 40, u64::MAX];
    let integers = [
        "/vocab_size",
        "/hidden_size",
        "/intermediate_size",
        "/num_hidden_layers",
        "/num_attention_heads",
        "/num_key_value_heads",
        "/max_position_embeddings",
        "/tg_llava/num_query_tokens",
        "/tg_llava/num_patch_positions",
        "/tg_llava/perceiver/depth",
        "/tg_llava/perceiver/n_latents",
        "/tg_llava/perceiver/num_heads",
        "/tg_llava/perceiver/num_key_value_heads",
        "/tg_llava/perceiver/head_dim",
        "/tg_llava/perceiver/hidden_size",
        "/tg_llava/perceiver/intermediate_size",
        "/tg_llava/qformer/num_hidden_layers",
        "/tg_llava/qformer/cross_attention_freq",
        "/tg_llava/qformer/num_attention_heads",
        "/tg_llava/qformer/hidden_size",
        "/tg_llava/qformer/encoder_width",
        "/tg_llava/qformer/intermediate_size",
        "/tg_llava/qformer/vocab_size",
        "/tg_llava/qformer/max_position_embeddings",
        "/tg_llava/vision_config/image_size",
        "/tg_llava/vision_config/patch_size",
        "/tg_llava/vision_config/num_channels",
        "/tg_llava/vision_config/hidden_size",
        "/tg_llava/vision_config/num_hidden_layers",
        "/tg_llava/vision_config/num_attention_heads",
        "/tg_llava/text_config/vocab_size",
        "/tg_llava/text_config/hidden_size",
        "/tg_llava/text_config/num_hidden_layers",
        "/tg_llava/text_config/max_position_embeddings",
    ];
    let reals = [
        "/rms_norm_eps",
        "/rope_theta",
        "/initializer_range",
        "/tg_llava/perceiver/rms_norm_eps",
        "/tg_llava/qformer/layer_norm_eps",
        "/tg_llava/vision_config/layer_norm_eps",
        "/tg_llava/text_config/layer_norm_eps",
    ];
    let refused = |pointer: &str, value: Value| {
        let mut json = whole.clone();
        let place = json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not in config.json"));
        *place = value.clone();
        std::fs::write(&path, json.to_string()).unwrap();
        let Err(error) = load(dir.path()) else { panic!("{pointer} = {value} was taken") };
        let error = error.to_string();
        assert!(error.len() < 10_000, "{} bytes over {pointer} = {value}", error.len());
        // A size within the bounds of all models does not fit the files, which is said by key.
        let named = error.contains("config.json") || error.contains("the checkpoint does not fit");
        assert!(named, "{pointer} = {value}: {error}");
    };
    for pointer in integers {
        for value in large.into_iter().chain([0]) {
            // A context or BERT's unused tables may be longer than these files', within reason.
            let harmless = ["max_position_embeddings", "qformer/vocab_size", "cross_attention_freq"];
            if !(value <= 10_000_000 && value > 0 && harmless.iter().any(|end| pointer.ends_with(end))) {
                refused(pointer, value.into());
            }
        }
    }
    for pointer in reals {
        for value in [-1e-5, 1e300] {
            refused(pointer, value.into());
        }
        // In f32, which norms are computed in, this is zero.
        if pointer.ends_with("eps") {
            refused(pointer, 1e-320.into());
        }
    }
    std::fs::write(&path, whole.to_string()).unwrap();
    assert!(load(dir.path()).is_ok());
}

#[test]
fn a_size_out_of_bounds_is_said_with_its_range() {
    let dir = tempfile::tempdir().unwrap();
    save_model(&tiny(50).init(&Device::flex()).unwrap(), dir.path(), &SaveOptions::default()).unwrap();
    let path = dir.path().join("config.json");
    let mut json = json_of(&path);
    json["tg_llava"]["perceiver"]["depth"] = (1 << 20).into();
    std::fs::write(&path, json.to_string()).unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("config.json: tg_llava.perceiver.depth = 1048576; it must be between 1 and"),
        "{error}"
    );
}
