//! Every prompt, verdict and score of the golden cases.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tg_llava_benchmarks::dataset::Kind;
use tg_llava_benchmarks::prompt::{Part, Question, api};
use tg_llava_benchmarks::score::choice::{ChoiceScores, score};
use tg_llava_benchmarks::score::option::Rules;
use tg_llava_benchmarks::score::{Predictions, ocr, short, yes_no};
use tg_llava_benchmarks::table::Table;

/// A golden case of VLMEvalKit.
struct Case {
    folder: PathBuf,
    kind: Kind,
    table: Table,
}

/// The golden cases of VLMEvalKit: those in this folder, and all of them where they lie beside the repository.
fn cases() -> Vec<Case> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = here.join("../../shared/fixtures/eval");
    if !beside.is_dir() {
        eprintln!("{} is not there: of most cases no prompt is compared", beside.display());
    }
    let mut cases = cases_in(&here.join("tests/golden"));
    assert!(cases.len() >= 17, "{} cases", cases.len());
    cases.extend(cases_in(&beside));
    cases
}

fn cases_in(root: &Path) -> Vec<Case> {
    let entries =
        |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> =
        entries(root).flat_map(|benchmark| entries(&benchmark).collect::<Vec<_>>()).collect();
    folders.retain(|folder| folder.file_name().unwrap().to_str().unwrap().starts_with("vlmevalkit"));
    folders.sort();
    folders.into_iter().map(Case::open).collect()
}

impl Case {
    fn open(folder: PathBuf) -> Self {
        let meta: Value = serde_json::from_str(&read(&folder.join("meta.json"))).unwrap();
        let name = meta["dataset"].as_str().unwrap();
        let file = format!("{name}.tsv");
        let table = Table::read(&read(&folder.join(&file)), &file).unwrap();
        Self { kind: Kind::of(name).unwrap(), folder, table }
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        read(&self.folder.join(file)).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn json(&self, file: &str) -> Option<Value> {
        let text = std::fs::read_to_string(self.folder.join(file)).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    fn predictions(&self) -> Predictions {
        let of = |row: Value| (shown(&row["index"]), row["prediction"].as_str().unwrap().to_owned());
        Predictions::new(self.lines("predictions.jsonl").into_iter().map(of))
    }

    /// The row of an index.
    fn row(&self, index: &Value) -> usize {
        let index = shown(index);
        let mut rows = self.table.rows().unwrap().into_iter();
        rows.find(|&row| self.table.shown(row, "index") == index).unwrap()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An index as text.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn every_prompt_is_the_recorded_one() {
    for case in cases() {
        if !case.folder.join("prompts.jsonl").is_file() {
            continue;
        }
        let golden = case.lines("prompts.jsonl");
        assert_eq!(golden.len(), case.table.rows().unwrap().len(), "{}", case.folder.display());
        for golden in golden {
            let row = case.row(&golden["index"]);
            let place = format!("{}, index {}", case.folder.display(), golden["index"]);
            let question = Question::new(&case.table, row, case.kind);
            assert_eq!(question.text, golden["text"].as_str().unwrap(), "{place}");
            assert_eq!(question.images as u64, golden["images"].as_u64().unwrap(), "{place}");
            assert_eq!(question.prompt(), golden["prompt"].as_str().unwrap(), "{place}");
            assert_eq!(question.guide(), golden["guide"].as_str().unwrap(), "{place}");
            let parts = api(&case.table, row, case.kind).into_iter().map(|part| match part {
                Part::Text(text) => serde_json::json!({ "text": text }),
                Part::Image(number) => serde_json::json!({ "image": number }),
            });
            assert_eq!(Value::Array(parts.collect()), golden["api"], "{place}");
        }
    }
}

#[test]
fn options_are_read_and_scored_as_recorded() {
    for case in cases() {
        let Kind::Choice(choice) = case.kind else { continue };
        let Some(golden) = case.json("expected.json") else { continue };
        for (rules, inferred, scores) in
            [(Rules::Current, "inferred", "scores"), (Rules::Of2024, "inferred_2024", "scores_2024")]
        {
            let found = score(&case.table, choice, &case.predictions(), rules).unwrap();
            compare_choices(&case, &found, &golden, (inferred, scores));
        }
    }
}

fn compare_choices(case: &Case, found: &ChoiceScores, golden: &Value, (inferred, scores): (&str, &str)) {
    let place = format!("{} {scores}", case.folder.display());
    let items = golden["items"].as_array().unwrap();
    assert_eq!(found.items.len(), items.len(), "{place}");
    for (found, golden) in found.items.iter().zip(items) {
        assert_eq!(found.index, shown(&golden["index"]), "{place}");
        let letter = found.inferred.map(|letter| letter.to_string());
        assert_eq!(letter.as_deref(), golden[inferred].as_str(), "{place}, index {}", found.index);
        if inferred == "inferred" {
            assert_eq!(found.hit.map(u64::from), golden["hit"].as_u64(), "{place}, index {}", found.index);
        }
    }
    let Some(splits) = golden[scores].as_array() else { return };
    assert_eq!(found.splits.len(), splits.len(), "{place}");
    for golden in splits {
        let split = &found.splits[golden["split"].as_str().unwrap()];
        for (name, value) in golden.as_object().unwrap().iter().filter(|(name, _)| *name != "split") {
            let Some(value) = value.as_f64() else {
                assert!(!split.contains_key(name), "{place} {name}");
                continue;
            };
            assert!((split[name] - value).abs() < 1e-9, "{place} {name}: {} {value}", split[name]);
        }
    }
}

/// Compares scores by name.
fn compare_scores(found: &std::collections::BTreeMap<String, f64>, golden: &Value, place: &str) {
    let golden = golden.as_object().unwrap();
    let names = golden.keys().filter(|name| *name != "split");
    assert!(names.eq(found.keys()), "{place}: {found:?}");
    for (name, value) in found {
        let expected = golden[name].as_f64().unwrap();
        assert!((value - expected).abs() < 1e-9, "{place} {name}: {value} {expected}");
    }
}

#[test]
fn yes_and_no_are_read_and_scored_as_recorded() {
    for case in cases() {
        let Kind::YesNo(kind) = case.kind else { continue };
        let golden = case.json("expected.json").unwrap();
        let found = yes_no::score(&case.table, kind, &case.predictions()).unwrap();
        let place = case.folder.display().to_string();
        let items = golden["items"].as_array().unwrap();
        assert_eq!(found.items.len(), items.len(), "{place}");
        for (found, golden) in found.items.iter().zip(items) {
            assert_eq!(found.index, shown(&golden["index"]), "{place}");
            assert_eq!(found.verdict.name(), golden["rule"].as_str().unwrap(), "{place} {}", found.index);
            assert_eq!(u64::from(found.hit), golden["hit"].as_u64().unwrap(), "{place} {}", found.index);
        }
        let splits = golden["scores"].as_array().unwrap();
        assert_eq!(found.splits.len(), splits.len(), "{place}");
        for golden in splits {
            compare_scores(&found.splits[golden["split"].as_str().unwrap_or("none")], golden, &place);
        }
    }
}

#[test]
fn short_answers_are_scored_as_recorded() {
    for case in cases() {
        let Kind::Short(kind) = case.kind else { continue };
        let golden = case.json("expected.json").unwrap();
        let found = short::score(&case.table, kind, &case.predictions()).unwrap();
        let place = case.folder.display().to_string();
        let items = golden["items"].as_array().unwrap();
        assert_eq!(found.items.len(), items.len(), "{place}");
        for (found, golden) in found.items.iter().zip(items) {
            let place = format!("{place} {}", found.index);
            assert_eq!(found.index, shown(&golden["index"]), "{place}");
            assert_eq!(found.normal, golden["prediction_normal"].as_str().unwrap(), "{place}");
            assert_eq!(serde_json::json!(found.answers), golden["answers_normal"], "{place}");
            assert!((found.score - golden["score"].as_f64().unwrap()).abs() < 1e-9, "{place}");
        }
        let overall = golden["scores"][0]["Overall"].as_f64().unwrap();
        assert!((found.overall - overall).abs() < 1e-9, "{place}: {} {overall}", found.overall);
    }
}

#[test]
fn texts_in_pictures_are_scored_as_recorded() {
    for case in cases().into_iter().filter(|case| case.kind == Kind::Ocr) {
        let golden = case.json("expected.json").unwrap();
        let found = ocr::score(&case.table, &case.predictions()).unwrap();
        let place = case.folder.display().to_string();
        let items = found.items.iter().map(|(index, hit)| (index.clone(), u64::from(*hit)));
        let golden_items = golden["items"].as_array().unwrap().iter();
        let golden_items = golden_items.map(|item| (shown(&item["index"]), item["hit"].as_u64().unwrap()));
        assert_eq!(items.collect::<Vec<_>>(), golden_items.collect::<Vec<_>>(), "{place}");
        compare_scores(&found.scores, &golden["scores"], &place);
    }
}
