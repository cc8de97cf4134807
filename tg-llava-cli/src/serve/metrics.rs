//! What Prometheus asks for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the histograms' buckets, in seconds.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A number that goes up, or is set.
#[derive(Debug, Default)]
pub struct Value(AtomicU64);

/// How long something takes.
#[derive(Debug, Default)]
pub struct Seconds {
    /// Those of each bucket, and above all.
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// All that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests whose answers are being generated.
    pub running: Value,
    /// Requests that wait for the model.
    pub waiting: Value,
    /// Tokens of prompts that the model took, those of pictures included.
    pub prompt_tokens: Value,
    /// Tokens that the model made.
    pub generated_tokens: Value,
    /// Pictures that the vision tower had seen before.
    pub vision_hits: Value,
    /// Pictures that it had not.
    pub vision_misses: Value,
    /// Pictures that had been guided by the same text before.
    pub guided_hits: Value,
    /// Those that had not.
    pub guided_misses: Value,
    /// From a request to the end of its answer.
    pub request_seconds: Seconds,
    /// From a request to its first token.
    pub first_token_seconds: Seconds,
    /// Responses to chat completions, by status.
    responses: Mutex<BTreeMap<u16, u64>>,
}

impl Value {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// Replaces it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Seconds {
    /// Counts one.
    pub fn add(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(duration.as_micros() as u64, Relaxed);
    }
}

impl Metrics {
    /// Counts a response to a chat completion.
    pub fn responded(&self, status: u16) {
        *self.responses.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
    }

    /// Everything, as Prometheus reads it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut value = |name: &str, kind: &str, help: &str, value: &Value| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}", value.get());
        };
        value("tg_llava_requests_running", "gauge", "Requests being answered.", &self.running);
        value("tg_llava_requests_waiting", "gauge", "Requests that wait for the model.", &self.waiting);
        value("tg_llava_prompt_tokens_total", "counter", "Tokens of prompts.", &self.prompt_tokens);
        value("tg_llava_generated_tokens_total", "counter", "Tokens generated.", &self.generated_tokens);
        value("tg_llava_vision_cache_hits_total", "counter", "Pictures seen before.", &self.vision_hits);
        value(
            "tg_llava_vision_cache_misses_total",
            "counter",
            "Pictures new to the server.",
            &self.vision_misses,
        );
        value(
            "tg_llava_guide_cache_hits_total",
            "counter",
            "Pictures guided alike before.",
            &self.guided_hits,
        );
        value("tg_llava_guide_cache_misses_total", "counter", "Pictures guided anew.", &self.guided_misses);
        let name = "tg_llava_requests_total";
        let _ = writeln!(out, "# HELP {name} Chat completions by status.\n# TYPE {name} counter");
        for (status, count) in &*self.responses.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(out, "{name}{{status=\"{status}\"}} {count}");
        }
        histogram(
            &mut out,
            "tg_llava_request_seconds",
            "Seconds to the end of an answer.",
            &self.request_seconds,
        );
        let first = "tg_llava_time_to_first_token_seconds";
        histogram(&mut out, first, "Seconds to the first token.", &self.first_token_seconds);
        out
    }
}

fn histogram(out: &mut String, name: &str, help: &str, seconds: &Seconds) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
    let mut count = 0;
    let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (bound, bucket) in bounds.zip(&seconds.counts) {
        count += bucket.load(Relaxed);
        let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let sum = seconds.micros.load(Relaxed) as f64 / 1e6;
    let _ = writeln!(out, "{name}_sum {sum}\n{name}_count {count}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_finds_its_lines() {
        let metrics = Metrics::default();
        metrics.running.set(3);
        metrics.responded(200);
        metrics.responded(200);
        metrics.responded(429);
        metrics.request_seconds.add(Duration::from_millis(20));
        metrics.request_seconds.add(Duration::from_secs(1000));
        let text = metrics.text();
        for line in [
            "tg_llava_requests_running 3",
            "tg_llava_requests_total{status=\"200\"} 2",
            "tg_llava_request_seconds_bucket{le=\"0.01\"} 0",
            "tg_llava_request_seconds_bucket{le=\"0.025\"} 1",
            "tg_llava_request_seconds_bucket{le=\"300\"} 1",
            "tg_llava_request_seconds_bucket{le=\"+Inf\"} 2",
            "tg_llava_request_seconds_sum 1000.02",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
