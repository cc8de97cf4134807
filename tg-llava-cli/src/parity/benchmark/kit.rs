//! Recorded evaluations of VLMEvalKit.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tg_llava_benchmarks::dataset::{Choice, Judged, Kind, YesNo};
use tg_llava_benchmarks::judge::{Judge, TableRows};
use tg_llava_benchmarks::prompt::{Part, api};
use tg_llava_benchmarks::score::option::Rules;
use tg_llava_benchmarks::score::yes_no::Verdict;
use tg_llava_benchmarks::score::{Predictions, choice, judged, ocr, short, yes_no};
use tg_llava_benchmarks::table::Table;
use tg_llava_core::conversation::{Conversation, Template};

use super::super::report::Row;
use super::compare::{by_name, compare, shown};
use super::replay::Replay;
use super::{Folder, ordered};
use crate::benchmark::Harness;
use crate::benchmark::questions::{Asked, Questions};

/// Compares `prompts.jsonl` and `expected.json`, where they are, with what is made of the data set `name` and `predictions.jsonl`; and
/// where there are a judge's replies (`judge.jsonl`), what comes of them.
///
/// # Errors
/// Where a file cannot be read or is not laid out as expected.
pub fn run(folder: &Folder<'_>, name: &str) -> Result<Vec<Row>> {
    let file = format!("{name}.tsv");
    let questions = Questions::new(&folder.text(&file)?, file.as_ref(), name, Harness::Vlmevalkit);
    let questions = questions.map_err(|e| anyhow::anyhow!(e.message().unwrap_or_default()))?;
    let Questions::Kit { table, kind, .. } = &questions else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    if folder.has("prompts.jsonl") {
        prompts(&questions, table, *kind, &folder.lines("prompts.jsonl")?, &mut rows)?;
    }
    if !folder.has("predictions.jsonl") {
        return Ok(rows);
    }
    let answers: Vec<Value> = folder.lines("predictions.jsonl")?;
    let answer = |line: &Value| (shown(&line["index"]), shown(&line["prediction"]));
    let predictions = &Predictions::new(answers.iter().map(answer));
    table.need_answers(predictions)?;
    let scored = Recorded { table, predictions };
    let needs_judge = matches!(kind, Kind::Judged(_));
    if !needs_judge && !table.has("answer") && !table.has("answers") {
        // Predictions for a test set, which its server scores.
        return Ok(rows);
    }
    // Without them nothing would be compared, and nothing could fail.
    ensure!(
        folder.has("expected.json"),
        "expected.json is missing, which says what comes of predictions.jsonl"
    );
    ensure!(!needs_judge || folder.has("judge.jsonl"), "judge.jsonl is missing: a judge scores {name}");
    // Where there are no scores of their own with a judge, the scores are with it.
    let is_judged = folder.has("judge.jsonl");
    let with_judge = if folder.has("expected_judge.json") { "expected_judge.json" } else { "expected.json" };
    if !(is_judged && with_judge == "expected.json") {
        rows.extend(scored.compared(*kind, None, &folder.json("expected.json")?, "")?);
    }
    if is_judged {
        let about = TableRows { table, kind: *kind, predictions };
        let mut judge = Replay::new(folder.lines("judge.jsonl")?, &about, names(*kind));
        rows.extend(scored.compared(*kind, Some(&mut judge), &folder.json(with_judge)?, "judged ")?);
        rows.push(judge.finish());
    }
    Ok(rows)
}

/// What requests to a judge are made from, from their ends on.
fn names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Choice(_) => &["prediction", "options", "question"],
        Kind::Judged(Judged::MmVet) => &["prediction", "answer", "question"],
        Kind::Judged(Judged::LlavaBench) => &["prediction", "gpt4_ans", "question", "caption"],
        _ => &["prediction", "question"],
    }
}

fn prompts(
    questions: &Questions,
    table: &Table,
    kind: Kind,
    golden: &[Value],
    rows: &mut Vec<Row>,
) -> Result<()> {
    let mut found = Vec::new();
    for row in questions.order() {
        let asked = questions.asked(row)?;
        let parts = api(table, row, kind)?.into_iter().map(|part| match part {
            Part::Text(text) => json!({ "text": text }),
            Part::Image(number) => json!({ "image": number }),
        });
        let mut conv = BTreeMap::new();
        for name in
            golden.first().and_then(|golden| golden["conv"].as_object()).into_iter().flat_map(|c| c.keys())
        {
            conv.insert(name.clone(), by_template(&asked, name)?);
        }
        found.push(json!({
            "index": table.shown(row, "index"),
            "prompt": asked.wrapped,
            "prompt_by": if matches!(kind, Kind::Choice(_)) { "wrapper" } else { "dataset" },
            "text": asked.text,
            "images": asked.pictures.len(),
            "stop": Template::by_name("v1")?.end_mark(),
            "guide": asked.guide,
            "conv": conv,
            "api": parts.collect::<Value>(),
        }));
    }
    rows.extend(ordered("prompts", &found, golden, &["prompt", "prompt_by", "text", "images", "stop"]));
    rows.extend(ordered("guides", &found, golden, &["guide"]));
    rows.extend(ordered("templates", &found, golden, &["conv"]));
    rows.extend(ordered("api", &found, golden, &["index", "api"]));
    Ok(())
}

/// The prompt as a model's own template writes it.
fn by_template(asked: &Asked, name: &str) -> Result<String> {
    let (turn, mut conversation) = (asked.turn(), Conversation::new(Template::by_name(name)?));
    conversation.push(turn.from.role(), turn.value);
    conversation.push_open_answer();
    Ok(conversation.prompt()?.text)
}

/// Answers that were scored, and what is made of them here, laid out as recorded.
#[derive(Clone, Copy)]
struct Recorded<'a> {
    table: &'a Table,
    predictions: &'a Predictions,
}

impl Recorded<'_> {
    fn compared(
        self,
        kind: Kind,
        judge: Option<&mut dyn Judge>,
        golden: &Value,
        group: &str,
    ) -> Result<Vec<Row>> {
        let (key, mut found) = match (kind, judge) {
            (Kind::Choice(kind), judge) => ("split", self.choices(kind, judge)?),
            (Kind::YesNo(kind), judge) => ("split", self.yes_and_no(kind, judge)?),
            (Kind::Short(kind), _) => {
                let found = short::score(self.table, kind, self.predictions)?;
                let item = |item: &short::ShortItem| {
                    json!({
                        "index": item.index, "prediction_seen": self.predictions.seen(&item.index),
                        "prediction_normal": item.normal, "answers_normal": item.answers, "score": item.score,
                    })
                };
                let items: Value = found.items.iter().map(item).collect();
                ("split", json!({ "items": items, "scores": { "none": { "Overall": found.overall } } }))
            }
            (Kind::Ocr, _) => {
                let found = ocr::score(self.table, self.predictions)?;
                let item = |(index, hit): &(String, bool)| json!({ "index": index, "prediction_seen": self.predictions.seen(index), "hit": u8::from(*hit) });
                let items: Value = found.items.iter().map(item).collect();
                ("split", json!({ "items": items, "scores": { "none": found.scores } }))
            }
            (Kind::Judged(kind), Some(judge)) => self.judged(kind, judge)?,
            (Kind::Judged(_), None) => return Ok(Vec::new()),
        };
        let mut rows = vec![compare(format!("{group}verdicts"), &found["items"], &golden["items"])];
        let recorded = golden.as_object().into_iter().flatten();
        for (name, golden) in recorded.filter(|(name, golden)| *name != "items" && !golden.is_null()) {
            rows.push(compare(format!("{group}{name}"), &found[name].take(), &by_name(golden, key)));
        }
        Ok(rows)
    }

    fn choices(self, kind: Choice, judge: Option<&mut dyn Judge>) -> Result<Value> {
        let score = |rules, judge| choice::score(self.table, kind, self.predictions, rules, judge);
        let (current, old) = (score(Rules::Current, judge)?, score(Rules::Of2024, None)?);
        let item = |(item, old): (&choice::ChoiceItem, &choice::ChoiceItem)| {
            json!({
                "index": item.index, "prediction_seen": self.predictions.seen(&item.index), "inferred": item.inferred,
                "inferred_2024": old.inferred, "hit": item.hit.map(u8::from),
            })
        };
        let items: Value = current.items.iter().zip(&old.items).map(item).collect();
        Ok(json!({ "items": items, "scores": current.splits, "scores_2024": old.splits }))
    }

    fn yes_and_no(self, kind: YesNo, judge: Option<&mut dyn Judge>) -> Result<Value> {
        let found = yes_no::score(self.table, kind, self.predictions, judge)?;
        let item = |item: &yes_no::YesNoItem| {
            let seen = self.predictions.seen(&item.index);
            json!({
                "index": item.index, "prediction_seen": seen, "rule": Verdict::of(seen).name(),
                "extracted": item.verdict.name(), "hit": u8::from(item.hit),
            })
        };
        let items: Value = found.items.iter().map(item).collect();
        Ok(json!({ "items": items, "scores": found.splits }))
    }

    /// What the entries of the scores call themselves by, and everything.
    fn judged(self, kind: Judged, judge: &mut dyn Judge) -> Result<(&'static str, Value)> {
        Ok(match kind {
            Judged::MmVet => {
                let found = judged::mm_vet(self.table, judge)?;
                let item = |(index, score): &(String, f64)| json!({ "index": index, "score": score });
                let group = |groups: &BTreeMap<String, (usize, f64)>| -> Value {
                    let entry = |(name, (total, percent)): (&String, &(usize, f64))| {
                        (name.clone(), json!({ "tot": total, "acc": percent }))
                    };
                    Value::Object(groups.iter().map(entry).collect())
                };
                let items: Value = found.items.iter().map(item).collect();
                let (scores, combined) = (group(&found.capabilities), group(&found.combinations));
                ("Category", json!({ "items": items, "scores": scores, "scores_by_combination": combined }))
            }
            Judged::LlavaBench => {
                let (items, scores) = judged::llava_bench(self.table, judge)?;
                let item = |(index, [reference, model]): &(String, [f64; 2])| json!({ "index": index, "reference_score": reference, "score": model });
                let split = |(name, scores): (&String, &judged::BenchScores)| {
                    let judged::BenchScores { relative, reference, model } = scores;
                    let named = json!({
                        "Relative Score (main)": relative, "VLM Score": model, "GPT4 Score": reference,
                    });
                    (name.clone(), named)
                };
                let items: Value = items.iter().map(item).collect();
                let scores = Value::Object(scores.iter().map(split).collect());
                ("split", json!({ "items": items, "scores": scores }))
            }
            Judged::MathVista => {
                let found = judged::math_vista(self.table, self.predictions, judge)?;
                let item = |item: &judged::MathItem| {
                    json!({
                        "index": item.index, "prefetched": item.prefetched, "extracted": item.extracted,
                        "hit": u8::from(item.hit),
                    })
                };
                let group = |(name, group): (&String, &judged::MathGroup)| {
                    let percent = |part: usize| part as f64 / group.total as f64 * 100.0;
                    let named = json!({
                        "tot": group.total, "prefetch": group.prefetched, "hit": group.hits,
                        "prefetch_rate": percent(group.prefetched), "acc": percent(group.hits),
                    });
                    (name.clone(), named)
                };
                let items: Value = found.items.iter().map(item).collect();
                let scores = Value::Object(found.groups.iter().map(group).collect());
                ("Task&Skill", json!({ "items": items, "scores": scores }))
            }
        })
    }
}
