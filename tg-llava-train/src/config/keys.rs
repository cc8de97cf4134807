//! The keys there are, and the one that a misspelt key was meant to be.

use super::llava_flags::flag_keys;

/// All keys that hold values, with their tables. `model.bridges` may be a value or a table.
const KEYS: [&str; 74] = [
    "stage",
    "seed",
    "output_dir",
    "model.path",
    "model.vision_tower",
    "model.text_tower",
    "model.bridges",
    "model.bridges.projector",
    "model.bridges.feature_guide",
    "model.bridges.detail_perceiver",
    "model.init",
    "model.init_std",
    "model.projector_type",
    "model.select_layer",
    "model.select_feature",
    "model.feature_guide",
    "model.detail_perceiver",
    "model.guide_turn",
    "model.guide_padding",
    "model.detail_source",
    "model.use_im_start_end",
    "model.dropout",
    "model.max_length",
    "model.template",
    "data.path",
    "data.image_folder",
    "data.aspect_ratio",
    "data.order",
    "data.on_bad_sample",
    "data.workers",
    "data.prefetch",
    "data.validation.path",
    "data.validation.fraction",
    "data.validation.every",
    "data.validation.samples",
    "data.validation.generate",
    "data.validation.max_new_tokens",
    "data.validation.batch_size",
    "train.vision_tower",
    "train.text_tower",
    "train.feature_guide",
    "train.detail_perceiver",
    "train.projector",
    "train.llm",
    "optim.lr",
    "optim.weight_decay",
    "optim.decay_rule",
    "optim.beta1",
    "optim.beta2",
    "optim.epsilon",
    "optim.max_grad_norm",
    "optim.schedule",
    "optim.warmup_ratio",
    "optim.warmup_steps",
    "optim.loss_mean",
    "optim.on_nan",
    "optim.loss_scale",
    "optim.lr_of.vision_tower",
    "optim.lr_of.text_tower",
    "optim.lr_of.feature_guide",
    "optim.lr_of.detail_perceiver",
    "optim.lr_of.projector",
    "optim.lr_of.llm",
    "run.batch_size",
    "run.accumulation",
    "run.epochs",
    "run.max_steps",
    "run.gradient_checkpointing",
    "run.loss_chunk",
    "run.save_steps",
    "run.save_total_limit",
    "run.log_every",
    "run.dtype",
    "run.max_shard_bytes",
];

/// All keys that hold values, with their tables, such as `optim.lr`.
pub fn known_keys() -> &'static [&'static str] {
    &KEYS
}

/// Whether `path` holds a value.
pub(super) fn is_key(path: &str) -> bool {
    KEYS.contains(&path)
}

/// Whether `path` may be a table.
pub(super) fn is_table(path: &str) -> bool {
    KEYS.iter().any(|key| is_under(key, path))
}

fn is_under(key: &str, table: &str) -> bool {
    table.is_empty() || key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
}

/// What to write instead of the unknown `path`: the nearest key, else the keys of the table that it stands in.
pub(super) fn hint(path: &str) -> String {
    let wanted = path.to_lowercase().replace('-', "_");
    let (_, last) = split(&wanted);
    let tolerated = match last.len() {
        0..=3 => 1.0,
        4..=8 => 2.0,
        len => (len / 3) as f64,
    };
    // Keys of the same table come first; then short cuts through the tables; then LLaVA's names.
    let direct = KEYS.iter().map(|key| (apart(&wanted, key) as f64, *key));
    let depth = |key: &str| key.matches('.').count() as f64;
    let elsewhere =
        KEYS.iter().map(|key| (apart(last, split(key).1) as f64 + 0.25 + 0.01 * depth(key), *key));
    let llava = flag_keys().map(|(flag, key)| (distance(last, flag) as f64 + 0.5, key));
    let nearest = direct.chain(elsewhere).chain(llava).min_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((apart, key)) if apart < tolerated + 1.0 => format!("did you mean `{key}`?"),
        _ => listing(path),
    }
}

/// The keys of the nearest table above `path`, for example "[run] has: batch_size, ...".
fn listing(path: &str) -> String {
    let mut table = split(path).0;
    while !is_table(table) {
        table = split(table).0;
    }
    let start = if table.is_empty() { 0 } else { table.len() + 1 };
    let mut names: Vec<&str> = Vec::new();
    for key in KEYS.iter().filter(|key| is_under(key, table)) {
        let name = key[start..].split('.').next().unwrap_or(key);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let names = names.join(", ");
    if table.is_empty() { format!("known: {names}") } else { format!("[{table}] has: {names}") }
}

/// The table and the name in it.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// How far a misspelt key is from a known one; the beginning of a name is near, in the same table.
fn apart(wanted: &str, key: &str) -> usize {
    let ((table, last), (known_table, name)) = (split(wanted), split(key));
    let begun = table == known_table && last.len() > 2 && name.len() > last.len() && name.starts_with(last);
    if begun { 1 } else { distance(wanted, key) }
}

/// Levenshtein distance in characters.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn misspelt_misplaced_and_foreign_names_lead_to_the_key() {
        for (wrong, right) in [
            ("optim.learning_rat", "optim.lr"),
            ("optim.learning_rate", "optim.lr"),
            ("learning_rate", "optim.lr"),
            ("optim.Weight-Decay", "optim.weight_decay"),
            ("optim.weigth_decay", "optim.weight_decay"),
            ("batch_size", "run.batch_size"),
            ("run.per_device_train_batch_size", "run.batch_size"),
            ("data.validation.batchsize", "data.validation.batch_size"),
            ("optim.lr_of.proj", "optim.lr_of.projector"),
            ("mm_projector_lr", "optim.lr_of.projector"),
            ("run.gradient_checkpoint", "run.gradient_checkpointing"),
            ("output", "output_dir"),
            ("train.lm", "train.llm"),
        ] {
            assert_eq!(hint(wrong), format!("did you mean `{right}`?"), "{wrong}");
        }
    }

    #[test]
    fn a_name_like_no_other_gets_the_keys_of_its_table() {
        assert_eq!(
            hint("train.everything_at_once"),
            "[train] has: vision_tower, text_tower, feature_guide, detail_perceiver, projector, llm"
        );
        assert_eq!(hint("zzzzzz"), "known: stage, seed, output_dir, model, data, train, optim, run");
        assert_eq!(hint("nowhere.zzzzzz"), "known: stage, seed, output_dir, model, data, train, optim, run");
    }

    proptest! {
        #[test]
        fn the_distance_is_a_metric(a in "[a-c]{0,6}", b in "[a-c]{0,6}", c in "[a-c]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert!(distance(&a, &c) <= distance(&a, &b) + distance(&b, &c));
        }
    }
}
