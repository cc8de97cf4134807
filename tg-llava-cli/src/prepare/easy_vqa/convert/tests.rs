//! The whole conversion of a tiny package.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use image::Rgb;
use tempfile::TempDir;
use tg_llava_core::conversation::Turn;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;
use crate::prepare::Existing;
use tg_llava_train::data::{LlavaDataset, OnBadSample};

const TRAIN: &str = r#"[["what shape?", "circle", 12], ["is it red?", "no", 12], ["is it blue?", "yes", 12],
    ["what color?", "red", 3]]"#;
const TEST: &str = r#"[["is it red?", "yes", 0], ["what shape?", "box", 0]]"#;

fn picture(seed: u8) -> Vec<u8> {
    to_png(&RgbImage::from_fn(9, 9, |x, y| match (2..5).contains(&x) && (3..5).contains(&y) {
        true => Rgb([x as u8, y as u8, seed]),
        false => Rgb([240; 3]),
    }))
    .unwrap()
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("answers.txt", b"circle\nbox\nred\nyes\nno\n".to_vec()),
        ("train/questions.json", TRAIN.into()),
        ("train/images/12.png", picture(12)),
        ("train/images/3.png", picture(3)),
        ("test/questions.json", TEST.into()),
        ("test/images/0.png", picture(0)),
    ]
}

fn wheel(dir: &Path, files: &[(&str, Vec<u8>)]) -> PathBuf {
    let path = dir.join("tiny.whl");
    let mut writer = ZipWriter::new(File::create(&path).unwrap());
    for (name, bytes) in files {
        writer.start_file(format!("easy_vqa/data/{name}"), SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn prepared(options: &EasyVqaOptions) -> (TempDir, EasyVqaSummary) {
    let dir = tempfile::tempdir().unwrap();
    let wheel = wheel(dir.path(), &files());
    let summary = prepare_easy_vqa(wheel, dir.path().join("out"), options).unwrap();
    (dir, summary)
}

fn ids(dir: &TempDir, file: &str) -> Vec<String> {
    let data = LlavaDataset::open(dir.path().join("out").join(file), OnBadSample::Error).unwrap();
    (0..data.len()).map(|at| data.sample(at).unwrap().id).collect()
}

/// Every file under `folder` with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let bytes = fs::read(&path).unwrap();
                    found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), bytes);
                }
            }
        }
    }
    found
}

#[test]
fn a_question_is_a_sample() {
    let (dir, summary) = prepared(&EasyVqaOptions::default());
    assert_eq!(summary.train, SplitSummary { samples: 4, questions: 4, pictures: 2, files: 2 });
    assert_eq!(summary.test, SplitSummary { samples: 2, questions: 2, pictures: 1, files: 1 });
    let answers: Vec<_> = summary.answers.iter().map(|(answer, &n)| (answer.as_str(), n)).collect();
    assert_eq!(answers, [("box", 1), ("circle", 1), ("no", 1), ("red", 1), ("yes", 2)]);
    assert_eq!(ids(&dir, "train.json"), ["train-12-0", "train-12-1", "train-12-2", "train-3-0"]);
    assert_eq!(ids(&dir, "test.json"), ["test-0-0", "test-0-1"]);

    let out = contents(&dir.path().join("out"));
    let names: Vec<_> = out.keys().map(|path| path.to_str().unwrap().replace('\\', "/")).collect();
    assert_eq!(
        names,
        [
            "LICENSE",
            "images/test/0.png",
            "images/train/12.png",
            "images/train/3.png",
            "test.json",
            "train.json"
        ]
    );
    assert_eq!(out[Path::new("images/train/12.png")], picture(12));
    let first = String::from_utf8(out[Path::new("train.json")].clone()).unwrap();
    assert_eq!(
        first.lines().nth(1).unwrap(),
        r#"{"id":"train-12-0","image":"train/12.png","conversations":[{"from":"human","value":"<image>\nwhat shape?"},{"from":"gpt","value":"circle"}]},"#
    );
}

#[test]
fn several_questions_share_one_picture_mark() {
    let two = QuestionsPerSample::UpTo(NonZeroUsize::new(2).unwrap());
    for (questions_per_sample, expected) in [
        (two, &["train-12-0", "train-12-2", "train-3-0"][..]),
        (QuestionsPerSample::All, &["train-12-0", "train-3-0"]),
    ] {
        let (dir, summary) = prepared(&EasyVqaOptions { questions_per_sample, ..EasyVqaOptions::default() });
        assert_eq!(ids(&dir, "train.json"), expected);
        assert_eq!((summary.train.questions, summary.test.samples), (4, 2));
        let data = LlavaDataset::open(dir.path().join("out/train.json"), OnBadSample::Error).unwrap();
        let turns = data.sample(0).unwrap().conversations;
        let expected = [Turn::human("<image>\nwhat shape?"), Turn::gpt("circle"), Turn::human("is it red?")];
        assert_eq!(turns[..3], expected);
    }
}

#[test]
fn copies_are_further_samples_with_files_of_their_own() {
    let (dir, summary) =
        prepared(&EasyVqaOptions { copies: Copies::new(8).unwrap(), ..EasyVqaOptions::default() });
    assert_eq!(summary.train, SplitSummary { samples: 32, questions: 32, pictures: 2, files: 16 });
    assert_eq!(summary.test.files, 1);
    assert_eq!(ids(&dir, "train.json")[..4], ["train-12-0", "train-12-1", "train-12-2", "train-12-c1-0"]);
    let original = image::load_from_memory(&picture(12)).unwrap().to_rgb8();
    let mut looks = BTreeSet::new();
    for copy in 0..8 {
        let path = dir.path().join(format!("out/images/train/{}.png", variant_name(12, copy)));
        let found = image::open(path).unwrap().to_rgb8();
        let expected =
            if copy == 0 { original.clone() } else { variant(&original, &mut Draws::for_copy(12, copy)) };
        assert_eq!(found, expected, "{copy}");
        looks.insert(found.into_raw());
    }
    assert!(looks.len() >= 6, "{}", looks.len());
    let data = LlavaDataset::open(dir.path().join("out/train.json"), OnBadSample::Error).unwrap();
    let answers = |at: usize| data.sample(at).unwrap().conversations;
    assert_eq!(answers(0), answers(3));
    assert_eq!(data.sample(3).unwrap().images, ["train/12-c1.png"]);
}

#[test]
fn a_curriculum_comes_beside_the_split_and_goes_with_it() {
    let options = EasyVqaOptions {
        copies: Copies::new(2).unwrap(),
        curriculum: NonZeroUsize::new(60),
        ..EasyVqaOptions::default()
    };
    let (dir, summary) = prepared(&options);
    assert_eq!(summary.curriculum, Some(60));
    let out = dir.path().join("out");
    let data = LlavaDataset::open(out.join("curriculum.json"), OnBadSample::Error).unwrap();
    assert_eq!(data.len(), 60);
    let samples: Vec<_> = (0..60).map(|at| data.sample(at).unwrap()).collect();
    assert!(samples.iter().all(|sample| out.join("images").join(&sample.images[0]).is_file()));
    assert_eq!(samples[0].conversations, [Turn::human("<image>\nwhat shape?"), Turn::gpt("circle")]);
    let plain = EasyVqaOptions { existing: Existing::Replace, ..EasyVqaOptions::default() };
    let summary = prepare_easy_vqa(dir.path().join("tiny.whl"), &out, &plain).unwrap();
    assert_eq!(summary.curriculum, None);
    assert!(!out.join("curriculum.json").exists());
}

#[test]
fn a_curriculum_without_its_questions_is_refused_by_name() {
    let mut files = files();
    files[1].1 = br#"[["is it red?", "no", 12]]"#.to_vec();
    let dir = tempfile::tempdir().unwrap();
    let path = wheel(dir.path(), &files);
    let options = EasyVqaOptions { curriculum: NonZeroUsize::new(60), ..EasyVqaOptions::default() };
    let error = prepare_easy_vqa(path, dir.path().join("out"), &options).unwrap_err().to_string();
    assert!(error.contains("train/questions.json: there is no question answered circle"), "{error}");
    assert!(!dir.path().join("out").exists());
}

#[test]
fn a_limit_takes_the_first_pictures() {
    let options = EasyVqaOptions { limit: NonZeroUsize::new(1), ..EasyVqaOptions::default() };
    let (dir, summary) = prepared(&options);
    assert_eq!((summary.train.pictures, summary.test.pictures), (1, 1));
    assert_eq!(ids(&dir, "train.json").len(), 3);
    assert!(!dir.path().join("out/images/train/3.png").exists());
    assert_eq!(summary.answers.values().sum::<usize>(), 5);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let options = EasyVqaOptions {
        copies: Copies::new(4).unwrap(),
        curriculum: NonZeroUsize::new(50),
        ..EasyVqaOptions::default()
    };
    let (first, second) = (prepared(&options).0, prepared(&options).0);
    assert_eq!(contents(&first.path().join("out")), contents(&second.path().join("out")));
}

#[test]
fn what_is_wrong_with_a_wheel_is_named_and_nothing_is_written() {
    for (name, bytes, expected) in [
        ("answers.txt", None, "easy_vqa/data/answers.txt: there is no such file"),
        ("train/questions.json", None, "easy_vqa/data/train/questions.json: there is no such file"),
        ("train/questions.json", Some("[["), "easy_vqa/data/train/questions.json: EOF while parsing"),
        ("test/questions.json", Some(r#"[["a?", "blue", 0]]"#), "\"blue\" is not listed in answers.txt"),
        ("train/images/3.png", None, "easy_vqa/data/train/images/3.png: there is no such file"),
        ("test/images/0.png", Some("GIF?"), "easy_vqa/data/test/images/0.png: picture 0: not a picture"),
    ] {
        let mut files = files();
        match bytes {
            None => files.retain(|file| file.0 != name),
            Some(text) => {
                files.iter_mut().filter(|file| file.0 == name).for_each(|file| file.1 = text.into())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = wheel(dir.path(), &files);
        let out = dir.path().join("out");
        let error = prepare_easy_vqa(&path, &out, &EasyVqaOptions::default()).unwrap_err().to_string();
        assert!(error.contains("tiny.whl") && error.contains(expected), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{error}");
    }
}

#[test]
fn another_folders_content_is_kept_unless_told_otherwise() {
    let (dir, _) = prepared(&EasyVqaOptions::default());
    let again = |existing| {
        let options = EasyVqaOptions { limit: NonZeroUsize::new(1), existing, ..EasyVqaOptions::default() };
        prepare_easy_vqa(dir.path().join("tiny.whl"), dir.path().join("out"), &options)
    };
    let error = again(Existing::Refuse).unwrap_err().to_string();
    assert!(
        error.contains("not empty") && error.contains("train.json, test.json, curriculum.json, images"),
        "{error}"
    );
    assert_eq!(ids(&dir, "train.json").len(), 4);
    again(Existing::Replace).unwrap();
    assert_eq!(ids(&dir, "train.json").len(), 3);
    assert!(!dir.path().join("out/images/train/3.png").exists());
}

/// The slice of the real data set that comes with the examples.
#[test]
fn the_slice_in_the_examples_is_whole() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/easy-vqa"));
    for file in ["train.json", "test.json"] {
        let data = LlavaDataset::open(folder.join(file), OnBadSample::Error).unwrap();
        for at in 0..data.len() {
            let sample = data.sample(at).unwrap();
            let picture = image::open(folder.join("images").join(&sample.images[0])).unwrap();
            assert_eq!((picture.width(), picture.height()), (64, 64), "{}", sample.id);
            assert_eq!(sample.conversations.len(), 2, "{}", sample.id);
        }
    }
    let licence = fs::read_to_string(folder.join("LICENSE")).unwrap();
    assert_eq!(licence, include_str!("../licence.txt"));
}
