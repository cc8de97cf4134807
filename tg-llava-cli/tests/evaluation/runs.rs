//! `eval --benchmark`: answers, and the files of a run.

use serde_json::json;

use super::common::{self, fixture, program, stdout};
use super::*;

#[test]
fn answers_are_those_of_chat_to_the_same_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let question = "Is there a dog?\nAnswer the question using a single word or phrase.";
    let lines_file = dir.path().join("llava_pope_test.jsonl");
    let line = json!({ "question_id": 7, "image": "photo_b.png", "text": question, "category": "random" });
    std::fs::write(&lines_file, format!("{line}\n")).unwrap();
    let pope = dir.path().join("POPE.tsv");
    let image = STANDARD.encode(std::fs::read(picture()).unwrap());
    let cells =
        format!("index\tquestion\tanswer\tcategory\timage\n7\t\"{question}\"\tYes\trandom\t{image}\n");
    std::fs::write(&pope, cells).unwrap();
    // VLMEvalKit has words of its own for Vicuna's template alone.
    for (model, data, name) in [("vicuna-tiny", &lines_file, "text"), ("llama3-tiny", &pope, "prediction")] {
        let model = fixture("models").join(model);
        let output = dir.path().join(name);
        let mut command = program();
        command.args(["eval", "--max-new-tokens", "12"]).args(common::device()).arg("--model").arg(&model);
        command.arg("--image-folder").arg(fixture("preprocess/images"));
        stdout(command.arg("--data").arg(data).arg("--output").arg(&output));
        let mut chat = common::chat(&model);
        let said = stdout(chat.arg("--image").arg(picture()).arg(question));
        assert_eq!(lines(&output)[0][name].as_str().unwrap(), said.trim(), "{name}");
    }
    assert_eq!(lines(&dir.path().join("text"))[0]["question_id"], 7);
}

#[test]
fn scores_are_those_of_the_answers_file() {
    let dir = tempfile::tempdir().unwrap();
    let (data, output) = (table(dir.path(), 5, None), dir.path().join("out"));
    let printed: Value = serde_json::from_str(&stdout(eval(&data, &output).arg("--json"))).unwrap();
    assert_eq!(printed["state"], "scored");
    let mut command = program();
    command
        .args(["score", "--json", "--data"])
        .arg(&data)
        .arg("--predictions")
        .arg(output.join("answers.jsonl"));
    let scored: Value = serde_json::from_str(&stdout(&mut command)).unwrap();
    assert_eq!(printed["report"], scored["report"]);
    let kept = read(output.join("MMStar.tsv"));
    assert!(kept.starts_with("index\tquestion\tA\tB\tanswer\tcategory\tl2-category\tprediction\n"), "{kept}");
    assert_eq!(read(output.join("verdicts.csv")).lines().count(), 6);
    let part = dir.path().join("part");
    let text = stdout(eval(&data, &part).args(["--samples", "2"]));
    assert!(text.contains("not scored, since only a part was asked"), "{text}");
    // The rest follows, and then all is scored.
    assert!(stdout(&mut eval(&data, &part)).contains("Overall"));
    assert_eq!(read(part.join("answers.jsonl")), read(output.join("answers.jsonl")));
}

#[test]
fn beams_give_the_answers_of_chat_and_are_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let question = "Is there a dog?";
    let data = dir.path().join("llava_mm-vet.jsonl");
    let line = json!({ "question_id": 7, "image": "photo_b.png", "text": question });
    std::fs::write(&data, format!("{line}\n")).unwrap();
    let sample = json!([{
        "id": "7", "image": "photo_b.png",
        "conversations": [{ "from": "human", "value": format!("<image>\n{question}") }, { "from": "gpt", "value": "Yes" }],
    }]);
    let samples = dir.path().join("samples.json");
    std::fs::write(&samples, sample.to_string()).unwrap();
    let run = |data: &Path, beams: &str| {
        let mut command = program();
        command.args(["eval", "--max-new-tokens", "12", "--num-beams", beams]).args(common::device());
        command.arg("--model").arg(vicuna()).arg("--image-folder").arg(fixture("preprocess/images"));
        command.arg("--data").arg(data);
        command
    };
    let output = dir.path().join("out");
    stdout(run(&data, "3").arg("--output").arg(&output));
    let chat = |beams: &str| {
        let mut chat = common::chat(&vicuna());
        stdout(chat.args(["--num-beams", beams, "--image"]).arg(picture()).arg(question)).trim().to_owned()
    };
    let said = chat("3");
    assert_ne!(said, chat("1"));
    assert_eq!(lines(&output)[0]["text"], said.as_str());
    let (code, message) = ended(run(&data, "1").arg("--output").arg(&output));
    assert!(code == 2 && message.contains("beams: 3, now unknown"), "{message}");
    let answers = dir.path().join("answers.jsonl");
    stdout(run(&samples, "3").arg("--predictions").arg(&answers));
    let answer: Value = serde_json::from_str(&read(&answers)).unwrap();
    assert_eq!(answer["answer"], said.as_str());
}
