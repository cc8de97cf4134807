//! That `/openapi.json` says what the server does: real answers are as described, and each field of a request is read as described.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod served;

use serde_json::{Value, json};
use served::{Server, question};

/// What is wrong with `value` by `schema`, whose references lead into `document`; keys that the schema does not list are wrong.
fn problem(document: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        return problem(document, target, value, at);
    }
    if let Some(forms) = schema["oneOf"].as_array() {
        let fits = forms.iter().any(|form| problem(document, form, value, at).is_none());
        return (!fits).then(|| format!("{at}: {value} has none of the forms"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |name: &Value| name == kind || (name == "number" && kind == "integer");
    let typed = match &schema["type"] {
        Value::Null => true,
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    };
    let constant = schema["const"].is_null() || schema["const"] == *value;
    let listed = schema["enum"].as_array().is_none_or(|values| values.contains(value));
    if !(typed && constant && listed) {
        return Some(format!("{at}: {value} is not {schema}"));
    }
    if let Value::Array(items) = value {
        let item = |(i, item)| problem(document, &schema["items"], item, &format!("{at}[{i}]"));
        return items.iter().enumerate().find_map(item);
    }
    let object = value.as_object()?;
    let required = schema["required"].as_array().into_iter().flatten();
    let missing = required.map(|name| name.as_str().unwrap()).find(|name| !object.contains_key(*name));
    if let Some(name) = missing {
        return Some(format!("{at}: {name} is missing"));
    }
    object.iter().find_map(|(key, value)| match &schema["properties"][key] {
        Value::Null => Some(format!("{at}: {key} is not described")),
        schema => problem(document, schema, value, &format!("{at}.{key}")),
    })
}

#[test]
fn answers_are_as_described() {
    let server = Server::start(&[]);
    let document = server.get("/openapi.json").1;
    let full = json!({
        "messages": question("what shape is in the image?"), "n": 2, "logprobs": true, "top_logprobs": 2, "max_tokens": 3, "temperature": 0
    });
    let plain = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
    for (method, path, described, body, status) in [
        ("GET", "/health", "/health", Value::Null, 200),
        ("GET", "/v1/models", "/v1/models", Value::Null, 200),
        ("GET", "/v1/models/default", "/v1/models/{id}", Value::Null, 200),
        ("GET", "/v1/models/none", "/v1/models/{id}", Value::Null, 404),
        ("POST", "/v1/chat/completions", "/v1/chat/completions", full, 200),
        ("POST", "/v1/chat/completions", "/v1/chat/completions", plain, 200),
        ("POST", "/v1/chat/completions", "/v1/chat/completions", json!({"n": 9}), 400),
    ] {
        let headers = [("content-type", "application/json")];
        let (found, answer) = server.send(method, path, &headers, body.to_string().as_bytes());
        assert_eq!(found, status, "{path}: {answer}");
        let response = &document["paths"][described][method.to_lowercase()]["responses"][status.to_string()];
        let response = match response["$ref"].as_str() {
            Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
            None => response,
        };
        let schema = &response["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path}: {status} is not described");
        assert_eq!(problem(&document, schema, &answer, path), None, "{answer}");
    }
}

#[test]
fn fields_are_read_as_described() {
    let server = Server::start(&[]);
    let document = server.get("/openapi.json").1;
    let ask = |name: &str, value: &Value| {
        let mut body =
            json!({"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 1, "seed": 1});
        if name == "top_logprobs" {
            body["logprobs"] = true.into();
        }
        body[name] = value.clone();
        server.post(&body)
    };
    for (name, schema) in document["components"]["schemas"]["Request"]["properties"].as_object().unwrap() {
        let number = |key: &str| schema[key].as_f64();
        let as_described = |value: f64| match schema["type"] == "integer" {
            true => json!(value as i64),
            false => json!(value),
        };
        let ends = [("minimum", -1.0), ("maximum", 1.0)];
        let good = ends.iter().filter_map(|(key, _)| number(key).map(as_described));
        let bad = ends.iter().filter_map(|(key, beyond)| number(key).map(|end| as_described(end + beyond)));
        let bad = bad.chain(number("exclusiveMinimum").map(as_described));
        for value in good.chain(schema.get("default").cloned()) {
            assert_eq!(ask(name, &value).0, 200, "{name} = {value}");
        }
        // What no field takes.
        let wrong = if schema["type"] == "string" { json!(5) } else { json!({"a": "b"}) };
        let nested = [json!({"type": "sound"}), json!({"include_usage": 5})];
        let wrong = if schema["type"] == "object" { nested.to_vec() } else { vec![wrong] };
        for value in bad.chain(wrong) {
            let (status, error) = ask(name, &value);
            assert_eq!(status, 400, "{name} = {value}");
            assert!(error["error"]["param"].as_str().unwrap().contains(&**name), "{name} = {value}: {error}");
        }
    }
}
