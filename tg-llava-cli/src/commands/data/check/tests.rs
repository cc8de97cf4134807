use std::path::Path;

use clap::Parser;
use image::{ImageFormat, RgbImage};

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    check: CheckArgs,
}

/// A folder of pictures, and data that names `pictures`.
struct Set(tempfile::TempDir);

impl Set {
    fn new(pictures: &[&str]) -> Self {
        let set = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(set.folder()).unwrap();
        set.write_data("data.json", pictures, "");
        set
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("images")
    }

    /// One sample a line, with `more` behind them.
    fn write_data(&self, file: &str, pictures: &[&str], more: &str) {
        let turns = serde_json::json!([{ "from": "human", "value": "<image>\nWhat?" }, { "from": "gpt", "value": "That." }]);
        let sample = |picture: &&str| {
            serde_json::json!({ "id": picture, "image": picture, "conversations": turns }).to_string() + "\n"
        };
        let text: String = pictures.iter().map(sample).collect();
        std::fs::write(self.0.path().join(file), text + more).unwrap();
    }

    /// Puts a picture into the folder.
    fn draw(&self, name: &str, format: ImageFormat) {
        let path = self.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::new(8, 8).save_with_format(path, format).unwrap();
    }

    fn arguments(&self, files: &[&str], more: &[&str]) -> CheckArgs {
        let place = |path: &Path| path.to_str().unwrap().to_owned();
        let mut line =
            vec!["check".to_owned(), "--image-folder".into(), place(&self.folder()), "--data".into()];
        line.extend(files.iter().map(|file| place(&self.0.path().join(file))));
        line.extend(more.iter().map(|&flag| flag.to_owned()));
        Line::try_parse_from(line).unwrap().check
    }

    fn check(&self, files: &[&str], more: &[&str]) -> Report {
        let args = self.arguments(files, more);
        check(&args, &Console::new(&args.output)).unwrap()
    }
}

#[test]
fn a_complete_set_exits_with_0_and_an_incomplete_one_with_1() {
    let set = Set::new(&["a.png", "coco/train2017/b.png", "coco/train2017/b.png"]);
    set.draw("a.png", ImageFormat::Png);
    set.draw("coco/train2017/b.png", ImageFormat::Png);
    let report = set.check(&["data.json"], &[]);
    assert!(report.complete && report.files[0].with_pictures == 3, "{report:?}");
    assert_eq!((report.pictures, report.present), (2, 2));
    assert!(run(&set.arguments(&["data.json"], &["-q"])).is_ok());
    std::fs::remove_file(set.folder().join("a.png")).unwrap();
    assert_eq!(run(&set.arguments(&["data.json"], &["-q"])).unwrap_err().exit_code(), 1);
}

#[test]
fn pictures_are_counted_by_folder_and_the_first_missing_are_named() {
    let names: Vec<String> = (0..8).map(|i| format!("gqa/images/{i}.jpg")).collect();
    let mut pictures: Vec<&str> = names.iter().map(String::as_str).collect();
    pictures.extend(["ocr_vqa/images/7.jpg", "vg/VG_100K/1.jpg"]);
    let set = Set::new(&pictures);
    set.draw("gqa/images/3.jpg", ImageFormat::Jpeg);
    set.draw("ocr_vqa/images/7.gif", ImageFormat::Gif);
    set.draw("vg/VG_100K/1.jpg", ImageFormat::Jpeg);
    let report = set.check(&["data.json"], &[]);
    assert_eq!((report.pictures, report.present, report.complete), (10, 2, false));
    let text = text(&report);
    for expected in [
        "gqa                     1 of 8 pictures\n        7 missing: gqa/images/0.jpg, gqa/images/1.jpg, gqa/images/2.jpg, \
         gqa/images/4.jpg, gqa/images/5.jpg, ...\n",
        "1 with another ending than the data has: ocr_vqa/images/7.jpg (there as .gif)\n        LLaVA's mixture",
        "vg                      1 of 1 pictures\n",
        "NOT complete: 2 of 10 pictures\n",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
}

#[test]
fn several_files_are_one_set_and_wrong_samples_are_named_by_line() {
    let set = Set::new(&["a.png"]);
    set.draw("a.png", ImageFormat::Png);
    set.write_data("more.json", &["b.png"], "{\"id\": \"x\", \"conversations\": [{\"from\": \"human\"}]}\n");
    std::fs::write(set.0.path().join("cut.json"), "[\n{\"id\": 1,\n").unwrap();
    let report = set.check(&["data.json", "more.json", "cut.json"], &[]);
    assert_eq!((report.files.len(), report.pictures, report.present), (3, 2, 1));
    let text = text(&report);
    for expected in [
        "more.json, line 2, sample x: ",
        "cut.json, line 3: the file ends inside the sample",
        "1 missing: b.png",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
}

#[test]
fn only_decoding_finds_a_damaged_picture() {
    let set = Set::new(&["a.png", "b.png", "c.png"]);
    set.draw("a.png", ImageFormat::Png);
    std::fs::write(set.folder().join("b.png"), "no picture").unwrap();
    std::fs::write(set.folder().join("c.png"), "").unwrap();
    let counts = |report: Report| {
        let troubles = &report.folders["."].troubles;
        [Trouble::Empty, Trouble::Damaged]
            .map(|trouble| troubles.get(&trouble).map_or(0, |listed| listed.count))
    };
    assert_eq!(counts(set.check(&["data.json"], &[])), [1, 0]);
    let report = set.check(&["data.json"], &["--decode"]);
    assert!(text(&report).contains("b.png"), "{}", text(&report));
    assert_eq!(counts(report), [1, 1]);
}

#[test]
fn pictures_outside_the_folder_count_where_they_are_allowed() {
    let set = Set::new(&["../out.png"]);
    set.draw("../out.png", ImageFormat::Png);
    assert!(!set.check(&["data.json"], &[]).complete);
    assert!(set.check(&["data.json"], &["--allow-outside"]).complete);
}

#[test]
fn what_cannot_be_looked_at_exits_with_2() {
    let set = Set::new(&["a.png"]);
    let failure = run(&set.arguments(&["none.json"], &[])).unwrap_err();
    assert!(failure.exit_code() == 2 && failure.message().unwrap().contains("none.json"));
    std::fs::remove_dir(set.folder()).unwrap();
    let failure = run(&set.arguments(&["data.json"], &[])).unwrap_err();
    assert!(failure.exit_code() == 2 && failure.message().unwrap().contains("--image-folder"));
}
