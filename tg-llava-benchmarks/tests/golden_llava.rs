//! Prompts, verdicts and scores of LLaVA's scripts, where the golden data lies beside the repository.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tg_llava_benchmarks::llava::mmbench::Language;
use tg_llava_benchmarks::llava::{
    Answer, Question, choice, gqa, guide, mmbench, mme, pope, prompt, read_lines, vqa,
};
use tg_llava_benchmarks::score::judged;
use tg_llava_benchmarks::table::Table;

/// The folder of a golden case.
fn case(benchmark: &str, harness: &str) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = here.join("../../shared/fixtures/eval").join(benchmark).join(harness);
    if !folder.is_dir() {
        eprintln!("{} is not there: nothing is compared", folder.display());
        return None;
    }
    Some(folder)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

fn questions(folder: &Path, file: &str) -> Vec<Question> {
    read_lines(&read(&folder.join(file)), file).unwrap()
}

fn answers(folder: &Path, file: &str) -> Vec<Answer> {
    read_lines(&read(&folder.join(file)), file).unwrap()
}

const ANSWERS: &str = "answers/model.jsonl";

fn near(found: f64, expected: &Value, place: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-9, "{place}: {found} {expected}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// An id as text.
fn id(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn questions_become_the_recorded_prompts() {
    for (benchmark, file) in [
        ("pope", "llava_pope_test.jsonl"),
        ("mme", "llava_mme.jsonl"),
        ("textvqa", "llava_textvqa_val_v051_ocr.jsonl"),
        ("gqa", "llava_gqa_testdev_balanced.jsonl"),
        ("vizwiz", "llava_test.jsonl"),
        ("vqav2", "llava_vqav2_mscoco_test-dev2015.jsonl"),
        ("seedbench", "llava-seed-bench.jsonl"),
        ("mmvet", "llava-mm-vet.jsonl"),
        ("llavabench", "questions.jsonl"),
    ] {
        let Some(folder) = case(benchmark, "llava") else { return };
        let golden: Vec<Value> = read_lines(&read(&folder.join("prompts.jsonl")), "prompts.jsonl").unwrap();
        let questions = questions(&folder, file);
        assert_eq!(questions.len(), golden.len(), "{benchmark}");
        for (question, golden) in questions.iter().zip(golden) {
            assert_eq!(
                prompt(&question.text, question.image.is_some()),
                text(&golden["prompt"]),
                "{benchmark}"
            );
            assert_eq!(guide(&question.text), text(&golden["guide"]), "{benchmark}");
        }
    }
}

#[test]
fn pope_is_scored_as_recorded() {
    let Some(folder) = case("pope", "llava") else { return };
    let golden = json(&folder.join("expected.json"));
    let category: BTreeMap<String, String> = questions(&folder, "llava_pope_test.jsonl")
        .into_iter()
        .map(|question| (question.question_id, question.category.unwrap()))
        .collect();
    let answers = answers(&folder, ANSWERS);
    for (answer, golden) in answers.iter().zip(golden["items"].as_array().unwrap()) {
        assert_eq!(pope::says_yes(&answer.text), text(&golden["read_as"]) == "yes", "{answer:?}");
    }
    for (name, golden) in golden["scores"].as_object().unwrap() {
        let file = format!("coco/coco_pope_{name}.json");
        let labels: Vec<Value> = read_lines(&read(&folder.join(&file)), &file).unwrap();
        let own = answers.iter().filter(|answer| category[&answer.question_id] == *name);
        let pairs = own
            .zip(&labels)
            .map(|(answer, label)| (pope::says_yes(&answer.text), text(&label["label"]) != "no"));
        let found = pope::Detection::new(pairs);
        assert_eq!(found.samples() as u64, golden["samples"].as_u64().unwrap());
        for (value, key) in [
            (found.accuracy(), "accuracy"),
            (found.precision(), "precision"),
            (found.recall(), "recall"),
            (found.f1(), "f1_score"),
            (found.yes_ratio(), "yes_ratio"),
        ] {
            near(value, &golden[key], &format!("{name} {key}"));
        }
    }
}

#[test]
fn mme_is_scored_as_recorded() {
    let Some(folder) = case("mme", "llava") else { return };
    let golden = json(&folder.join("expected.json"));
    let mut by_task: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for answer in answers(&folder, ANSWERS) {
        let (task, picture) = answer.question_id.split_once('/').unwrap();
        let file = format!("{}.txt", picture.rsplit('/').next().unwrap().split('.').next().unwrap());
        let release = folder.join("MME_Benchmark_release_version").join(task);
        let nested = release.join("questions_answers_YN");
        let lines = read(&if nested.is_dir() { nested } else { release }.join(&file));
        let known: BTreeMap<&str, &str> = lines.lines().filter_map(|line| line.split_once('\t')).collect();
        let right = mme::released(&answer.prompt)
            .iter()
            .find_map(|question| known.get(question.as_str()).copied())
            .unwrap();
        let said = mme::says(&answer.text);
        by_task
            .entry(task.to_owned())
            .or_default()
            .push((said.to_owned(), said == right.trim().to_lowercase()));
    }
    let mut read_as: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for item in golden["items"].as_array().unwrap() {
        read_as.entry(text(&item["task"])).or_default().push(text(&item["read_as"]));
    }
    for (group, names) in [("Perception", &mme::PERCEPTION[..]), ("Cognition", &mme::COGNITION[..])] {
        let golden = &golden["scores"][group];
        let mut total = 0.0;
        for name in names {
            let found = &by_task[*name];
            assert!(found.iter().map(|(said, _)| said.as_str()).eq(read_as[name].iter().copied()), "{name}");
            let score = mme::task(&found.iter().map(|(_, hit)| *hit).collect::<Vec<_>>());
            near(score, &golden["tasks"][*name], name);
            total += score;
        }
        near(total, &golden["total"], group);
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|value| text(value).to_owned()).collect()
}

#[test]
fn textvqa_is_scored_as_recorded() {
    let Some(folder) = case("textvqa", "llava") else { return };
    let golden = json(&folder.join("expected.json"));
    let data = json(&folder.join("TextVQA_0.5.1_val.json"));
    let known: BTreeMap<(String, String), Vec<String>> = data["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| ((id(&row["image_id"]), text(&row["question"]).to_lowercase()), strings(&row["answers"])))
        .collect();
    let answers = answers(&folder, ANSWERS);
    let items = golden["items"].as_array().unwrap();
    assert_eq!(answers.len(), items.len());
    let mut sum = 0.0;
    for (answer, golden) in answers.iter().zip(items) {
        let question = vqa::textvqa_question(&answer.prompt).unwrap();
        assert_eq!(question, text(&golden["question"]));
        let form = vqa::submitted(&answer.text);
        assert_eq!(form, text(&golden["prediction_normal"]), "{answer:?}");
        let people = &known[&(answer.question_id.clone(), question)];
        let score = vqa::score(&form, people);
        near(score, &golden["score"], &format!("{answer:?} {people:?}"));
        sum += score;
    }
    near(sum / items.len() as f64, &golden["scores"]["accuracy"], "accuracy");
}

#[test]
fn vizwiz_is_submitted_and_scored_as_recorded() {
    let Some(folder) = case("vizwiz", "llava") else { return };
    let golden = json(&folder.join("expected.json"));
    let pictures =
        questions(&folder, "llava_test.jsonl").into_iter().map(|q| (q.question_id, q.image.unwrap()));
    let pictures: BTreeMap<String, String> = pictures.collect();
    let annotations = json(&folder.join("annotations.json"));
    let people = |picture: &str| {
        let row = annotations.as_array().unwrap().iter().find(|row| row["image"] == picture)?;
        Some(row["answers"].as_array()?.iter().map(|a| text(&a["answer"]).to_owned()).collect::<Vec<_>>())
    };
    let mut scores = Vec::new();
    for (answer, upload) in answers(&folder, ANSWERS).iter().zip(golden["upload"].as_array().unwrap()) {
        let picture = &pictures[&answer.question_id];
        let form = vqa::submitted(&answer.text);
        assert_eq!((picture.as_str(), form.as_str()), (text(&upload["image"]), text(&upload["answer"])));
        let Some(people) = people(picture) else { continue };
        let golden = golden["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| item["image"] == picture.as_str())
            .unwrap();
        let score = vqa::score(&form, &people);
        near(score, &golden["score"], &format!("{answer:?} {people:?}"));
        scores.push(score);
    }
    near(scores.iter().sum::<f64>() / scores.len() as f64, &golden["scores"]["accuracy"], "accuracy");
}

#[test]
fn vqav2_is_submitted_and_scored_as_recorded() {
    let Some(folder) = case("vqav2", "llava") else { return };
    let golden = json(&folder.join("expected.json"));
    let answers = answers(&folder, "answers/llava_vqav2_mscoco_test-dev2015/model/merge.jsonl");
    let by_id: BTreeMap<String, &str> =
        answers.iter().map(|a| (a.question_id.clone(), a.text.as_str())).collect();
    for upload in golden["upload"].as_array().unwrap() {
        let form =
            by_id.get(&id(&upload["question_id"])).map_or(String::new(), |answer| vqa::submitted(answer));
        assert_eq!(form, text(&upload["answer"]), "{upload}");
    }
    let annotations = json(&folder.join("v2_mscoco_val2014_annotations.json"));
    let mut scores = [Vec::new(), Vec::new()];
    for row in annotations["annotations"].as_array().unwrap() {
        let question = id(&row["question_id"]);
        let people: Vec<String> =
            row["answers"].as_array().unwrap().iter().map(|a| text(&a["answer"]).to_owned()).collect();
        let raw = by_id.get(&question).copied().unwrap_or_default();
        let forms = [vqa::submitted(raw), raw.to_owned()];
        for ((form, key), scores) in forms.iter().zip(["score_of_upload", "score_of_raw"]).zip(&mut scores) {
            let Some(expected) = golden[key]["perQuestion"].get(&question) else { continue };
            let score = vqa::vqav2_score(form, &people);
            let rounded = (10_000.0 * score).round() / 100.0;
            assert!(
                (rounded - expected.as_f64().unwrap()).abs() < 1e-9,
                "{key} {question} {form:?} {people:?} {score}"
            );
            scores.push(score);
        }
    }
    for (scores, key) in scores.iter().zip(["score_of_upload", "score_of_raw"]) {
        let mean = 100.0 * scores.iter().sum::<f64>() / scores.len() as f64;
        assert!((mean - golden[key]["overall"].as_f64().unwrap()).abs() < 0.005_001, "{key} {mean}");
    }
}

#[test]
fn gqa_is_scored_as_recorded() {
    let Some(folder) = case("gqa", "llava") else { return };
    let golden = json(&folder.join("expected.json"));
    let known = json(&folder.join("data/testdev_balanced_questions.json"));
    let mut hits: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let answers = answers(&folder, ANSWERS);
    let forms: Vec<String> = answers.iter().map(|answer| gqa::submitted(&answer.text)).collect();
    let mut grouped = Vec::new();
    for ((answer, form), golden) in answers.iter().zip(&forms).zip(golden["items"].as_array().unwrap()) {
        assert_eq!(
            (answer.question_id.as_str(), form.as_str()),
            (text(&golden["question_id"]), text(&golden["prediction"]))
        );
        let row = &known[&answer.question_id];
        if row["isBalanced"] != true {
            continue;
        }
        if let Some(group) = row["groups"]["global"].as_str() {
            grouped.push(gqa::Grouped { group, right: text(&row["answer"]), answer: form });
        }
        let hit = f64::from(u8::from(text(&row["answer"]) == form));
        near(hit, &golden["hit"], &answer.question_id);
        let group = if row["types"]["structural"] == "query" { "Open" } else { "Binary" };
        hits.entry(group).or_default().push(hit);
        hits.entry("Accuracy").or_default().push(hit);
    }
    for (group, hits) in hits {
        let percent = 100.0 * hits.iter().sum::<f64>() / hits.len() as f64;
        assert!((percent - golden["scores"][group].as_f64().unwrap()).abs() < 0.005_001, "{group} {percent}");
    }
    let distribution = gqa::distribution(grouped);
    let golden = golden["scores"]["Distribution"].as_f64().unwrap();
    assert!((distribution - golden).abs() < 0.005_001, "{distribution} {golden}");
}

#[test]
fn scienceqa_is_asked_and_scored_as_recorded() {
    let Some(folder) = case("scienceqa", "llava") else { return };
    let golden = json(&folder.join("expected.json"));
    let asked = json(&folder.join("llava_test_CQM-A.json"));
    let prompts: Vec<Value> = read_lines(&read(&folder.join("prompts.jsonl")), "prompts.jsonl").unwrap();
    for (row, golden) in asked.as_array().unwrap().iter().zip(&prompts) {
        let question = choice::scienceqa_question(text(&row["conversations"][0]["value"]));
        assert_eq!(prompt(&question, row.get("image").is_some()), text(&golden["prompt"]));
        assert_eq!(guide(&question), text(&golden["guide"]));
    }
    let problems = json(&folder.join("problems.json"));
    let answers = answers(&folder, ANSWERS);
    let (mut all, mut pictured) = (Vec::new(), Vec::new());
    for golden in golden["items"].as_array().unwrap() {
        let name = text(&golden["question_id"]);
        let problem = &problems[name];
        let answer = answers.iter().find(|answer| answer.question_id == name);
        let letter = answer.and_then(|answer| choice::scienceqa(&answer.text));
        assert_eq!(letter.map_or("FAILED".to_owned(), String::from), text(&golden["parsed"]), "{answer:?}");
        let number =
            letter.and_then(|letter| choice::number(letter, problem["choices"].as_array().unwrap().len()));
        assert_eq!(number.map_or(-1, |number| number as i64), golden["choice"].as_i64().unwrap(), "{name}");
        let hit = number.is_some_and(|number| problem["answer"] == number);
        assert_eq!(u64::from(hit), golden["hit"].as_u64().unwrap(), "{name}");
        all.push(hit);
        if answer.is_some_and(|answer| answer.prompt.contains("<image>")) {
            pictured.push(hit);
        }
    }
    let percent = |hits: &[bool]| 100.0 * hits.iter().filter(|hit| **hit).count() as f64 / hits.len() as f64;
    near(percent(&all), &golden["scores"]["accuracy"], "accuracy");
    assert_eq!(format!("{:.2}", percent(&pictured)), text(&golden["scores"]["img_accuracy_printed"]));
}

#[test]
fn seed_is_scored_as_recorded() {
    let Some(folder) = case("seedbench", "llava") else { return };
    let golden = json(&folder.join("expected.json"));
    let data = json(&folder.join("SEED-Bench.json"));
    let answers = answers(&folder, ANSWERS);
    let mut hits: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for row in data["questions"].as_array().unwrap() {
        let Some(answer) = answers.iter().find(|answer| answer.question_id == id(&row["question_id"])) else {
            continue;
        };
        let names = data["question_type"].as_object().unwrap();
        let kind = names.iter().find(|(_, number)| **number == row["question_type_id"]).unwrap().0;
        for group in [kind.as_str(), "Total", text(&row["data_type"])] {
            hits.entry(group.to_owned()).or_default().push(answer.text == text(&row["answer"]));
        }
    }
    for (group, golden) in golden["scores"].as_object().unwrap() {
        let hits = &hits[group];
        let percent = 100.0 * hits.iter().filter(|hit| **hit).count() as f64 / hits.len() as f64;
        assert_eq!(format!("{percent:.2}"), text(golden), "{group}");
    }
}

#[test]
fn mmbench_is_asked_and_submitted_as_recorded() {
    for (folder, file, language) in [
        ("llava_en", "mmbench_dev_20230712.tsv", Language::English),
        ("llava_cn", "mmbench_dev_cn_20231003.tsv", Language::Chinese),
    ] {
        let Some(folder) = case("mmbench", folder) else { return };
        let golden = json(&folder.join("expected.json"));
        let table = Table::read(&read(&folder.join(file)), file).unwrap();
        let prompts: Vec<Value> = read_lines(&read(&folder.join("prompts.jsonl")), "prompts.jsonl").unwrap();
        assert_eq!(prompts.len(), table.len());
        for (row, golden) in prompts.iter().enumerate() {
            let question = mmbench::question(&table, row, language);
            assert_eq!(prompt(&question, true), text(&golden["prompt"]));
            assert_eq!(guide(&question), text(&golden["guide"]));
        }
        assert_eq!(serde_json::json!(mmbench::upload_columns(&table)), golden["upload_columns"]);
        let answers: BTreeMap<String, String> =
            answers(&folder, ANSWERS).into_iter().map(|answer| (answer.question_id, answer.text)).collect();
        for (row, golden) in golden["upload"].as_array().unwrap().iter().enumerate() {
            let answer = answers.get(table.shown(row, "index")).map_or("", String::as_str);
            assert_eq!(serde_json::json!(mmbench::upload_row(&table, row, answer)), *golden);
        }
    }
}

#[test]
fn llava_bench_is_summed_up_as_recorded() {
    let Some(folder) = case("llavabench", "llava") else { return };
    let golden = json(&folder.join("expected.json"));
    let replies = strings(&json(&folder.join("judge_replies.json")));
    let mut groups: BTreeMap<&str, Vec<[f64; 2]>> = BTreeMap::new();
    for (review, reply) in golden["reviews"].as_array().unwrap().iter().zip(&replies) {
        let pair = judged::pair(reply);
        let expected = review["tuple"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
        assert!(pair.into_iter().eq(expected), "{review} {reply:?}");
        for group in ["all", text(&review["category"])] {
            groups.entry(group).or_default().push(pair);
        }
    }
    let scores = golden["scores"].as_object().unwrap();
    assert!(scores.keys().map(String::as_str).eq(groups.keys().copied()));
    for (group, pairs) in groups {
        let found = judged::BenchScores::new(&pairs, judged::Rounding::Python);
        for (value, key) in
            [(found.relative, "relative"), (found.reference, "reference"), (found.model, "model")]
        {
            near(value, &scores[group][key], &format!("{group} {key}"));
        }
    }
}
