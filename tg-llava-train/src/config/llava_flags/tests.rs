use super::*;
use crate::{
    config::{BaseFormat, BridgeFiles, Bridges, RunDType, Stage, TrainConfig, known_keys},
    data::SampleOrder,
    schedule::{ScheduleKind, Warmup},
};
use tg_llava_core::preprocess::AspectRatio;

fn args(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn read(line: &str) -> (TrainConfig, Vec<String>) {
    let (table, notes) = from_llava_args(&args(line)).unwrap();
    (TrainConfig::from_table(table).unwrap(), notes)
}

fn fails(line: &str) -> String {
    from_llava_args(&args(line)).unwrap_err().to_string()
}

/// What both scripts of the reference pass.
const COMMON: &str = "
    --model_name_or_path models/Qwen2-7B-Instruct --version qwen_2
    --vision_tower towers/clip --text_tower towers/clip-text
    --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2
    --mm_use_im_start_end False --mm_use_im_patch_token False --bf16 True
    --num_train_epochs 1 --per_device_eval_batch_size 4 --gradient_accumulation_steps 2
    --evaluation_strategy no --save_strategy steps --save_steps 0.5 --save_total_limit 2
    --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1 --tf32 True
    --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True
    --report_to none";

const PRETRAIN: &str = "
    --deepspeed scripts/zero2.json --data_path data/558k.json --image_folder images/pretrain
    --tune_mm_mlp_adapter True --output_dir out/pretrain --per_device_train_batch_size 16 --learning_rate 1e-3";

const FINETUNE: &str = "
    --deepspeed scripts/zero3.json --data_path data/665k.json --image_folder images/finetune
    --pretrain_mm_mlp_adapter out/pretrain/mm_projector.bin
    --pretrain_mm_cross_attn out/pretrain/mm_cross_attn.bin
    --pretrain_mm_patch_encoder out/pretrain/mm_patch_encoder.bin
    --image_aspect_ratio pad --group_by_modality_length True
    --output_dir out/finetune --per_device_train_batch_size 8 --learning_rate 2e-5";

/// What both scripts of the reference ask for.
fn common(stage: Stage) -> TrainConfig {
    let mut config = TrainConfig::new(stage);
    config.model.path = "models/Qwen2-7B-Instruct".into();
    config.model.vision_tower = Some("towers/clip".into());
    config.model.text_tower = Some("towers/clip-text".into());
    config.model.projector_type = Some("mlp2x_gelu".into());
    config.model.select_layer = Some(-2);
    config.model.use_im_start_end = Some(false);
    config.model.template = Some("qwen_2".into());
    config.data.workers = 4;
    config.run.accumulation = 2;
    config.run.gradient_checkpointing = true;
    config.run.save_total_limit = Some(2);
    config.run.dtype = Some(RunDType::Bf16);
    config
}

#[test]
fn the_reference_pretrains() {
    let (config, notes) = read(&format!("tg_llava/train/train_mem_cross_zeroAdd.py {PRETRAIN} {COMMON}"));
    let mut expected = common(Stage::Pretrain);
    expected.output_dir = "out/pretrain".into();
    expected.data.path = vec!["data/558k.json".into()];
    expected.data.image_folder = Some("images/pretrain".into());
    expected.data.aspect_ratio = AspectRatio::Square;
    expected.data.order = SampleOrder::Shuffled;
    expected.optim.lr = 1e-3;
    expected.run.batch_size = 16;
    assert_eq!(config, expected);
    config.validate().unwrap();
    // What the script says is what the stage has by default.
    let defaults = TrainConfig::new(Stage::Pretrain);
    assert_eq!((config.optim, config.train), (defaults.optim, defaults.train));
    assert_eq!(
        notes,
        [
            "--deepspeed is ignored: gradients and optimizer state are shared out among the devices in any case (ZeRO-2)",
            "--tf32 is ignored: the number format is --bf16, --fp16 or f32",
            "an optimizer step takes 16 x 2 = 32 samples of each device; the published runs took 128 (256 to pretrain) in \
             all: with fewer devices, raise --gradient_accumulation_steps to keep that",
            "LLaVA's DeepSpeed files leave gradients as long as they are, whatever --max_grad_norm; here they are clipped at 1, and \
             with --max_grad_norm 0 not at all",
        ]
    );
}

#[test]
fn the_reference_finetunes() {
    // As its script calls it, launcher and all.
    let (config, notes) =
        read(&format!("deepspeed --num_gpus=8 tg_llava/train/train_mem.py {FINETUNE} {COMMON}"));
    let mut expected = common(Stage::Finetune);
    expected.output_dir = "out/finetune".into();
    expected.data.path = vec!["data/665k.json".into()];
    expected.data.image_folder = Some("images/finetune".into());
    expected.data.aspect_ratio = AspectRatio::Pad;
    expected.data.order = SampleOrder::ModalityLength;
    expected.model.bridges = Some(Bridges::Files(BridgeFiles {
        projector: Some("out/pretrain/mm_projector.bin".into()),
        feature_guide: Some("out/pretrain/mm_cross_attn.bin".into()),
        detail_perceiver: Some("out/pretrain/mm_patch_encoder.bin".into()),
    }));
    expected.optim.lr = 2e-5;
    expected.run.batch_size = 8;
    assert_eq!(config, expected);
    config.validate().unwrap();
    let defaults = TrainConfig::new(Stage::Finetune);
    assert_eq!((config.optim, config.train), (defaults.optim, defaults.train));
    assert_eq!(notes.len(), 4);
}

#[test]
fn llava_1_5_trains() {
    let line = "--deepspeed ./scripts/zero3.json --model_name_or_path lmsys/vicuna-13b-v1.5 --version v1 \
        --data_path ./playground/data/llava_v1_5_mix665k.json --image_folder ./playground/data \
        --vision_tower openai/clip-vit-large-patch14-336 \
        --pretrain_mm_mlp_adapter ./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin \
        --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2 --mm_use_im_start_end False \
        --mm_use_im_patch_token False --image_aspect_ratio pad --group_by_modality_length True --bf16 True \
        --output_dir ./checkpoints/llava-v1.5-13b --num_train_epochs 1 --per_device_train_batch_size 16 \
        --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no \
        --save_strategy steps --save_steps 50000 --save_total_limit 1 --learning_rate 2e-5 --weight_decay 0. \
        --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1 --tf32 True --model_max_length 2048 \
        --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True --report_to wandb";
    let (config, notes) = read(line);
    config.validate().unwrap();
    assert_eq!(config.model.template.as_deref(), Some("v1"));
    assert_eq!(config.run.save_steps, Steps::Count(50_000));
    assert_eq!(config.run.save_total_limit, Some(1));
    let files = BridgeFiles {
        projector: Some("./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin".into()),
        ..BridgeFiles::default()
    };
    assert_eq!(config.model.bridges, Some(Bridges::Files(files)));
    assert!(notes.iter().any(|note| note.starts_with("--report_to is ignored: ")), "{notes:?}");
    // Its folder holds both towers.
    assert_eq!(config.model.text_tower.as_deref(), Some("openai/clip-vit-large-patch14-336"));
}

#[test]
fn flags_are_written_in_several_ways() {
    let plain =
        read("--tune_mm_mlp_adapter True --bf16 True --learning_rate 1e-3 --mm_vision_select_layer -2");
    for line in [
        "--tune_mm_mlp_adapter --bf16 --learning_rate .001 --mm_vision_select_layer -2",
        "--tune-mm-mlp-adapter=yes --bf16=1 --learning-rate=0.001 --mm_vision_select_layer=-2",
        "--tune_mm_mlp_adapter t --fp16 --no_fp16 --bf16 --learning_rate 5 --learning_rate 1E-3 \
         --mm_vision_select_layer -2",
        "python -u llava/train/train_mem.py --tune_mm_mlp_adapter --bf16 True --learning_rate 1e-3 \
         --mm_vision_select_layer -2",
    ] {
        assert_eq!(read(line), plain, "{line}");
    }
    assert_eq!(plain.0.stage, Stage::Pretrain);
    assert_eq!(read("--bf16 False").0.run.dtype, Some(RunDType::F32));
    assert_eq!(read("--fp16").0.run.dtype, Some(RunDType::F16));
    assert_eq!(read("").0.run.dtype, None);
}

#[test]
fn what_is_not_given_is_as_in_llava() {
    let (config, notes) = read("");
    assert_eq!(config.stage, Stage::Finetune);
    assert_eq!((config.optim.lr, config.run.epochs), (5e-5, 3.0));
    assert_eq!((config.optim.schedule, config.optim.warmup()), (ScheduleKind::Linear, Warmup::Ratio(0.0)));
    assert_eq!(config.data.order, SampleOrder::Shuffled);
    assert_eq!(config.data.aspect_ratio, AspectRatio::Square);
    assert_eq!((config.run.save_steps, config.run.batch_size), (Steps::Count(500), 8));
    assert_eq!(
        notes,
        [
            "--mm_projector_type, --mm_vision_select_layer not given: as the start's config says, else mlp2x_gelu, -2",
            "not given, so LLaVA's defaults hold: --warmup_ratio 0, --learning_rate 5e-5, --lr_scheduler_type linear, \
             --num_train_epochs 3",
        ]
    );
}

#[test]
fn flags_that_work_together() {
    let (config, notes) = read("--warmup_steps 100 --warmup_ratio 0.03");
    assert_eq!(config.optim.warmup(), Warmup::Steps(100));
    assert!(notes.iter().any(|note| note.starts_with("--warmup_ratio is ignored")), "{notes:?}");
    assert_eq!(read("--warmup_steps 0 --warmup_ratio 0.1").0.optim.warmup(), Warmup::Ratio(0.1));
    assert_eq!(read("--max_steps 12").0.run.max_steps, Some(12));
    assert_eq!(read("--max_steps -1").0.run.max_steps, None);
    assert_eq!(read("--save_total_limit 0").0.run.save_total_limit, None);
    assert_eq!(read("--dataloader_num_workers 0").0.data.workers, 1);
    assert_eq!(read("--group_by_length").0.data.order, SampleOrder::Length);
    assert_eq!(read("--save_strategy no").0.run.save_steps, Steps::Never);
    assert_eq!(read("--save_strategy epoch --num_train_epochs 4").0.run.save_steps, Steps::Share(0.25));
    assert_eq!(read("--save_strategy epoch --num_train_epochs 1").0.run.save_steps, Steps::Never);
    assert_eq!(read("--save_strategy epoch --max_steps 9").0.run.save_steps, Steps::Never);
    assert_eq!(read("--logging_steps 10").0.run.log_every, 10);
    assert_eq!(read("--version v1").0.model.template.as_deref(), Some("v1"));
    let (config, notes) = read("--version my_qwen_2");
    assert_eq!(config.model.template.as_deref(), Some("qwen_2"));
    assert_eq!(notes[0], "--version my_qwen_2: taken as qwen_2, as LLaVA does");

    let (config, _) = read("--freeze_backbone True --mm_projector_lr 2e-5 --unfreeze_mm_vision_tower True");
    assert!(!config.train.llm && config.train.vision_tower);
    assert_eq!(config.optim.lr_of.projector, Some(2e-5));
    assert!(!read("--freeze_mm_mlp_adapter True").0.train.projector);
    assert!(read("--evaluation_strategy steps --eval_steps 10").1[1].contains("data.validation.path"));
}

#[test]
fn adapters_are_trained_as_llava_does() {
    let line = "--lora_enable True --lora_r 128 --lora_alpha 256 --mm_projector_lr 2e-5 --learning_rate 2e-4 \
        --freeze_backbone True";
    let (config, notes) = read(line);
    let lora = config.lora.unwrap();
    assert_eq!((lora.rank, lora.alpha, lora.dropout, lora.rslora), (128, Some(256.0), 0.05, false));
    assert_eq!((config.optim.lr, config.optim.lr_of.projector), (2e-4, Some(2e-5)));
    assert_eq!(config.optim.lr_of.feature_guide, None);
    assert!(config.train.llm && notes.iter().any(|note| note.contains("optim.lr_of")), "{notes:?}");
    let lora = read("--lora_enable True --lora_dropout 0").0.lora.unwrap();
    assert_eq!((lora.rank, lora.alpha, lora.dropout), (64, Some(16.0), 0.0));
    assert_eq!(read("--lora_r 8").0.lora, None);
    let line = "--lora_enable True --bits 4 --double_quant True --quant_type nf4";
    assert_eq!(read(line).0.lora.unwrap().base, BaseFormat::Nf4);
    // The kind of four bits is nothing to eight, in LLaVA too.
    let line = "--lora_enable True --bits 8 --double_quant True --quant_type nf4";
    assert_eq!(read(line).0.lora.unwrap().base, BaseFormat::Int8);
}

#[test]
fn flags_with_no_effect_here_pass() {
    let quiet = read("");
    let harmless = "--lora_enable False --lora_r 128 --bits 16 --optim adamw_torch --label_smoothing_factor 0.0 \
        --ddp_timeout 7200 --seed 42 --max_grad_norm 1.0 --adam_beta1 0.9 --adam_beta2 0.999 --adam_epsilon 1e-8 \
        --dataloader_pin_memory False --local_rank 0 --fsdp --push_to_hub False --mpt_attn_impl triton \
        --mm_patch_merge_type flat --do_train --label_names labels text --torch_compile False --hub_token secret \
        --per_gpu_train_batch_size 8 --no_double_quant";
    let (config, notes) = read(harmless);
    assert_eq!(config, quiet.0);
    // `--fsdp` alone is the one that asks for something.
    assert!(notes.iter().any(|note| note.starts_with("--fsdp is ignored")), "{notes:?}");
    assert!(!notes.iter().any(|note| note.contains("secret")));
}

#[test]
fn what_cannot_be_done_is_refused() {
    for (line, expected) in [
        (
            "--lora_enable True --lora_bias lora_only",
            "--lora_bias: lora_only: adapters have no biases; use none",
        ),
        ("--lora_enable True --lora_r 1.5", "--lora_r: invalid type: floating point `1.5`"),
        ("--lora_weight_path some/adapter", "--lora_weight_path: some/adapter: an adapter is trained"),
        ("--bits 4", "--bits: 4: quantised weights do not learn; add --lora_enable True, or use 16"),
        ("--bits 8", "--bits: 8: quantised weights do not learn"),
        ("--bits 2 --lora_enable True", "--bits: 2: expected 4 (NF4), 8 (int8) or 16"),
        ("--bits 4 --lora_enable True --quant_type fp4", "--quant_type: fp4: expected nf4"),
        ("--bits 4 --lora_enable True --double_quant False", "--double_quant: False: scales"),
        ("--optim adafactor", "--optim: adafactor: AdamW (adamw_torch) is the optimizer there is"),
        ("--image_aspect_ratio anyres", "--image_aspect_ratio: anyres is not supported; use pad or square"),
        ("--mm_patch_merge_type spatial_unpad", "--mm_patch_merge_type: spatial_unpad: splitting pictures"),
        ("--label_smoothing_factor 0.1", "--label_smoothing_factor: 0.1: label smoothing is not supported"),
        (
            "--learnin_rate 1",
            "--learnin_rate: LLaVA's training scripts have no such flag; did you mean --learning_rate?",
        ),
        ("--quux 1", "--quux: LLaVA's training scripts have no such flag"),
        ("--learning_rate", "--learning_rate: needs a value"),
        ("--learning_rate --bf16", "--learning_rate: needs a value"),
        ("--learning_rate fast", "--learning_rate: expected a number, found \"fast\""),
        ("--learning_rate 1 2", "--learning_rate: takes one value, found 1 2"),
        ("--bf16 maybe", "--bf16: expected True or False, found \"maybe\""),
        ("--bf16 --fp16", "--bf16, --fp16: both are True; keep one of them"),
        (
            "--lr_scheduler_type polynomial",
            "--lr_scheduler_type: unknown variant `polynomial`, expected one of `cosine`, `linear`",
        ),
        (
            "--gradient_accumulation_steps 1.5",
            "--gradient_accumulation_steps: invalid type: floating point `1.5`",
        ),
        (
            "--save_steps 0",
            "--save_steps: expected a number of steps or a share of the run in (0, 1), found 0",
        ),
        ("--save_steps 1.5", "--save_steps: expected"),
        ("--save_strategy never", "--save_strategy: \"never\"; expected no, steps or epoch"),
        ("--max_steps 1.5", "--max_steps: expected a whole number, found 1.5"),
        ("--logging_steps 0", "--logging_steps: expected a number of steps, found 0"),
        ("data.json --bf16", "data.json: expected a flag such as --data_path"),
        ("deepspeed --num_gpus=8 --bf16", "deepspeed: expected the script's name"),
    ] {
        let message = fails(line);
        assert!(message.starts_with(expected), "{line}\n{message}");
    }
}

#[test]
fn flags_are_known_once_and_their_keys_exist() {
    let names: Vec<_> = flags::names().collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), names.len());
    for (flag, key) in flag_keys() {
        assert!(known_keys().any(|known| known == key), "{flag} -> {key}");
        assert!(names.contains(&flag), "{flag}");
    }
}
