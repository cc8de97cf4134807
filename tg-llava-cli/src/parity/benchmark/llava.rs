//! Recorded evaluations of LLaVA's scripts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use tg_llava_benchmarks::llava::{
    Annotations, Answer, Answers, Benchmark, Question, Questions, Scored, bench::Reviewed, choice, gqa,
    guide, mmbench, mme, prompt, read_lines, upload, vqa,
};
use tg_llava_benchmarks::report::{Item, Outcome, Report};
use tg_llava_benchmarks::score::short::ShortItem;
use tg_llava_benchmarks::table::Table;

use super::super::report::Row;
use super::compare::compare;
use super::replay::Replay;
use super::{Folder, ordered};

/// Compares `prompts.jsonl` and `expected.json` with what is made of the questions, the answers in `answers/` and the annotations.
///
/// # Errors
/// Where a file cannot be read or is not laid out as expected.
pub fn run(folder: &Folder<'_>, name: &str) -> Result<Vec<Row>> {
    let benchmark = Benchmark::of(name).with_context(|| format!("{name:?} is no benchmark that is known"))?;
    let prompts = if folder.has("prompts.jsonl") { Some(folder.lines("prompts.jsonl")?) } else { None };
    let questions = questions(folder, benchmark, prompts.as_ref().map(Vec::len))?;
    let mut rows = Vec::new();
    if let Some(golden) = prompts {
        let is_pictured = |question: &Question| question.image.is_some() || questions.table.is_some();
        let asked = |(n, question): (usize, &Question)| {
            let prompt = prompt(&question.text, is_pictured(question));
            json!({ "n": n, "prompt": prompt, "guide": guide(&question.text) })
        };
        let found: Vec<Value> = questions.all.iter().enumerate().map(asked).collect();
        rows.extend(ordered("prompts", &found, &golden, &["n", "prompt"]));
        rows.extend(ordered("guides", &found, &golden, &["guide"]));
    }
    let path = answers_in(&folder.dir.join("answers"))?.context("no answers in answers/")?;
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let answers = Answers::read(&text, &path.display().to_string())?;
    let annotations = Annotations::new(&[], &folder.dir.join("questions"));
    let scored = Scored::new(&questions, &answers, &annotations)?;
    let golden = folder.json("expected.json")?;
    let found = match benchmark {
        Benchmark::LlavaBench => {
            let (found, row) = reviews(folder, &scored, &golden)?;
            rows.push(row);
            found
        }
        _ => expected(benchmark, &scored)?,
    };
    // Requests to a judge have a row already.
    let names =
        golden.as_object().into_iter().flatten().map(|(name, _)| name).filter(|name| *name != "requests");
    rows.extend(names.map(|name| compare(name, &found[name], &golden[name])));
    Ok(rows)
}

/// The file of questions, which has as many as prompts were recorded.
fn questions(folder: &Folder<'_>, benchmark: Benchmark, count: Option<usize>) -> Result<Questions> {
    for path in sorted(folder.dir)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_asked = name == "questions.jsonl" || name.starts_with("llava") || name.ends_with(".tsv");
        if !is_asked || !path.is_file() {
            continue;
        }
        let questions = Questions::read(&folder.text(name)?, name, Some(benchmark))?;
        if count.is_none_or(|count| questions.all.len() == count) {
            return Ok(questions);
        }
    }
    anyhow::bail!("no file of questions, or none with as many as prompts.jsonl has prompts")
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

/// The answers in a folder or below it: `merge.jsonl`, which scripts make of their parts, or the first file of JSON lines.
fn answers_in(dir: &Path) -> Result<Option<PathBuf>> {
    let mut found = None;
    for path in sorted(dir)? {
        let file = if path.is_dir() { answers_in(&path)? } else { Some(path) };
        let Some(file) = file.filter(|path| path.extension().is_some_and(|kind| kind == "jsonl")) else {
            continue;
        };
        if file.ends_with("merge.jsonl") {
            return Ok(Some(file));
        }
        found.get_or_insert(file);
    }
    Ok(found)
}

/// Scores, verdicts and uploads, laid out as recorded.
fn expected(benchmark: Benchmark, scored: &Scored<'_>) -> Result<Value> {
    Ok(match benchmark {
        Benchmark::Pope => {
            let Report { items, splits } = report(scored)?;
            let item = |(item, answer): (&Item, &Answer)| json!({ "question_id": item.index, "text": answer.text, "read_as": item.read });
            json!({ "scores": splits, "items": items.iter().zip(scored.answers.iter().copied()).map(item).collect::<Value>() })
        }
        Benchmark::Mme => {
            let groups = report(scored)?.splits.into_iter().map(|(name, mut scores)| {
                let total = scores.remove("total");
                (name, json!({ "total": total, "tasks": scores }))
            });
            let item = |line: &mme::Line| {
                json!({
                    "task": line.task, "file": line.file, "question": line.question, "answer": line.answer,
                    "prediction": line.prediction, "read_as": mme::says(&line.prediction),
                })
            };
            let scores: Map<String, Value> = groups.collect();
            json!({ "scores": scores, "items": mme::lines(scored)?.iter().map(item).collect::<Value>() })
        }
        Benchmark::TextVqa => {
            let accuracy = report(scored)?.splits["none"]["accuracy"];
            let item = |(item, answer): (&ShortItem, &Answer)| {
                json!({
                    "question_id": item.index, "question": vqa::textvqa_question(&answer.prompt),
                    "prediction_normal": item.normal, "answers_normal": item.answers, "score": item.score,
                })
            };
            let items = vqa::textvqa(scored)?;
            let scores = json!({
                "samples": items.len(), "accuracy": accuracy,
                "accuracy_printed": format!("{:.2}%", 100.0 * accuracy),
            });
            json!({ "scores": scores, "items": items.iter().zip(scored.answers.iter().copied()).map(item).collect::<Value>() })
        }
        Benchmark::VizWiz => {
            let accuracy = report(scored)?.splits["none"]["accuracy"];
            let item = |item: &ShortItem| json!({ "image": item.index, "submitted": item.normal, "score": item.score });
            json!({
                "upload": uploaded(scored)?, "scores": { "accuracy": accuracy },
                "items": vqa::vizwiz(scored)?.iter().map(item).collect::<Value>(),
            })
        }
        Benchmark::VqaV2 => {
            let of = |form: fn(&str) -> String| -> Result<Value> {
                let found = vqa::vqav2(scored, form)?;
                let question = |(id, _, score): &(String, String, f64)| {
                    (id.clone(), json!((10_000.0 * score).round() / 100.0))
                };
                let questions: Map<String, Value> = found.items.iter().map(question).collect();
                Ok(json!({
                    "overall": found.overall, "perQuestionType": found.by_question, "perAnswerType": found.by_answer,
                    "perQuestion": questions,
                }))
            };
            json!({
                "upload": uploaded(scored)?, "score_of_upload": of(vqa::submitted)?, "score_of_raw": of(str::to_owned)?,
            })
        }
        Benchmark::Gqa => {
            let item = |line: &gqa::Line| {
                json!({
                    "question_id": line.id, "prediction": line.answer, "balanced": line.is_balanced,
                    "hit": u8::from(line.hit()),
                })
            };
            let scores = &report(scored)?.splits["none"];
            json!({ "scores": scores, "items": gqa::lines(scored)?.iter().map(item).collect::<Value>() })
        }
        Benchmark::ScienceQa => scienceqa(scored)?,
        Benchmark::Seed => {
            let scores = &report(scored)?.splits["none"];
            let printed = scores.iter().map(|(name, percent)| (name.clone(), json!(format!("{percent:.2}"))));
            json!({ "scores": printed.collect::<Map<_, _>>(), "upload": uploaded(scored)? })
        }
        Benchmark::MmBench(_) => {
            let table = scored.questions.table.as_ref().context("no table")?;
            json!({ "upload_columns": mmbench::upload_columns(table), "upload": mmbench_rows(table, scored) })
        }
        Benchmark::MmVet => json!({ "results": uploaded(scored)? }),
        Benchmark::LlavaBench => Value::Null,
    })
}

fn report(scored: &Scored<'_>) -> Result<Report> {
    match scored.score(None)? {
        Outcome::Scored(report) => Ok(report),
        other => anyhow::bail!("no scores: {other:?}"),
    }
}

/// The one file to upload: JSON, or a value a line.
fn uploaded(scored: &Scored<'_>) -> Result<Value> {
    let files = upload::files(scored)?;
    let file = files.first().context("nothing to upload")?;
    if file.name.ends_with(".jsonl") {
        return Ok(read_lines::<Value>(&file.text, &file.name)?.into_iter().collect());
    }
    Ok(serde_json::from_str(&file.text)?)
}

fn mmbench_rows(table: &Table, scored: &Scored<'_>) -> Value {
    let text = |row: usize| scored.of_questions[row].map_or("", |answer| answer.text.as_str());
    (0..table.len()).map(|row| mmbench::upload_row(table, row, text(row))).collect()
}

fn scienceqa(scored: &Scored<'_>) -> Result<Value> {
    let Report { items, splits } = report(scored)?;
    let (problems, scores) = (choice::problems(scored)?, &splits["none"]);
    let pictured = |id: &str| {
        let answer = scored.answers.iter().find(|answer| answer.question_id.to_string() == id);
        answer.is_some_and(|answer| answer.prompt.contains("<image>"))
    };
    let item = |item: &Item| {
        let letter = item.read.as_deref().and_then(|read| read.chars().next());
        let choices = problems.get(&item.index).map_or(0, |problem| problem.choices.len());
        let number = letter.and_then(|letter| choice::number(letter, choices));
        json!({
            "question_id": item.index, "parsed": item.read.as_deref().unwrap_or("FAILED"),
            "choice": number.map_or(-1, |number| number as i64), "multimodal": pictured(&item.index), "hit": item.score,
        })
    };
    let printed = |name: &str| scores.get(name).map(|percent| format!("{percent:.2}"));
    let scores = json!({
        "total": scores["total"], "correct": scores["correct"], "accuracy": scores["accuracy"],
        "accuracy_printed": printed("accuracy"), "img_accuracy_printed": printed("img_accuracy"),
    });
    Ok(json!({ "scores": scores, "items": items.iter().map(item).collect::<Value>() }))
}

/// LLaVA-Bench: what a judge is asked and said, and what that comes to.
fn reviews(folder: &Folder<'_>, scored: &Scored<'_>, golden: &Value) -> Result<(Value, Row)> {
    let replies = folder.json("judge_replies.json")?;
    let replies = replies.as_array().context("judge_replies.json: no list")?;
    let requests = golden["requests"].as_array().context("expected.json: no `requests`")?;
    let recorded = |(request, reply): (&Value, &Value)| {
        let mut recorded = request.clone();
        recorded["prompt"] = request["user"].clone();
        recorded["reply"] = reply.clone();
        recorded
    };
    let recorded: Vec<Value> = requests.iter().zip(replies).map(recorded).collect();
    let rows = Reviewed::new(scored)?;
    let names = ["prediction", "gpt4_ans", "question", "caption"];
    let mut judge = Replay::new(recorded.clone(), &rows, &names);
    let pairs = rows.pairs(&mut judge);
    let compared = judge.finish();
    let splits = rows.score(&mut Replay::new(recorded, &rows, &names)).splits;
    let review = |(review, pair): (&tg_llava_benchmarks::llava::bench::Review, &[f64; 2])| json!({ "question_id": review.id, "category": review.category, "tuple": pair });
    let reviews: Value = rows.reviews().iter().zip(&pairs).map(review).collect();
    Ok((json!({ "scores": splits, "reviews": reviews }), compared))
}
