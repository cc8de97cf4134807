//! Files that cannot be used are named, with the row.

use super::common::stdout;
use super::*;

#[test]
fn a_bad_picture_costs_no_other_row_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    stdout(&mut eval(&table(dir.path(), 4, None), &good));
    let (code, message) = ended(&mut eval(&table(dir.path(), 4, Some(1)), &bad));
    assert!(code == 1 && message.contains("MMStar.tsv, line 3, index 1: "), "{message}");
    assert_eq!(message.matches("index 1: ").count(), 1, "{message}");
    let others: Vec<Value> = lines(&good).into_iter().filter(|line| line["index"] != 1).collect();
    assert_eq!(lines(&bad), others);
    let scores: Value = serde_json::from_str(&read(bad.join("scores.json"))).unwrap();
    assert_eq!(scores["failures"].as_array().unwrap().len(), 1);
    assert_eq!(scores["report"]["items"][1]["score"], 0.0);
}

/// The exit code and message of `eval` on a table with this text; files are named without their folder.
fn eval_of(text: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("MMStar.tsv");
    std::fs::write(&data, text).unwrap();
    let (code, message) = ended(eval(&data, &dir.path().join("out")).arg("--image-folder").arg(dir.path()));
    (code, message.replace('\\', "/").replace(&format!("{}/", dir.path().display()), ""))
}

#[test]
fn a_table_that_cannot_be_used_is_named_with_its_row() {
    let long = "x".repeat(80);
    for (text, message) in [
        ("index\tA\timage\n0\ta\tb\n".to_owned(), "MMStar.tsv: no column `question`; it has index, A, image"),
        ("question\tA\timage\nq\ta\tb\n".to_owned(), "MMStar.tsv: no column `index`"),
        ("index\tquestion\n0\tq\n".to_owned(), "MMStar.tsv: no column `image_path`"),
        (
            format!("index\tquestion\timage\n0\tq\t{long}\n0\tr\t{long}\n"),
            "MMStar.tsv, line 3: index 0 is there a second time",
        ),
        (
            "index\tquestion\timage\n0\tq\tr\ts\n".to_owned(),
            "MMStar.tsv, line 2: 4 cells, but the header names 3 columns",
        ),
        ("index\tquestion\timage\n0\t\"q\tr\n".to_owned(), "MMStar.tsv, line 2: a quote opens here"),
    ] {
        let (code, found) = eval_of(&text);
        assert!(code == 2 && found.contains(message), "{message}: {found}");
    }
}

/// One row costs no other its answer, so these are told at the end, with exit code 1.
#[test]
fn a_picture_that_cannot_be_used_is_named_with_its_row() {
    let long = "x".repeat(80);
    for (text, message) in [
        (
            "index\tquestion\timage\n5\tq\t7\n".to_owned(),
            "MMStar.tsv, line 2, index 5: MMStar.tsv, line 2: column `image` names row 7",
        ),
        (
            format!("index\tquestion\timage\n5\tq\t{long}!\n"),
            "MMStar.tsv, line 2, index 5: column `image` is no base64",
        ),
        (format!("index\tquestion\timage\n5\tq\t{long}\n"), "MMStar.tsv, line 2, index 5: "),
        ("index\tquestion\timage_path\n5\tq\tnone.png\n".to_owned(), "MMStar.tsv, line 2, index 5: "),
    ] {
        let (code, found) = eval_of(&text);
        assert!(code == 1 && found.contains(message), "{message}: {found}");
    }
}

#[test]
fn questions_of_llava_that_cannot_be_used_are_named_with_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("llava_gqa.jsonl");
    let run = |text: &str| {
        std::fs::write(&data, text).unwrap();
        ended(
            eval(&data, &dir.path().join("out"))
                .args(["--force", "--image-folder"])
                .arg(fixture("preprocess/images")),
        )
    };
    let good = r#"{"question_id": 1, "image": "photo_b.png", "text": "What?"}"#;
    let (code, message) = run(&format!("{good}\n\n{{\"question_id\": 2}}\n"));
    assert!(code == 2 && message.contains("llava_gqa.jsonl, line 3: missing field `text`"), "{message}");
    let (code, message) =
        run(&format!("{good}\n{}\n", good.replace("photo_b", "none").replace(": 1", ": 2")));
    assert!(
        code == 1
            && message.contains("llava_gqa.jsonl, line 2, question 2: ")
            && message.contains("none.png"),
        "{message}"
    );
    let (code, message) = run("[{\"id\": \"1\"}]");
    assert!(code == 2 && message.contains("llava_gqa.jsonl, entry 1: no conversation"), "{message}");
}

#[test]
fn answers_to_another_data_set_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = golden("pope/llava");
    let (data, own) = (folder.join("llava_pope_test.jsonl"), folder.join("answers/model.jsonl"));
    let (code, message) = ended(&mut score(&data, &golden("gqa/llava/answers/model.jsonl")));
    assert!(
        code == 2
            && message.contains("model.jsonl, line 1: ")
            && message.contains("no such question 201600000"),
        "{message}"
    );
    let answers = dir.path().join("some.jsonl");
    let text = read(&own);
    let (first, rest) = text.split_once('\n').unwrap();
    std::fs::write(&answers, rest).unwrap();
    let (code, message) = ended(&mut score(&data, &answers));
    assert!(
        code == 2 && message.contains("llava_pope_test.jsonl, line 1: question 1 has no answer"),
        "{message}"
    );
    std::fs::write(&answers, format!("{text}{first}\n")).unwrap();
    let (code, message) = ended(&mut score(&data, &answers));
    assert!(
        code == 2 && message.contains("some.jsonl, line 43: question 1 has an answer further up"),
        "{message}"
    );
    std::fs::write(&answers, "{\"question_id\": 1}\n").unwrap();
    let (code, message) = ended(&mut score(&data, &answers));
    assert!(code == 2 && message.contains("some.jsonl, line 1: missing field `text`"), "{message}");
    // Labels of another set of questions.
    let coco = dir.path().join("coco_pope_popular.json");
    std::fs::write(&coco, "{\"label\": \"yes\"}\n").unwrap();
    let (code, message) = ended(score(&data, &own).arg("--annotations").arg(&coco));
    assert!(code == 2 && message.contains("coco_pope_popular.json: nothing about as many"), "{message}");
}

/// Answering may take hours, so what keeps answers from being scored is told before the model is loaded.
#[test]
fn what_scoring_needs_is_looked_at_first() {
    let dir = tempfile::tempdir().unwrap();
    let run = |data: &Path, more: &[&Path]| {
        let mut command = eval(data, &dir.path().join("out"));
        if !more.is_empty() {
            command.arg("--annotations").args(more);
        }
        ended(&mut command)
    };
    let mme = dir.path().join("MME.tsv");
    std::fs::write(&mme, format!("index\tquestion\tanswer\timage\n0\tq\tYes\t{}\n", "x".repeat(80))).unwrap();
    let (code, message) = run(&mme, &[]);
    assert!(code == 2 && message.contains("MME.tsv: no column `category`"), "{message}");
    let questions = dir.path().join("llava_gqa.jsonl");
    std::fs::write(&questions, "{\"question_id\": 1, \"text\": \"What?\"}\n").unwrap();
    let damaged = dir.path().join("damaged.json");
    std::fs::write(&damaged, "{\"1\":\n {\"answer\": 7}}").unwrap();
    let (code, message) = run(&questions, &[&damaged]);
    assert!(
        code == 2
            && message.contains("damaged.json: invalid type: integer `7`")
            && message.contains("line 2"),
        "{message}"
    );
    assert!(!dir.path().join("out/answers.jsonl").exists());
    let (code, message) = run(&questions, &[]);
    assert!(
        code == 0 && message.contains("answers will not be scored: no testdev_balanced_questions.json"),
        "{message}"
    );
}

#[test]
fn an_option_without_effect_is_named() {
    let [kit, llava] = ["ocrbench/vlmevalkit", "pope/llava"].map(golden);
    let kit = [kit.join("OCRBench.tsv"), kit.join("predictions.jsonl")];
    let llava = [llava.join("llava_pope_test.jsonl"), llava.join("answers/model.jsonl")];
    let judge = ["--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "j", "--judge-prompts", "p.json"];
    for (files, options, name) in [
        (&kit, &["--annotations", "right.json"][..], "--annotations: "),
        (&kit, &judge[..], "--judge-url: "),
        (&llava, &judge[..], "--judge-url: "),
        (&llava, &["--judge-replies", "replies.jsonl"][..], "--judge-replies: "),
        (&llava, &["--rules", "2024"][..], "--rules: "),
    ] {
        let (code, message) = ended(score(&files[0], &files[1]).args(options));
        assert!(code == 2 && message.contains(name) && message.contains("leave it out"), "{name}: {message}");
    }
}
