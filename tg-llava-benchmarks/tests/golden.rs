//! Every prompt, verdict and score of the golden cases.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tg_llava_benchmarks::dataset::{Judged, Kind};
use tg_llava_benchmarks::judge::{Ask, Judge, JudgePrompt};
use tg_llava_benchmarks::prompt::{Part, Question, api};
use tg_llava_benchmarks::report::{self, Outcome};
use tg_llava_benchmarks::score::choice::{ChoiceScores, options_of, score};
use tg_llava_benchmarks::score::option::Rules;
use tg_llava_benchmarks::score::{Predictions, judged, ocr, short, yes_no};
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
        case.table.need_answers(&case.predictions()).unwrap();
        for golden in golden {
            let row = case.row(&golden["index"]);
            let place = format!("{}, index {}", case.folder.display(), golden["index"]);
            let question = Question::new(&case.table, row, case.kind).unwrap();
            assert_eq!(question.text, golden["text"].as_str().unwrap(), "{place}");
            assert_eq!(question.images as u64, golden["images"].as_u64().unwrap(), "{place}");
            assert_eq!(question.prompt(), golden["prompt"].as_str().unwrap(), "{place}");
            assert_eq!(question.guide(), golden["guide"].as_str().unwrap(), "{place}");
            let parts = api(&case.table, row, case.kind).unwrap().into_iter().map(|part| match part {
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
            let found = score(&case.table, choice, &case.predictions(), rules, None).unwrap();
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
        let found = yes_no::score(&case.table, kind, &case.predictions(), None).unwrap();
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

/// A judge that repeats the recorded replies, and fails where it is asked otherwise than the recorded one was.
struct Replay<'a> {
    replies: std::vec::IntoIter<Value>,
    place: String,
    case: &'a Case,
    predictions: Predictions,
    /// Taken from the first request, and compared with all others.
    prompt: Option<JudgePrompt>,
}

impl<'a> Replay<'a> {
    /// `None` where the case has no replies.
    fn of(case: &'a Case) -> Option<Self> {
        let place = case.folder.display().to_string();
        let file = case.folder.join("judge.jsonl");
        file.is_file().then(|| Self {
            replies: case.lines("judge.jsonl").into_iter(),
            place,
            case,
            predictions: case.predictions(),
            prompt: None,
        })
    }

    /// The text that the first request was made from: from its end on, what the row has becomes the names of it.
    fn template(&self, ask: &Ask<'_>, golden: &Value) -> JudgePrompt {
        let row = self.case.row(&Value::from(ask.index));
        let table = &self.case.table;
        let mut user = golden["prompt"].as_str().unwrap().to_owned();
        let options = match self.case.kind {
            Kind::Choice(choice) => options_of(table, row, choice),
            _ => Vec::new(),
        };
        let options: String = options.iter().map(|(letter, text)| format!("{letter}. {text}\n")).collect();
        let mut replace = |value: &str, name: &str| {
            let Some(at) = user.rfind(value).filter(|_| !value.is_empty()) else { return };
            user.replace_range(at..at + value.len(), name);
        };
        replace(self.predictions.seen(ask.index), "{prediction}");
        replace(&options, "{options}");
        for (column, name) in [
            ("gpt4_ans", "{gpt4_ans}"),
            ("answer", "{answer}"),
            ("question", "{question}"),
            ("caption", "{caption}"),
        ] {
            let is_asked = column != "answer" || self.case.kind == Kind::Judged(Judged::MmVet);
            if let Some(cell) = table.cell(row, column).filter(|_| is_asked) {
                replace(cell, name);
            }
        }
        JudgePrompt { system: golden["system"].as_str().map(str::to_owned), user, chinese: None }
    }

    fn is_over(&self) -> bool {
        self.replies.len() == 0
    }
}

impl Judge for Replay<'_> {
    fn reply(&mut self, ask: &Ask<'_>) -> Option<String> {
        let golden = self.replies.next().unwrap_or_else(|| panic!("{}: {ask:?} was not asked", self.place));
        assert_eq!(ask.temperature, golden["temperature"].as_f64().unwrap(), "{} {ask:?}", self.place);
        assert_eq!(ask.max_tokens as u64, golden["max_tokens"].as_u64().unwrap(), "{} {ask:?}", self.place);
        let first = self.template(ask, &golden);
        let is_chinese = first.user.starts_with('你');
        let prompt = self.prompt.get_or_insert_with(|| first.clone());
        if is_chinese {
            prompt.chinese.get_or_insert(first.user);
        }
        let request = prompt.request(ask, &self.case.table, self.case.kind, &self.predictions).unwrap();
        assert_eq!(request.user, golden["prompt"].as_str().unwrap(), "{} {ask:?}", self.place);
        assert_eq!(request.system.as_deref(), golden["system"].as_str(), "{} {ask:?}", self.place);
        Some(golden["reply"].as_str().unwrap().to_owned())
    }
}

#[test]
fn a_judge_is_asked_and_read_as_recorded() {
    for case in cases() {
        let Some(mut judge) = Replay::of(&case) else { continue };
        let place = case.folder.display().to_string();
        let golden = case.json("expected_judge.json").or_else(|| case.json("expected.json")).unwrap();
        let items = golden["items"].as_array().unwrap();
        match case.kind {
            Kind::Choice(choice) => {
                let found = score(&case.table, choice, &case.predictions(), Rules::Current, Some(&mut judge))
                    .unwrap();
                compare_choices(&case, &found, &golden, ("inferred", "scores"));
            }
            Kind::YesNo(kind) => {
                let found = yes_no::score(&case.table, kind, &case.predictions(), Some(&mut judge)).unwrap();
                for (found, golden) in found.items.iter().zip(items) {
                    assert_eq!(
                        found.verdict.name(),
                        golden["extracted"].as_str().unwrap(),
                        "{place} {}",
                        found.index
                    );
                    assert_eq!(
                        u64::from(found.hit),
                        golden["hit"].as_u64().unwrap(),
                        "{place} {}",
                        found.index
                    );
                }
                for golden in golden["scores"].as_array().unwrap() {
                    compare_scores(&found.splits[golden["split"].as_str().unwrap_or("none")], golden, &place);
                }
            }
            Kind::Judged(Judged::MmVet) => {
                let found = judged::mm_vet(&case.table, &mut judge).unwrap();
                for ((index, score), golden) in found.items.iter().zip(items) {
                    assert_eq!(Some(*score), golden["score"].as_f64(), "{place} {index}");
                }
                for golden in golden["scores"].as_array().unwrap() {
                    let (total, percent) = found.capabilities[golden["Category"].as_str().unwrap()];
                    assert_eq!(total as u64, golden["tot"].as_u64().unwrap(), "{place} {golden}");
                    assert!((percent - golden["acc"].as_f64().unwrap()).abs() < 1e-9, "{place} {golden}");
                }
            }
            Kind::Judged(Judged::LlavaBench) => {
                let (found, scores) = judged::llava_bench(&case.table, &mut judge).unwrap();
                for ((index, pair), golden) in found.iter().zip(items) {
                    let golden = ["reference_score", "score"].map(|key| golden[key].as_f64().unwrap());
                    assert_eq!(*pair, golden, "{place} {index}");
                }
                for golden in golden["scores"].as_array().unwrap() {
                    let found = scores[golden["split"].as_str().unwrap()];
                    for (value, key) in [
                        (found.relative, "Relative Score (main)"),
                        (found.model, "VLM Score"),
                        (found.reference, "GPT4 Score"),
                    ] {
                        assert!(
                            (value - golden[key].as_f64().unwrap()).abs() < 1e-9,
                            "{place} {golden} {found:?}"
                        );
                    }
                }
            }
            Kind::Judged(Judged::MathVista) => {
                let found = judged::math_vista(&case.table, &case.predictions(), &mut judge).unwrap();
                for (found, golden) in found.items.iter().zip(items) {
                    assert_eq!(found.index, shown(&golden["index"]), "{place}");
                    assert_eq!(Some(found.prefetched), golden["prefetched"].as_bool(), "{place} {found:?}");
                    assert_eq!(found.extracted, shown(&golden["extracted"]), "{place}");
                    assert_eq!(u64::from(found.hit), golden["hit"].as_u64().unwrap(), "{place} {found:?}");
                }
                for golden in golden["scores"].as_array().unwrap() {
                    let found = found.groups[golden["Task&Skill"].as_str().unwrap()];
                    let golden = ["tot", "prefetch", "hit"].map(|key| golden[key].as_u64().unwrap() as usize);
                    assert_eq!([found.total, found.prefetched, found.hits], golden, "{place}");
                }
            }
            Kind::Short(_) | Kind::Ocr => panic!("{place}: a judge where none is asked"),
        }
        assert!(judge.is_over(), "{place}: {} requests are missing", judge.replies.len());
    }
}

#[test]
fn any_data_set_is_scored_in_one_way() {
    for case in cases() {
        let place = case.folder.display().to_string();
        let scored =
            report::score(&case.table, case.kind, &case.predictions(), Rules::Current, None).unwrap();
        let golden = case.json("expected.json");
        let report = match (scored, case.kind) {
            (Outcome::NotJudged, Kind::Judged(_)) => continue,
            (Outcome::NoAnswers, _) => {
                assert!(golden.is_none(), "{place}");
                continue;
            }
            (Outcome::Scored(report), _) => report,
            (other, _) => panic!("{place}: {other:?}"),
        };
        let golden = golden.unwrap();
        assert_eq!(report.items.len(), golden["items"].as_array().unwrap().len(), "{place}");
        let one = [golden["scores"].clone()];
        for golden in golden["scores"].as_array().map_or(&one[..], Vec::as_slice) {
            let name = golden["split"].as_str().unwrap_or("none");
            let known = golden["Overall"].as_f64().or(golden["perception"].as_f64());
            let known = known.or(golden["aAcc"].as_f64()).or(golden["Final Score"].as_f64()).unwrap();
            let split = &report.splits[name];
            let found =
                ["Overall", "perception", "aAcc", "Final Score"].iter().find_map(|&name| split.get(name));
            assert!((found.unwrap() - known).abs() < 1e-9, "{place} {name}");
        }
    }
}
