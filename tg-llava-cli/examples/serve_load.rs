//! Loads a running server with many clients at once: is anything lost, how long do answers take, how many tokens a second come?
//!
//! ```sh
//! cargo run --release -p tg-llava-cli --example serve_load -- http://127.0.0.1:8000 CLIENTS SECONDS [MAX_TOKENS]
//! ```
//!
//! Each client asks about a picture, again and again; one that is told that the server is full comes back as a client does. Ends
//! with exit code 1 where an answer was lost.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// What one client met.
#[derive(Debug, Default)]
struct Seen {
    seconds: Vec<f64>,
    tokens: u64,
    told_to_come_back: usize,
    lost: BTreeMap<String, usize>,
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, clients, seconds, ..] = &arguments[..] else {
        anyhow::bail!("usage: serve_load ADDRESS CLIENTS SECONDS [MAX_TOKENS]");
    };
    let clients: u64 = clients.parse().context("CLIENTS must be a number")?;
    let length = Duration::from_secs_f64(seconds.parse().context("SECONDS must be a number")?);
    let max_tokens: Option<usize> =
        arguments.get(3).map(|text| text.parse()).transpose().context("MAX_TOKENS must be a number")?;
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/pictures/red-circle.png");
    let picture =
        format!("data:image/png;base64,{}", STANDARD.encode(std::fs::read(picture).context(picture)?));

    let start = Instant::now();
    let (url, picture) = (&format!("{address}/v1/chat/completions"), &picture);
    let all: Vec<Seen> = std::thread::scope(|scope| {
        let run = |client| scope.spawn(move || ask_until(start + length, url, picture, (client, max_tokens)));
        let threads: Vec<_> = (0..clients).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let elapsed = start.elapsed().as_secs_f64();

    let mut lost: BTreeMap<&str, usize> = BTreeMap::new();
    for (reason, count) in all.iter().flat_map(|seen| &seen.lost) {
        *lost.entry(reason).or_default() += count;
    }
    let mut seconds: Vec<f64> = all.iter().flat_map(|seen| seen.seconds.iter().copied()).collect();
    seconds.sort_by(f64::total_cmp);
    let share = |part: f64| {
        seconds.get(((seconds.len() as f64 * part) as usize).min(seconds.len().saturating_sub(1)))
    };
    let tokens: u64 = all.iter().map(|seen| seen.tokens).sum();
    let report = json!({
        "clients": clients,
        "seconds": elapsed,
        "answers": seconds.len(),
        "answers_per_second": seconds.len() as f64 / elapsed,
        "tokens_per_second": tokens as f64 / elapsed,
        "p50_seconds": share(0.5),
        "p99_seconds": share(0.99),
        "told_to_come_back": all.iter().map(|seen| seen.told_to_come_back).sum::<usize>(),
        "lost": lost,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(if lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks until `end`, and waits for the last answer.
fn ask_until(end: Instant, url: &str, picture: &str, (client, max_tokens): (u64, Option<usize>)) -> Seen {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
    let questions = [
        "what shape is in the image?",
        "what color is the shape?",
        "is there a circle?",
        "is there a red shape?",
    ];
    let mut seen = Seen::default();
    for round in 0.. {
        if Instant::now() >= end {
            break;
        }
        let text = questions[(client + round) as usize % questions.len()];
        let content =
            json!([{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": text}]);
        // With a length asked for, the highest temperature keeps answers from ending early.
        let temperature = if max_tokens.is_some() { 2 } else { 0 };
        let body = json!({
            "messages": [{"role": "user", "content": content}], "temperature": temperature, "seed": client * 1000 + round,
            "max_tokens": max_tokens.unwrap_or(16),
        });
        let asked = Instant::now();
        let answer = agent.post(url).content_type("application/json").send(body.to_string());
        match answer.map(|mut answer| (answer.status().as_u16(), answer.body_mut().read_to_string())) {
            Ok((200, Ok(text))) => {
                let tokens = serde_json::from_str::<Value>(&text).ok();
                match tokens.and_then(|answer| answer["usage"]["completion_tokens"].as_u64()) {
                    Some(tokens) => {
                        seen.seconds.push(asked.elapsed().as_secs_f64());
                        seen.tokens += tokens;
                    }
                    None => *seen.lost.entry("an answer without usage".into()).or_default() += 1,
                }
            }
            Ok((429, _)) => {
                seen.told_to_come_back += 1;
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok((status, _)) => *seen.lost.entry(format!("status {status}")).or_default() += 1,
            Err(error) => *seen.lost.entry(error.to_string()).or_default() += 1,
        }
    }
    seen
}
