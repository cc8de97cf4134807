//! Text and assignments, good and bad.

use std::fs;

use proptest::prelude::*;
use toml::Table;

use crate::config::*;

#[test]
fn faults_of_the_text_are_placed() {
    for (text, expected) in [
        ("stage = ", "run.toml, line 1, column 9: not valid TOML: "),
        ("stage = 'pretrain'\n[optim\n", "run.toml, line 2, column 7: not valid TOML: "),
        ("seed = 1\nseed = 2", "run.toml, line 2, column 1: not valid TOML: duplicate key"),
        (
            "stage = 'pretrain'\n[optim]\nlearning_rat = 1",
            "run.toml, line 3: unknown key `optim.learning_rat`; did you mean `optim.lr`?",
        ),
        ("[optin]\nlr = 1", "run.toml, line 1: unknown key `optin`; "),
        (
            "[run]\n\nbatch_size = 'x'",
            "run.toml, line 3: `run.batch_size`: invalid type: string \"x\", expected a whole number of at least 0",
        ),
        (
            "run.batch_size = -1",
            "run.toml, line 1: `run.batch_size`: invalid value: integer `-1`, expected a whole number of at least 0",
        ),
        ("optim = 3", "run.toml, line 1: `optim`: invalid type: integer `3`, expected a table"),
        (
            "stage = 'train'",
            "run.toml, line 1: `stage`: unknown variant `train`, expected `pretrain` or `finetune`",
        ),
        (
            "[optim]\nschedule = 'cosin'",
            "run.toml, line 2: `optim.schedule`: unknown variant `cosin`, expected one of `cosine`, `linear`, \
             `constant`, `constant_with_warmup`",
        ),
        (
            "[model]\nguide_padding = 'shown'",
            "run.toml, line 2: `model.guide_padding`: unknown variant `shown`, expected `masked` or `visible`",
        ),
        (
            "[run]\nsave_steps = 1.5",
            "run.toml, line 2: `run.save_steps`: invalid value: floating point `1.5`, expected a whole \
             number of steps, a share of the run in (0, 1), or 0 for the end alone",
        ),
        (
            "[optim]\nloss_scale = 'static'",
            "run.toml, line 2: `optim.loss_scale`: invalid value: string \"static\", expected \"dynamic\" or a number",
        ),
        (
            "[data]\npath = 3",
            "run.toml, line 2: `data.path`: invalid type: integer `3`, expected a path or a list of paths",
        ),
        (
            "[data]\npath = ['a',\n 3]",
            "run.toml, line 3: `data.path`: invalid type: integer `3`, expected a path",
        ),
        (
            "[model]\nbridges = true",
            "run.toml, line 2: `model.bridges`: invalid type: boolean `true`, expected a folder, or a table of files: ",
        ),
        (
            "[model.bridges]\nprojektor = 'a'",
            "run.toml, line 2: unknown key `model.bridges.projektor`; did you mean `model.bridges.projector`?",
        ),
    ] {
        let message = TrainConfig::from_toml(text, "run.toml").unwrap_err().to_string();
        assert!(message.starts_with(expected), "{text}\n{message}\n{expected}");
        assert!(!message.contains('\n'), "{message}");
    }
    let message = TrainConfig::from_toml("seed = 1", "run.toml").unwrap_err().to_string();
    assert_eq!(message, "`stage` is not set: set it to \"pretrain\" (stage 1) or \"finetune\" (stage 2)");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let message = read_table("no/such/run.toml".as_ref()).unwrap_err().to_string();
    assert!(message.starts_with("no/such/run.toml: "), "{message}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    fs::write(&path, "\n\nsead = 1").unwrap();
    let message = read_table(&path).unwrap_err().to_string();
    assert_eq!(message, format!("{}, line 3: unknown key `sead`; did you mean `seed`?", path.display()));
}

#[test]
fn set_takes_values_of_every_kind() {
    let mut table = parse_table("stage = 'pretrain'\n[optim]\nlr = 1e-4\nbeta1 = 0.5", "run.toml").unwrap();
    for assignment in [
        "stage=finetune",
        "seed = 7",
        "output_dir=2024-01-01",
        "model.path=\"with space\"",
        "model.bridges=folder",
        "model.bridges.projector=p.bin",
        "model.init=random",
        "model.select_layer=-3",
        "model.feature_guide=false",
        "model.template=llama_3",
        "data.path=['a.json', 'b.json']",
        "data.validation.fraction=.25",
        "data.validation.every=100",
        "train.llm=false",
        "optim.lr=2e-5",
        "optim.weight_decay=0.",
        "optim.max_grad_norm=2",
        "optim.loss_scale=512",
        "optim.beta1=",
        "run.save_steps=0.25",
        "run.max_steps=12",
        "run.dtype=bf16",
    ] {
        set(&mut table, assignment).unwrap();
    }
    let config = TrainConfig::from_table(table).unwrap();
    let mut expected = TrainConfig::new(Stage::Finetune);
    expected.seed = 7;
    expected.output_dir = "2024-01-01".into();
    expected.model.path = "with space".into();
    let files = BridgeFiles { projector: Some("p.bin".into()), ..BridgeFiles::default() };
    expected.model.bridges = Some(Bridges::Files(files));
    expected.model.init = Init::Random;
    expected.model.select_layer = Some(-3);
    (expected.model.feature_guide, expected.train.feature_guide) = (false, false);
    expected.model.template = Some("llama_3".into());
    expected.data.path = vec!["a.json".into(), "b.json".into()];
    expected.data.validation = Some(ValidationOptions {
        fraction: Some(0.25),
        every: Steps::Count(100),
        ..ValidationOptions::default()
    });
    expected.train.llm = false;
    expected.optim.lr = 2e-5;
    expected.optim.max_grad_norm = 2.0;
    expected.optim.loss_scale = LossScale::Fixed(512.0);
    expected.run.save_steps = Steps::Share(0.25);
    expected.run.max_steps = Some(12);
    expected.run.dtype = Some(RunDType::Bf16);
    assert_eq!(config, expected);
}

#[test]
fn set_names_what_it_cannot_set() {
    for (assignment, expected) in [
        ("optim.lr", "--set optim.lr: write it as key=value, for example optim.lr=2e-5"),
        ("=3", "--set =3: write it as key=value, for example optim.lr=2e-5"),
        (
            "optim.learning_rat=1",
            "--set optim.learning_rat=1: unknown key `optim.learning_rat`; did you mean `optim.lr`?",
        ),
        (
            "optim.lr=fast",
            "--set optim.lr=fast: `optim.lr`: invalid type: string \"fast\", expected a number",
        ),
        ("train.llm=1", "--set train.llm=1: `train.llm`: invalid type: integer `1`, expected a boolean"),
        ("run=3", "--set run=3: `run`: invalid type: integer `3`, expected a table"),
    ] {
        let mut table = Table::new();
        assert_eq!(set(&mut table, assignment).unwrap_err().to_string(), expected);
        assert!(table.is_empty(), "{assignment} left {table}");
    }
}

proptest! {
    #[test]
    fn text_of_any_kind_is_read_or_refused(text in "([a-z_.\\[\\]]{1,12}( = )?['\"0-9a-z.-]{0,6}\n?){0,6}") {
        let _ = TrainConfig::from_toml(&text, "run.toml");
        let _ = set(&mut Table::new(), &text);
    }

    #[test]
    fn a_number_that_is_set_is_the_number_that_is_there(value in 1e-12f64..1e12) {
        let mut table = Table::new();
        for text in [format!("optim.lr={value}"), format!("optim.lr={value:e}")] {
            set(&mut table, &text).unwrap();
            let found = &table["optim"]["lr"];
            let found = found.as_float().or(found.as_integer().map(|whole| whole as f64));
            prop_assert_eq!(found, Some(value));
        }
    }
}
