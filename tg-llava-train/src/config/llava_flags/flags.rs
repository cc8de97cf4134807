//! Every flag that LLaVA's training scripts take, and what becomes of it.
//!
//! The names are those of the reference's `train.py` (model, data and training arguments), of LLaVA 1.5 and 1.6, and of
//! the HF Trainer's `TrainingArguments` (transformers 4.37.2).

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The text is the value of this key.
    Text(&'static str),
    /// The number is the value of this key.
    Number(&'static str),
    /// Yes or no is the value of this key.
    Switch(&'static str),
    /// A value that is looked at together with others.
    Value,
    /// Yes or no, looked at together with others.
    Choice,
    /// Nothing; the user is told why, unless it was set to nothing.
    Ignored(&'static str),
    /// Nothing, and nobody would expect anything.
    Moot,
    /// Refused with this reason, unless it has one of the values.
    Only(&'static [&'static str], &'static str),
}

/// The meaning of a flag, named without dashes.
pub(super) fn meaning(name: &str) -> Option<Meaning> {
    FLAGS.iter().find(|(known, _)| *known == name).map(|(_, meaning)| *meaning)
}

/// The names of all flags.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().map(|(name, _)| *name)
}

/// Flags with the key that each one sets.
pub(in super::super) fn flag_keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    let looked_at = [
        ("tune_mm_mlp_adapter", "stage"),
        ("image_aspect_ratio", "data.aspect_ratio"),
        ("group_by_modality_length", "data.order"),
        ("group_by_length", "data.order"),
        ("dataloader_num_workers", "data.workers"),
        ("warmup_steps", "optim.warmup_steps"),
        ("save_steps", "run.save_steps"),
        ("logging_steps", "run.log_every"),
        ("version", "model.template"),
        ("bf16", "run.dtype"),
        ("fp16", "run.dtype"),
        ("lora_r", "lora.rank"),
        ("lora_alpha", "lora.alpha"),
        ("lora_dropout", "lora.dropout"),
    ];
    let direct = FLAGS.iter().filter_map(|(name, meaning)| match meaning {
        Text(key) | Number(key) | Switch(key) => Some((*name, *key)),
        _ => None,
    });
    direct.chain(looked_at)
}

use Meaning::{Choice, Ignored, Moot, Number, Only, Switch, Text, Value};

const NO: &[&str] = &["False"];
const ZERO: &[&str] = &["0"];
const NONE: &[&str] = &["None", ""];
const ADAMW: &[&str] = &[
    "adamw_torch",
    "adamw_hf",
    "adamw_torch_fused",
    "adamw_torch_xla",
    "adamw_torch_npu_fused",
    "adamw_apex_fused",
];

const TILES: &str = "splitting pictures into tiles (LLaVA 1.6) is not part of TG-LLaVA";
const SHARED_OUT: &str =
    "gradients and optimizer state are shared out among the devices in any case (ZeRO-2)";
const OWN_LOGS: &str = "logs go into the run's output folder";
const OWN_RESUME: &str = "resuming is asked for with this program's own options";
const NO_HUB: &str = "nothing is uploaded";
const BEST_KEPT: &str = "with [data.validation] the best checkpoint is kept";
const SEEDED: &str = "a run's order, dropout and fresh weights depend on --seed alone";

/// Flags without dashes.
const FLAGS: &[(&str, Meaning)] = &[
    // Model arguments.
    ("model_name_or_path", Text("model.path")),
    ("version", Value),
    ("freeze_backbone", Choice),
    ("tune_mm_mlp_adapter", Choice),
    ("vision_tower", Text("model.vision_tower")),
    ("text_tower", Text("model.text_tower")),
    ("mm_vision_select_layer", Number("model.select_layer")),
    ("mm_vision_select_feature", Text("model.select_feature")),
    ("pretrain_mm_mlp_adapter", Text("model.bridges.projector")),
    ("pretrain_mm_cross_attn", Text("model.bridges.feature_guide")),
    ("pretrain_mm_patch_encoder", Text("model.bridges.detail_perceiver")),
    ("mm_projector_type", Text("model.projector_type")),
    ("mm_use_im_start_end", Switch("model.use_im_start_end")),
    ("mm_use_im_patch_token", Ignored("the token would never be used")),
    ("mm_patch_merge_type", Only(&["flat"], TILES)),
    ("unfreeze_mm_vision_tower", Switch("train.vision_tower")),
    // Data arguments.
    ("data_path", Text("data.path")),
    ("lazy_preprocess", Moot),
    ("is_multimodal", Moot),
    ("image_folder", Text("data.image_folder")),
    ("image_aspect_ratio", Value),
    ("image_grid_pinpoints", Only(NONE, TILES)),
    // Training arguments of LLaVA.
    ("cache_dir", Ignored("nothing is downloaded")),
    ("freeze_mm_mlp_adapter", Choice),
    ("mpt_attn_impl", Moot),
    ("attn_implementation", Moot),
    ("model_max_length", Number("model.max_length")),
    ("double_quant", Choice),
    ("quant_type", Value),
    ("bits", Value),
    ("lora_enable", Choice),
    ("lora_r", Value),
    ("lora_alpha", Value),
    ("lora_dropout", Value),
    (
        "lora_weight_path",
        Only(
            NONE,
            "an adapter is trained from its beginning; merge the one that is there into its base first",
        ),
    ),
    ("lora_bias", Value),
    ("mm_projector_lr", Number("optim.lr_of.projector")),
    ("mm_vision_tower_lr", Number("optim.lr_of.vision_tower")),
    ("group_by_modality_length", Choice),
    // The HF Trainer: what is trained for how long.
    ("output_dir", Text("output_dir")),
    ("seed", Number("seed")),
    ("data_seed", Ignored(SEEDED)),
    ("full_determinism", Moot),
    ("num_train_epochs", Number("run.epochs")),
    ("max_steps", Value),
    ("per_device_train_batch_size", Number("run.batch_size")),
    ("per_gpu_train_batch_size", Number("run.batch_size")),
    ("gradient_accumulation_steps", Number("run.accumulation")),
    ("group_by_length", Choice),
    ("length_column_name", Moot),
    ("label_names", Moot),
    ("remove_unused_columns", Moot),
    ("label_smoothing_factor", Only(ZERO, "label smoothing is not supported")),
    ("neftune_noise_alpha", Only(NONE, "noise on the embeddings is not supported")),
    ("past_index", Moot),
    ("mp_parameters", Moot),
    ("auto_find_batch_size", Ignored("the batch size stays as given")),
    // The HF Trainer: optimizer.
    ("learning_rate", Number("optim.lr")),
    ("weight_decay", Number("optim.weight_decay")),
    ("adam_beta1", Number("optim.beta1")),
    ("adam_beta2", Number("optim.beta2")),
    ("adam_epsilon", Number("optim.epsilon")),
    ("max_grad_norm", Number("optim.max_grad_norm")),
    ("lr_scheduler_type", Text("optim.schedule")),
    ("lr_scheduler_kwargs", Ignored("the schedules take no settings beyond the warm-up")),
    ("warmup_ratio", Number("optim.warmup_ratio")),
    ("warmup_steps", Value),
    ("optim", Only(ADAMW, "AdamW (adamw_torch) is the optimizer there is")),
    ("optim_args", Only(NONE, "AdamW takes --adam_beta1, --adam_beta2, --adam_epsilon alone")),
    ("adafactor", Only(NO, "AdamW (adamw_torch) is the optimizer there is")),
    // The HF Trainer: number formats and speed.
    ("bf16", Choice),
    ("fp16", Choice),
    ("tf32", Ignored("the number format is --bf16, --fp16 or f32")),
    ("bf16_full_eval", Moot),
    ("fp16_full_eval", Moot),
    ("fp16_opt_level", Moot),
    ("fp16_backend", Moot),
    ("half_precision_backend", Moot),
    ("gradient_checkpointing", Switch("run.gradient_checkpointing")),
    ("gradient_checkpointing_kwargs", Moot),
    ("torch_compile", Moot),
    ("torch_compile_backend", Moot),
    ("torch_compile_mode", Moot),
    ("torchdynamo", Moot),
    ("use_ipex", Moot),
    ("jit_mode_eval", Moot),
    // The HF Trainer: devices and processes.
    ("deepspeed", Ignored(SHARED_OUT)),
    ("fsdp", Ignored(SHARED_OUT)),
    ("fsdp_config", Ignored(SHARED_OUT)),
    ("fsdp_min_num_params", Moot),
    ("fsdp_transformer_layer_cls_to_wrap", Moot),
    ("accelerator_config", Ignored(SHARED_OUT)),
    ("local_rank", Moot),
    ("ddp_backend", Moot),
    ("ddp_find_unused_parameters", Moot),
    ("ddp_bucket_cap_mb", Moot),
    ("ddp_broadcast_buffers", Moot),
    ("ddp_timeout", Moot),
    ("dispatch_batches", Moot),
    ("split_batches", Moot),
    ("ray_scope", Moot),
    ("tpu_num_cores", Moot),
    ("tpu_metrics_debug", Moot),
    ("no_cuda", Ignored("the device is chosen with --device")),
    ("use_cpu", Ignored("the device is chosen with --device")),
    ("use_mps_device", Ignored("the device is chosen with --device")),
    ("skip_memory_metrics", Moot),
    ("debug", Moot),
    // The HF Trainer: reading data.
    ("dataloader_num_workers", Value),
    ("dataloader_pin_memory", Moot),
    ("dataloader_persistent_workers", Moot),
    ("dataloader_prefetch_factor", Moot),
    ("dataloader_drop_last", Ignored("a last batch that is not full is trained on")),
    ("ignore_data_skip", Ignored(OWN_RESUME)),
    // The HF Trainer: validation.
    ("do_train", Moot),
    ("do_eval", Moot),
    ("do_predict", Moot),
    ("evaluation_strategy", Value),
    ("eval_strategy", Value),
    ("eval_steps", Moot),
    ("eval_delay", Moot),
    ("eval_accumulation_steps", Moot),
    ("per_device_eval_batch_size", Moot),
    ("per_gpu_eval_batch_size", Moot),
    ("prediction_loss_only", Moot),
    ("include_inputs_for_metrics", Moot),
    ("load_best_model_at_end", Ignored(BEST_KEPT)),
    ("metric_for_best_model", Ignored(BEST_KEPT)),
    ("greater_is_better", Moot),
    ("use_legacy_prediction_loop", Moot),
    // The HF Trainer: checkpoints.
    ("save_strategy", Value),
    ("save_steps", Value),
    ("save_total_limit", Value),
    ("save_safetensors", Moot),
    ("save_on_each_node", Moot),
    ("save_only_model", Ignored("checkpoints hold all that resuming needs")),
    ("overwrite_output_dir", Ignored(OWN_RESUME)),
    ("resume_from_checkpoint", Ignored(OWN_RESUME)),
    ("push_to_hub", Ignored(NO_HUB)),
    ("push_to_hub_model_id", Moot),
    ("push_to_hub_organization", Moot),
    ("push_to_hub_token", Moot),
    ("hub_model_id", Moot),
    ("hub_strategy", Moot),
    ("hub_token", Moot),
    ("hub_private_repo", Moot),
    ("hub_always_push", Moot),
    // The HF Trainer: logs.
    ("logging_steps", Value),
    ("logging_dir", Ignored(OWN_LOGS)),
    ("logging_strategy", Moot),
    ("logging_first_step", Moot),
    ("logging_nan_inf_filter", Moot),
    ("log_level", Moot),
    ("log_level_replica", Moot),
    ("log_on_each_node", Moot),
    (
        "report_to",
        Ignored("metrics are written as JSON lines and TensorBoard events into the run's output folder"),
    ),
    ("run_name", Moot),
    ("disable_tqdm", Moot),
    ("include_tokens_per_second", Moot),
    ("include_num_input_tokens_seen", Moot),
];
