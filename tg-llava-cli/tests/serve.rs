//! The server over HTTP, as clients see it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod served;

use serde_json::{Value, json};
use served::{Server, picture, question};

#[test]
fn an_answer_about_a_picture_is_that_of_chat() {
    let server = Server::start(&[]);
    let answer = server.chat(
        json!({"messages": question("what shape is in the image?"), "temperature": 0, "max_tokens": 12}),
    );
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    let choice = &answer["choices"][0];
    assert_eq!((&choice["index"], &choice["message"]["role"]), (&json!(0), &json!("assistant")));
    let alone = common::stdout(
        common::chat(&served::model())
            .arg("--json")
            .arg("--image")
            .arg(served::picture_file())
            .arg("what shape is in the image?"),
    );
    let alone: Value = serde_json::from_str(&alone).unwrap();
    // `chat` shows no white space at the end.
    assert_eq!(choice["message"]["content"].as_str().unwrap().trim_end(), alone["answer"].as_str().unwrap());
    assert_eq!(choice["finish_reason"], "stop");
    let usage = &answer["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"]),
        (&alone["prompt_tokens"], &alone["tokens"])
    );
    let sum = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], sum);
}

#[test]
fn the_model_is_listed_and_healthy() {
    let server = Server::start(&["--served-model-name", "org/shapes"]);
    assert_eq!(server.get("/health").0, 200);
    let list = server.get("/v1/models").1;
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("org/shapes")));
    assert_eq!(server.get("/v1/models/org/shapes").1["object"], "model");
    assert_eq!(server.get("/v1/models/default").0, 200);
    let (status, error) = server.get("/v1/models/other");
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
    for (model, expected) in [("org/shapes", 200), ("default", 200), ("other", 404)] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
        assert_eq!(server.post(&body).0, expected, "{model}");
    }
}

/// Each answers as its folder does alone, merged.
#[test]
fn adapters_over_one_decoder_answer_by_their_names() {
    let base = common::fixture("models/vicuna-tiny");
    let folder = |run: &str| common::fixture("lora/vicuna-tiny").join(run).join("final");
    let runs = [("split", folder("r4_split")), ("four-bits", folder("qlora_nf4"))];
    let flags = runs.each_ref().map(|(name, folder)| format!("{name}={}", folder.display()));
    let served = ["--served-model-name", "tiny", "--adapter", &flags[0], "--adapter", &flags[1], "--model"];
    let server = Server::start(&[&served[..], &[base.to_str().unwrap()]].concat());
    let list = server.get("/v1/models").1;
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(names, ["tiny", "split", "four-bits"]);
    assert_eq!(server.get("/v1/models/split").1["id"], "split");
    let ask = |model: &str| {
        let messages = json!([{"role": "user", "content": "What is this?"}]);
        let body = json!({"model": model, "messages": messages, "max_tokens": 12, "temperature": 0});
        let answer = server.chat(body);
        assert_eq!(answer["model"], if model == "default" { "tiny" } else { model });
        answer["choices"][0]["message"]["content"].as_str().unwrap().trim().to_owned()
    };
    let alone = |folder: &std::path::Path| {
        let mut chat = common::chat(folder);
        common::stdout(chat.arg("--base").arg(&base).arg("What is this?")).trim().to_owned()
    };
    let own = common::stdout(common::chat(&base).arg("What is this?")).trim().to_owned();
    assert_eq!((ask("tiny"), ask("default")), (own.clone(), own.clone()));
    for (name, folder) in &runs {
        let answer = ask(name);
        assert_eq!(answer, alone(folder), "{name}");
        assert_ne!(answer, own, "{name}");
    }
    let body = json!({"model": "other", "messages": [{"role": "user", "content": "hi"}]});
    let (status, error) = server.post(&body);
    assert!(status == 404 && error["error"]["message"].as_str().unwrap().contains("split"), "{error}");
}

#[test]
fn a_stream_brings_what_the_whole_answer_says() {
    let server = Server::start(&[]);
    let body = json!({
        "messages": question("what color is the shape?"), "temperature": 0, "max_tokens": 12, "n": 2, "logprobs": true, "top_logprobs": 2,
    });
    let whole = server.chat(body.clone());
    let mut streamed = body;
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    let chunks = server.stream(&streamed);
    let (last, first) = (chunks.last().unwrap(), &chunks[0]);
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
    assert!(
        chunks[..chunks.len() - 1]
            .iter()
            .all(|chunk| chunk["usage"] == Value::Null && chunk["id"] == first["id"])
    );
    for answer in 0..2 {
        let (mut text, mut reasons, mut logprobs) = (String::new(), Vec::new(), Vec::new());
        let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
        for choice in choices.filter(|choice| choice["index"] == answer) {
            text += choice["delta"]["content"].as_str().unwrap_or_default();
            reasons.extend(choice["finish_reason"].as_str());
            logprobs.extend(choice["logprobs"]["content"].as_array().into_iter().flatten().cloned());
        }
        let expected = &whole["choices"][answer];
        assert_eq!(text, expected["message"]["content"].as_str().unwrap());
        assert_eq!(reasons, [expected["finish_reason"].as_str().unwrap()]);
        assert_eq!(Value::from(logprobs), expected["logprobs"]["content"]);
    }
    // The tokens make the text.
    let tokens = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(text.trim(), whole["choices"][0]["message"]["content"].as_str().unwrap().trim());
    assert!(tokens.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));
}

#[test]
fn what_a_client_gets_wrong_is_said_in_openais_form() {
    let server = Server::start(&["--max-images", "1"]);
    let ask = |content: Value| json!({"messages": [{"role": "user", "content": content}], "max_tokens": 2});
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    let at = "messages[0].content[0].image_url.url";
    for (body, code, param) in [
        (ask(json!([image("data:image/png;base64,aGVsbG8=")])), "invalid_image", Some(at)),
        (ask(json!([image("data:image/png;base64,")])), "invalid_image", Some(at)),
        (ask(json!([image(&picture()[..200])])), "invalid_image", Some(at)),
        (ask(json!([image("http://127.0.0.1:1/x.png")])), "invalid_image", Some(at)),
        (
            ask(json!([image(&picture()), image(&picture())])),
            "too_many_images",
            Some("messages[0].content[1].image_url.url"),
        ),
        (ask("circle ".repeat(2000).into()), "context_length_exceeded", Some("messages")),
        (ask(5.into()), "invalid_type", Some("messages[0].content")),
        (json!([1]), "invalid_json", None),
    ] {
        let (status, answer) = server.post(&body);
        let error = answer["error"].as_object().unwrap();
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{answer}");
        assert_eq!(error["param"], json!(param), "{answer}");
        assert!(error["message"].is_string() && error["type"].is_string(), "{answer}");
    }
    assert_eq!(server.get("/v1/nothing").0, 404);
    assert_eq!(server.get("/v1/chat/completions").0, 405);
    assert_eq!(server.send("POST", "/v1/chat/completions", &[("content-type", "text/plain")], b"{}").0, 415);
    assert_eq!(server.post(&ask("still there?".into())).0, 200);
}

#[test]
fn image_marks_in_a_text_are_text() {
    let server = Server::start(&[]);
    let ask =
        |text: &str| server.chat(json!({"messages": question(text), "temperature": 0, "max_tokens": 2}));
    let (plain, marked) = (ask("what is it?"), ask("what is <image> it?"));
    let tokens = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().unwrap();
    // A picture has 24 tokens here, and the tag as text fewer.
    assert!(tokens(&marked) > tokens(&plain) && tokens(&marked) < tokens(&plain) + 24);
}

#[test]
fn many_at_once_are_answered_as_alone() {
    let server = Server::start(&["--max-running", "4"]);
    let questions = [
        "what shape is in the image?",
        "what color is the shape?",
        "is there a circle?",
        "is there a red shape?",
    ];
    let body = |i: usize| json!({"messages": question(questions[i % 4]), "temperature": ([0.0, 1.3][i / 4 % 2]), "seed": i / 8, "max_tokens": 12});
    let text = |answer: Value| answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let alone: Vec<String> = (0..24).map(|i| text(server.chat(body(i)))).collect();
    std::thread::scope(|scope| {
        let (server, body, text) = (&server, &body, &text);
        let threads: Vec<_> = (0..24).map(|i| scope.spawn(move || text(server.chat(body(i))))).collect();
        for (thread, alone) in threads.into_iter().zip(&alone) {
            assert_eq!(&thread.join().unwrap(), alone);
        }
    });
    assert_eq!(server.metric("tg_llava_requests_total{status=\"200\"}"), 48.0);
    assert!(server.metric("tg_llava_vision_cache_hits_total") >= 47.0);
}
