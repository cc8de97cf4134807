//! What is said before the first step and after the last.

use tg_llava_train::config::Component;
use tg_llava_train::run::{Session, Summary};

use super::shown;
use crate::console::{Console, print, print_json};
use crate::device::Opened;
use crate::failure::Failure;
use crate::progress::short_count;

/// How many samples that were left out are listed before the rest is counted.
const SHOWN: usize = 20;

/// What is about to happen.
pub(super) fn opening(session: &Session, opened: &Opened, console: &Console) {
    let config = session.config();
    let table = session.trainer().table();
    let ranks = session.trainer().world().size();
    let on = match ranks {
        1 => opened.spec.to_string(),
        _ => format!("{ranks} x {}", opened.spec.backend.name()),
    };
    console.note(format_args!(
        "{} samples, {} optimizer steps of {} x {}, on {on} in {}",
        session.data().len(),
        session.total_steps(),
        config.run.dealing(ranks).micro_batches,
        config.run.batch_size,
        opened.dtype.name()
    ));
    let parts: Vec<String> = Component::ALL
        .into_iter()
        .filter_map(|component| {
            let (_, learn) = table.counts(component);
            (learn > 0).then(|| format!("{} {}", component.name(), short_count(learn as u64)))
        })
        .collect();
    let (learn, all) = (short_count(table.trainable() as u64), short_count(table.total() as u64));
    console.note(format_args!("{learn} of {all} values learn: {}", parts.join(", ")));
}

/// What came of it.
pub(super) fn closing(summary: &Summary, console: &Console) -> Result<(), Failure> {
    for notice in summary.notices.iter().take(SHOWN) {
        console.warn(&notice.message);
    }
    let count = summary.notices.len();
    if count > SHOWN {
        console.warn(format_args!("... and {} more", count - SHOWN));
    }
    if console.json {
        let value = serde_json::json!({
            "steps": summary.steps,
            "total_steps": summary.total_steps,
            "loss": summary.loss,
            "evaluation": summary.evaluation,
            "best": summary.best,
            "saved": summary.saved,
            "interrupted": summary.interrupted,
            "left_out": count,
        });
        return print_json(&value, false);
    }
    let state = match summary.interrupted {
        true => "interrupted; the same command goes on",
        false => "done",
    };
    let mut text = format!("{state} after step {} of {}", summary.steps, summary.total_steps);
    if let Some(exact) = summary.evaluation.as_ref().and_then(|e| e.exact_match) {
        text += &format!(", {:.2} % of the validation answers right", 100.0 * exact);
    }
    if count > 0 {
        text += &format!(", {count} samples left out or without anything to learn");
    }
    print(&format!("{text}; saved in {}\n", shown(&summary.saved)))
}
