//! LLaVA-1.5's scripts: answers, uploads and scores.

use serde_json::json;

use super::common::{fixture, stdout};
use super::*;

/// A recorded case: the questions, and the answers to them.
fn recorded(case: &str, questions: &str) -> (PathBuf, PathBuf) {
    let folder = golden(case);
    (folder.join(questions), folder.join("answers/model.jsonl"))
}

#[test]
fn answers_are_scored_by_the_annotations_beside_the_questions() {
    for (case, questions, split, name, value) in [
        ("pope/llava", "llava_pope_test.jsonl", "popular", "f1_score", 0.7777777777777778),
        ("mme/llava", "llava_mme.jsonl", "Perception", "total", 1225.0),
        ("textvqa/llava", "llava_textvqa_val_v051_ocr.jsonl", "none", "accuracy", 0.8083333333333332),
        ("gqa/llava", "llava_gqa_testdev_balanced.jsonl", "none", "Accuracy", 45.83),
        ("scienceqa/llava", "llava_test_CQM-A.json", "none", "accuracy", 32.25806451612903),
        ("seedbench/llava", "llava-seed-bench.jsonl", "none", "video", 25.0),
    ] {
        let (data, answers) = recorded(case, questions);
        let report: Value = serde_json::from_str(&stdout(score(&data, &answers).arg("--json"))).unwrap();
        let found = report["report"]["splits"][split][name].as_f64().unwrap();
        assert!((found - value).abs() < 1e-9, "{case}: {found}");
        assert_eq!((&report["harness"], &report["state"]), (&"llava".into(), &"scored".into()));
    }
}

#[test]
fn annotations_lie_anywhere_under_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let (questions, answers) = recorded("gqa/llava", "llava_gqa_testdev_balanced.jsonl");
    let data = dir.path().join("llava_gqa.jsonl");
    std::fs::copy(&questions, &data).unwrap();
    let (code, message) = ended(&mut score(&data, &answers));
    assert!(
        code == 2
            && message.contains("no testdev_balanced_questions.json")
            && message.contains("--annotations"),
        "{message}"
    );
    let renamed = dir.path().join("right.json");
    std::fs::copy(golden("gqa/llava/data/testdev_balanced_questions.json"), &renamed).unwrap();
    for place in [golden("gqa/llava"), golden("gqa/llava/data"), renamed] {
        assert!(
            stdout(score(&data, &answers).arg("--annotations").arg(&place)).contains("45.8300"),
            "{}",
            place.display()
        );
    }
    let other = golden("seedbench/llava/SEED-Bench.json");
    let (code, message) = ended(score(&data, &answers).arg("--annotations").arg(&other));
    assert!(code == 2 && message.contains("SEED-Bench.json: "), "{message}");
}

#[test]
fn servers_are_sent_answers_in_their_form() {
    let expected = |case: &str, key: &str| -> Value {
        let golden: Value = serde_json::from_str(&read(golden(case).join("expected.json"))).unwrap();
        golden[key].clone()
    };
    let dir = tempfile::tempdir().unwrap();
    let upload = |case: &str, questions: &str, answers: &str, name: &str| {
        let out = dir.path().join(case.replace('/', "_"));
        let folder = golden(case);
        let mut command = score(&folder.join(questions), &folder.join(answers));
        stdout(
            command
                .args(["--harness", "llava", "--benchmark", case.split('/').next().unwrap()])
                .arg("--output")
                .arg(&out),
        );
        read(out.join(name))
    };
    let json = |text: String| -> Value { serde_json::from_str(&text).unwrap() };
    let answers = "answers/model.jsonl";
    let found = json(upload("vizwiz/llava", "llava_test.jsonl", answers, "upload.json"));
    assert_eq!(found, expected("vizwiz/llava", "upload"));
    let found = json(upload("mmvet/llava", "llava-mm-vet.jsonl", answers, "upload.json"));
    assert_eq!(found, expected("mmvet/llava", "results"));
    let merged = "answers/llava_vqav2_mscoco_test-dev2015/model/merge.jsonl";
    let found = json(upload("vqav2/llava", "llava_vqav2_mscoco_test-dev2015.jsonl", merged, "upload.json"));
    assert_eq!(found, expected("vqav2/llava", "upload"));
    assert_eq!(found.as_array().unwrap().last(), Some(&json!({ "question_id": 9999, "answer": "" })));
    let lines = upload("seedbench/llava", "llava-seed-bench.jsonl", answers, "upload.jsonl");
    let found: Value = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
    assert_eq!(found, expected("seedbench/llava", "upload"));
    let table = upload("mmbench/llava_en", "mmbench_dev_20230712.tsv", answers, "upload.csv");
    assert!(
        table.starts_with("index,question,A,B,C,D,prediction,answer,split\n41,What stands next"),
        "{table}"
    );
    let lines = upload("mme/llava", "llava_mme.jsonl", answers, "mme/posters.txt");
    assert!(lines.contains("s041.txt\tIs the pigeon wooden?  Please answer yes or no.\tNo\t"), "{lines}");
}

/// `eval` of LLaVA's questions about one picture.
fn asked(dir: &Path, name: &str, lines: &[Value]) -> (PathBuf, Command) {
    let data = dir.join(name);
    let lines: String = lines.iter().map(|line| line.to_string() + "\n").collect();
    std::fs::write(&data, lines).unwrap();
    let output = dir.join("out");
    let mut command = eval(&data, &output);
    command.arg("--image-folder").arg(fixture("preprocess/images"));
    (output, command)
}

fn question(id: u64, text: &str) -> Value {
    json!({ "question_id": id, "image": "photo_b.png", "text": text, "category": "popular" })
}

#[test]
fn a_run_is_scored_and_its_answers_are_those_of_the_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let (output, mut command) =
        asked(dir.path(), "llava_pope_test.jsonl", &[question(1, "A dog?"), question(2, "A cat?")]);
    // The answers stay where there is nothing to score them with.
    let text = stdout(&mut command);
    assert!(text.contains("not scored: no coco_pope_*.json in"), "{text}");
    let answers = read(output.join("answers.jsonl"));
    let places = ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
        .map(|key| answers.find(&format!("\"{key}\":")).unwrap());
    assert!(places.is_sorted(), "{answers}");
    std::fs::create_dir(dir.path().join("coco")).unwrap();
    std::fs::write(
        dir.path().join("coco/coco_pope_popular.json"),
        "{\"label\": \"yes\"}\n{\"label\": \"no\"}\n",
    )
    .unwrap();
    let report: Value = serde_json::from_str(&stdout(command.arg("--json"))).unwrap();
    assert_eq!(report["report"]["splits"]["popular"]["samples"], 2.0);
    let scored = score(&dir.path().join("llava_pope_test.jsonl"), &output.join("answers.jsonl"))
        .arg("--json")
        .output()
        .unwrap();
    let scored: Value = serde_json::from_slice(&scored.stdout).unwrap();
    assert_eq!(scored["report"], report["report"]);
}

/// The scorer tells questions with pictures from others by what the scripts note.
#[test]
fn scienceqa_notes_the_picture() {
    let dir = tempfile::tempdir().unwrap();
    let turn = |text: &str| json!([{ "from": "human", "value": text }, { "from": "gpt", "value": "A" }]);
    let list = json!([
        { "id": "1", "image": "photo_b.png", "conversations": turn("<image>\nWhich?\nA. a\nB. b") },
        { "id": "2", "conversations": turn("Which?\nA. a\nB. b") },
    ]);
    let data = dir.path().join("llava_test_CQM-A.json");
    std::fs::write(&data, list.to_string()).unwrap();
    let problems =
        json!({ "1": { "choices": ["a", "b"], "answer": 0 }, "2": { "choices": ["a", "b"], "answer": 1 } });
    std::fs::write(dir.path().join("problems.json"), problems.to_string()).unwrap();
    std::fs::write(dir.path().join("pid_splits.json"), json!({ "test": ["1", "2", "3"] }).to_string())
        .unwrap();
    let output = dir.path().join("out");
    let run = || {
        let mut command = eval(&data, &output);
        command.arg("--image-folder").arg(fixture("preprocess/images"));
        command
    };
    let (code, message) = ended(&mut run());
    let reason = "pid_splits.json: nothing about problem 3";
    assert!(code == 0 && message.contains(reason) && message.contains("will not be scored"), "{message}");
    assert!(read(output.join("scores.json")).contains(reason));
    std::fs::write(dir.path().join("pid_splits.json"), json!({ "test": ["1", "2"] }).to_string()).unwrap();
    let report: Value = serde_json::from_str(&stdout(run().arg("--json"))).unwrap();
    assert!(report["report"]["splits"]["none"]["img_accuracy"].is_number(), "{report}");
    let ending = "Which?\nA. a\nB. b\nAnswer with the option's letter from the given choices directly.";
    let prompts: Vec<Value> = lines(&output).iter().map(|line| line["prompt"].clone()).collect();
    assert_eq!(prompts, [format!("<image>\n{ending}"), ending.to_owned()]);
}

#[test]
fn mmbench_notes_its_options() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("mmbench_dev_20230712.tsv");
    std::fs::copy(table(dir.path(), 2, None), &data).unwrap();
    let output = dir.path().join("out");
    let text = stdout(eval(&data, &output).args(["--harness", "llava"]));
    assert!(text.contains("not scored; its server scores the upload"), "{text}");
    let first = &lines(&output)[0];
    assert_eq!(first["prompt"], "Is this number 0?\nA. a cat\nB. a dog");
    assert_eq!((&first["options"], &first["option_char"]), (&json!(["a cat", "a dog"]), &json!(["A", "B"])));
    assert_eq!((&first["question_id"], &first["round_id"]), (&json!(0), &json!(0)));
    assert!(
        read(output.join("upload.csv"))
            .starts_with("index,question,A,B,answer,prediction\n0,Is this number 0?,a cat,a dog,A,")
    );
}

#[test]
fn a_benchmark_that_is_not_known_is_asked_and_not_scored() {
    let dir = tempfile::tempdir().unwrap();
    let (output, mut command) = asked(dir.path(), "llava_test.jsonl", &[question(1, "A dog?")]);
    assert!(stdout(&mut command).contains("llava_test.jsonl: its name tells no benchmark"));
    let (data, answers) = (dir.path().join("llava_test.jsonl"), output.join("answers.jsonl"));
    let (code, message) = ended(&mut score(&data, &answers));
    assert!(code == 2 && message.contains("name it with --benchmark: POPE, MME"), "{message}");
    let (code, message) = ended(score(&data, &answers).args(["--benchmark", "MMStar"]));
    assert!(code == 2 && message.contains("--benchmark MMStar: LLaVA's scripts know POPE"), "{message}");
}

/// The lines of a file, the first of them last, as a run leaves them that asked its first question again.
fn first_last(text: &str) -> String {
    let (first, rest) = text.split_once('\n').unwrap();
    format!("{}\n{first}\n", rest.trim_end())
}

#[test]
fn answers_belong_to_their_questions_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    for (case, questions) in [
        ("pope/llava", "llava_pope_test.jsonl"),
        ("mme/llava", "llava_mme.jsonl"),
        ("textvqa/llava", "llava_textvqa_val_v051_ocr.jsonl"),
        ("gqa/llava", "llava_gqa_testdev_balanced.jsonl"),
    ] {
        let (data, answers) = recorded(case, questions);
        let other = dir.path().join("other.jsonl");
        std::fs::write(&other, first_last(&read(&answers))).unwrap();
        let report = |answers: &Path| stdout(score(&data, answers).arg("--json"));
        assert_eq!(report(&other), report(&answers), "{case}");
    }
}

#[test]
fn a_question_of_vqav2_without_answer_counts() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("llava_vqav2.jsonl");
    std::fs::write(
        &data,
        [question(1, "A dog?"), question(2, "A cat?")].map(|line| format!("{line}\n")).concat(),
    )
    .unwrap();
    let annotation = |id: u64| json!({ "question_id": id, "question_type": "is", "answer_type": "yes/no", "answers": vec![json!({ "answer": "yes" }); 10] });
    // Question 3 was not asked.
    let annotations = json!({ "annotations": [annotation(1), annotation(2), annotation(3)] });
    std::fs::write(dir.path().join("v2_mscoco_val2014_annotations.json"), annotations.to_string()).unwrap();
    let answers = dir.path().join("answers.jsonl");
    std::fs::write(&answers, json!({ "question_id": 1, "text": "yes" }).to_string()).unwrap();
    let report: Value = serde_json::from_str(&stdout(score(&data, &answers).arg("--json"))).unwrap();
    assert_eq!(report["report"]["splits"]["none"]["overall"], 50.0);
    assert_eq!(report["answered"], 1);
}

/// Test sets have no annotations, and those beside them may be of another split.
#[test]
fn uploads_are_written_without_annotations_of_what_was_asked() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("llava_vqav2_mscoco_test-dev2015.jsonl");
    std::fs::write(&data, question(1, "A dog?").to_string()).unwrap();
    let answers = dir.path().join("answers.jsonl");
    std::fs::write(&answers, json!({ "question_id": 1, "text": "Yes." }).to_string()).unwrap();
    let run = |output: &str| {
        let mut command = score(&data, &answers);
        command.arg("--output").arg(dir.path().join(output));
        command
    };
    let (code, message) = ended(&mut score(&data, &answers));
    assert!(code == 2 && message.contains("no v2_mscoco_*_annotations.json"), "{message}");
    let upload = json!([{ "question_id": 1, "answer": "yes" }]).to_string() + "\n";
    assert!(stdout(&mut run("none")).contains("not scored: no v2_mscoco_*_annotations.json"));
    assert_eq!(read(dir.path().join("none/upload.json")), upload);
    let other = dir.path().join("v2_mscoco_val2014_annotations.json");
    std::fs::write(&other, json!({ "annotations": [] }).to_string()).unwrap();
    let text = stdout(&mut run("other"));
    assert!(
        text.contains("not scored: ") && text.contains("nothing about any question that was asked"),
        "{text}"
    );
    assert_eq!(read(dir.path().join("other/upload.json")), upload);
    let (code, message) = ended(run("named").arg("--annotations").arg(&other));
    assert!(code == 2 && message.contains("nothing about any question that was asked"), "{message}");
}

/// MME's upload is made with the release's files.
#[test]
fn answers_stay_where_annotations_are_of_another_split() {
    let dir = tempfile::tempdir().unwrap();
    let (output, mut command) = asked(
        dir.path(),
        "llava_mme.jsonl",
        &[json!({ "question_id": "existence/1.png", "image": "photo_b.png", "text": "A dog?" })],
    );
    let task = dir.path().join("MME_Benchmark_release_version/existence");
    std::fs::create_dir_all(&task).unwrap();
    std::fs::write(task.join("1.txt"), "Another? Please answer yes or no.\tYes\n").unwrap();
    let text = stdout(&mut command);
    assert!(text.contains("not scored: ") && text.contains("nothing about \"A dog?\""), "{text}");
    let (code, message) = ended(command.arg("--force").arg("--annotations").arg(dir.path()));
    assert!(code == 2 && message.contains("nothing about \"A dog?\""), "{message}");
    assert_eq!(lines(&output).len(), 1);
}

#[test]
fn a_category_of_pope_without_labels_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("llava_pope_test.jsonl");
    let lines = [question(1, "A dog?"), json!({ "question_id": 2, "text": "A cat?", "category": "random" })];
    std::fs::write(&data, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let answers = dir.path().join("answers.jsonl");
    let lines = [1, 2].map(|id| json!({ "question_id": id, "text": "Yes" }).to_string() + "\n");
    std::fs::write(&answers, lines.concat()).unwrap();
    std::fs::write(dir.path().join("coco_pope_popular.json"), "{\"label\": \"yes\"}\n").unwrap();
    let (code, message) = ended(&mut score(&data, &answers));
    assert!(code == 2 && message.contains("no coco_pope_random.json in"), "{message}");
    std::fs::write(
        &data,
        read(&data).replace(",\"category\":\"random\"", "").replace("\"category\":\"random\",", ""),
    )
    .unwrap();
    let (code, message) = ended(&mut score(&data, &answers));
    assert!(code == 2 && message.contains("line 2: no `category`"), "{message}");
    for file in [&data, &answers] {
        std::fs::write(file, "").unwrap();
    }
    let (code, message) = ended(&mut score(&data, &answers));
    assert!(code == 2 && message.contains("llava_pope_test.jsonl: no question"), "{message}");
}

#[test]
fn gqa_without_groups_has_no_distribution() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("llava_gqa.jsonl");
    std::fs::write(&data, question(1, "A dog?").to_string()).unwrap();
    let answers = dir.path().join("answers.jsonl");
    std::fs::write(&answers, json!({ "question_id": 1, "text": "Yes" }).to_string()).unwrap();
    let right = json!({ "1": { "answer": "yes", "isBalanced": true, "types": { "structural": "verify" } } });
    std::fs::write(dir.path().join("testdev_balanced_questions.json"), right.to_string()).unwrap();
    let report: Value = serde_json::from_str(&stdout(score(&data, &answers).arg("--json"))).unwrap();
    assert_eq!(report["report"]["splits"]["none"], json!({ "Accuracy": 100.0, "Binary": 100.0 }));
}
