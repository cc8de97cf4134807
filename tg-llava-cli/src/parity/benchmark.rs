//! Prompts, verdicts and scores of a data set as VLMEvalKit has them.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tg_llava_benchmarks::dataset::Kind;
use tg_llava_benchmarks::llava::read_lines;
use tg_llava_benchmarks::prompt::{Part, Question, api};
use tg_llava_benchmarks::report::{Outcome, Report, score};
use tg_llava_benchmarks::score::Predictions;
use tg_llava_benchmarks::score::option::Rules;
use tg_llava_benchmarks::table::Table;

use super::report::Row;

/// Scores are recorded in double precision.
const TOLERANCE: f64 = 1e-9;

/// Whether `dir` holds a recorded evaluation.
pub fn is_benchmark(dir: &Path) -> bool {
    ["meta.json", "predictions.jsonl"].iter().all(|name| dir.join(name).is_file())
}

/// Compares the folder `dir`: `prompts.jsonl` and `expected.json`, where they are, with what is made of the data set that `meta.json` names
/// and of `predictions.jsonl`. What a judge scores is not compared here.
///
/// # Errors
/// Where a file cannot be read or is not laid out as expected.
pub fn run(dir: &Path) -> Result<Vec<Row>> {
    let text = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let meta: Value = serde_json::from_str(&text("meta.json")?).context("meta.json")?;
    let name = meta["dataset"].as_str().context("meta.json: no `dataset`")?;
    let kind = Kind::of(name).with_context(|| format!("meta.json: {name:?} is no data set that is known"))?;
    let file = format!("{name}.tsv");
    let table = Table::read(&text(&file)?, &file)?;
    let mut rows = Vec::new();
    if dir.join("prompts.jsonl").is_file() {
        let golden: Vec<Value> = read_lines(&text("prompts.jsonl")?, "prompts.jsonl")?;
        prompts(&table, kind, &golden, &mut rows)?;
    }
    if dir.join("expected.json").is_file() && !matches!(kind, Kind::Judged(_)) {
        let golden: Value = serde_json::from_str(&text("expected.json")?).context("expected.json")?;
        let answers: Vec<Value> = read_lines(&text("predictions.jsonl")?, "predictions.jsonl")?;
        let answer = |line: &Value| (shown(&line["index"]), shown(&line["prediction"]));
        let predictions = Predictions::new(answers.iter().map(answer));
        for (rules, read, scores) in
            [(Rules::Current, "inferred", "scores"), (Rules::Of2024, "inferred_2024", "scores_2024")]
        {
            if golden.get(scores).is_none_or(Value::is_null) {
                continue;
            }
            if let Outcome::Scored(report) = score(&table, kind, &predictions, rules, None)? {
                rows.push(verdicts(&report, &golden["items"], read));
                rows.push(compare_scores(&report, &golden[scores], scores));
            }
        }
    }
    Ok(rows)
}

/// Text as a scorer sees a value.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn prompts(table: &Table, kind: Kind, golden: &[Value], rows: &mut Vec<Row>) -> Result<()> {
    let own = table.rows()?;
    let mut differences: [(&str, Option<String>); 3] = [("prompts", None), ("guides", None), ("api", None)];
    if own.len() != golden.len() {
        let count = format!("{} rows, recorded are {}", own.len(), golden.len());
        differences.iter_mut().for_each(|(_, difference)| *difference = Some(count.clone()));
    }
    for (&row, golden) in own.iter().zip(golden) {
        let question = Question::new(table, row, kind)?;
        let parts = api(table, row, kind)?.into_iter().map(|part| match part {
            Part::Text(text) => json!({ "text": text }),
            Part::Image(number) => json!({ "image": number }),
        });
        let found = [json!(question.prompt()), json!(question.guide()), Value::Array(parts.collect())];
        for ((group, difference), (found, key)) in
            differences.iter_mut().zip(found.iter().zip(["prompt", "guide", "api"]))
        {
            if *found != golden[key] {
                difference.get_or_insert_with(|| {
                    format!("{group}, index {}: {found}, recorded {}", table.shown(row, "index"), golden[key])
                });
            }
        }
    }
    rows.extend(differences.map(|(group, difference)| Row::exact(group, own.len(), difference)));
    Ok(())
}

/// What was read from each answer, and what it scores.
fn verdicts(report: &Report, golden: &Value, read: &str) -> Row {
    let golden = golden.as_array().map_or(&[][..], Vec::as_slice);
    let mut difference = (report.items.len() != golden.len())
        .then(|| format!("{} rows, recorded are {}", report.items.len(), golden.len()));
    for (found, golden) in report.items.iter().zip(golden) {
        // Recorded hits are those of the current rules.
        let score = golden.get("hit").or(golden.get("score")).filter(|_| read == "inferred");
        let score_differs = score.is_some_and(|score| match (score.as_f64(), found.score) {
            (Some(golden), Some(found)) => (golden - found).abs() > TOLERANCE,
            (golden, found) => golden.is_some() != found.is_some(),
        });
        let text = golden.get(read).or(golden.get("rule")).or(golden.get("prediction_normal"));
        let read_differs = text.is_some_and(|text| text.as_str() != found.read.as_deref());
        if found.index != shown(&golden["index"]) || score_differs || read_differs {
            difference.get_or_insert_with(|| format!("{found:?}, recorded {golden}"));
        }
    }
    Row::exact(format!("verdicts ({read})"), golden.len(), difference)
}

/// Scores by split and name.
fn compare_scores(report: &Report, golden: &Value, group: &str) -> Row {
    let one = [golden.clone()];
    let (mut compared, mut worst) = (0, 0.0_f64);
    let mut difference = None;
    let splits = golden.as_array().map_or(&one[..], Vec::as_slice);
    for golden in splits {
        let name = golden["split"].as_str().unwrap_or("none");
        let named = golden.as_object().into_iter().flatten();
        for (key, value) in named.filter(|(key, _)| *key != "split") {
            compared += 1;
            let found = report.splits.get(name).and_then(|split| split.get(key));
            match (found, value.as_f64()) {
                (Some(found), Some(value)) => worst = worst.max((found - value).abs()),
                (None, None) => {}
                _ => {
                    difference.get_or_insert_with(|| format!("{name} {key}: {found:?}, recorded {value}"));
                }
            }
        }
    }
    if splits.len() != report.splits.len() {
        difference = Some(format!("{} splits, recorded are {}", report.splits.len(), splits.len()));
    }
    match difference {
        Some(difference) => Row::exact(group, compared, Some(difference)),
        None => Row::numeric(group, compared, worst, TOLERANCE),
    }
}
