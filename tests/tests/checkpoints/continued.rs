//! Conversions that are killed and started again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use burn::tensor::DType;
use tg_llava_core::quant::Scheme;
use tg_llava_core::weights::{ConvertEvent, Earlier, Encoding, MergeOptions, convert_checkpoint};

use super::converted::{change_first, options};
use super::*;

const PARTIAL: &str = ".partial-save";

/// Every file under a folder, with its bytes.
fn files_under(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn add(dir: &Path, below: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let (path, below) = (entry.path(), below.join(entry.file_name()));
            match path.is_dir() {
                true => add(&path, &below, all),
                false => drop(all.insert(below, std::fs::read(path).unwrap())),
            }
        }
    }
    let mut all = BTreeMap::new();
    add(dir, Path::new(""), &mut all);
    all
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files_under(from) {
        let place = to.join(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, bytes).unwrap();
    }
}

struct Conversion<'a> {
    from: PathBuf,
    options: MergeOptions<'a>,
    encoding: Encoding,
}

impl<'a> Conversion<'a> {
    fn new(device: &'a Device) -> Self {
        // Some shards, and in each some entries of the journal.
        let options = MergeOptions { max_shard_bytes: 100_000, ..options(device) };
        Self { from: fixture("models/vicuna-tiny"), options, encoding: Encoding::Nf4 }
    }

    /// Runs it into `out`; all that it told but how far it was.
    fn run(&self, out: &Path) -> Vec<Earlier> {
        let mut told = Vec::new();
        let mut take = |event| {
            if let ConvertEvent::Earlier(earlier) = event {
                told.push(earlier);
            }
        };
        convert_checkpoint(&self.from, out, &self.options, self.encoding, &mut take).unwrap();
        told
    }

    /// What it writes when nothing goes wrong.
    fn whole(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let out = tempfile::tempdir().unwrap();
        assert_eq!(self.run(out.path()), []);
        files_under(out.path())
    }

    /// Runs it into `out`, and stops it when `share` of it is written; whatever runs when a panic does.
    fn stop(&self, out: &Path, share: f64) {
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            let mut take = |event| {
                if let ConvertEvent::Written { bytes, total } = event {
                    assert!((bytes as f64) < share * total as f64, "stopped");
                }
            };
            convert_checkpoint(&self.from, out, &self.options, self.encoding, &mut take).map(drop)
        }));
        assert!(stopped.is_err() && out.join(PARTIAL).join(".journal").is_file());
    }
}

/// What is in the folder while a conversion runs is what a kill at that moment leaves.
#[test]
fn a_killed_conversion_goes_on_to_the_bytes_of_one_that_was_not() {
    let device = Device::flex();
    let base = fixture("models/vicuna-tiny");
    let plain = || Conversion::new(&device);
    let over = MergeOptions { base: Some(&base), ..plain().options };
    let floats = MergeOptions { dtype: Some(DType::BF16), ..plain().options };
    let one_file = MergeOptions { max_shard_bytes: 3_000_000, ..plain().options };
    let adapter = fixture("lora/vicuna-tiny/r4_split/final");
    for conversion in [
        plain(),
        Conversion { encoding: Encoding::Ggml(Scheme::Q8_0), ..plain() },
        Conversion { encoding: Encoding::Ggml(Scheme::Q4_0), options: one_file, ..plain() },
        Conversion { encoding: Encoding::Floats, options: floats, ..plain() },
        Conversion { from: adapter, options: over, encoding: Encoding::Floats },
    ] {
        let name = format!("{:?} of {}", conversion.encoding, conversion.from.display());
        let whole = conversion.whole();
        let (out, kills) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut count = 0;
        let mut take = |event| {
            let ConvertEvent::Written { .. } = event else { panic!("{name}: {event:?}") };
            count += 1;
            if count % 29 == 0 {
                copy(out.path(), &kills.path().join(count.to_string()));
            }
        };
        convert_checkpoint(&conversion.from, out.path(), &conversion.options, conversion.encoding, &mut take)
            .unwrap();
        assert_eq!(files_under(out.path()), whole, "{name}");
        let mut kept = 0;
        for killed in names(kills.path()) {
            let dir = kills.path().join(killed);
            assert!(load(&dir).is_err() && load(&dir.join(PARTIAL)).is_err(), "{name}");
            let told = conversion.run(&dir);
            kept += usize::from(matches!(told[..], [Earlier::Kept { .. }]));
            assert_eq!(files_under(&dir), whole, "{name}");
        }
        assert!(kept > 2, "{name}: {kept} of {count}");
    }
}

#[test]
fn what_is_written_stays_when_a_conversion_fails() {
    let device = Device::flex();
    let conversion = Conversion::new(&device);
    let out = tempfile::tempdir().unwrap();
    conversion.stop(out.path(), 0.4);
    conversion.stop(out.path(), 0.8);
    let [Earlier::Kept { bytes }] = conversion.run(out.path())[..] else { panic!("nothing was kept") };
    let whole = conversion.whole();
    let total: usize = whole
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "safetensors"))
        .map(|(_, bytes)| bytes.len())
        .sum();
    assert!(bytes as f64 > 0.6 * total as f64, "{bytes} of {total}");
    assert_eq!(files_under(out.path()), whole);
}

/// Its values were looked at by the start that was killed.
#[test]
fn what_is_not_finite_is_listed_by_the_start_that_goes_on_as_well() {
    let device = Device::flex();
    let from = tempfile::tempdir().unwrap();
    copy(&fixture("models/vicuna-tiny/base-llm"), from.path());
    // In the first file of the result, and in the last one.
    let damaged = ["lm_head.weight", "model.norm.weight"];
    damaged.iter().for_each(|key| change_first(from.path(), key, f32::NAN));
    let from = from.path().to_path_buf();
    let conversion = Conversion { from, encoding: Encoding::Floats, ..Conversion::new(&device) };
    let out = tempfile::tempdir().unwrap();
    conversion.stop(out.path(), 0.7);
    let stated = json_of(&out.path().join(PARTIAL).join(".journal"));
    assert_eq!(stated["not_finite"], serde_json::json!(damaged[..1]));
    let Conversion { from, options, encoding } = conversion;
    let mut kept = 0;
    let mut take = |event| {
        if let ConvertEvent::Earlier(Earlier::Kept { bytes }) = event {
            kept = bytes;
        }
    };
    let converted = convert_checkpoint(&from, out.path(), &options, encoding, &mut take).unwrap();
    assert!(kept > 0);
    assert_eq!(converted.not_finite, damaged);
}

#[test]
fn a_conversion_of_something_else_starts_anew_and_says_why() {
    let device = Device::flex();
    let from = tempfile::tempdir().unwrap();
    copy(&fixture("models/vicuna-tiny"), from.path());
    let conversion = || Conversion { from: from.path().to_path_buf(), ..Conversion::new(&device) };
    let config = from.path().join("config.json");
    type Change<'a> = Box<dyn Fn(&Path) -> Conversion<'a> + 'a>;
    let changes: [(&str, Change<'_>); 5] = [
        ("options", Box::new(|_| Conversion { encoding: Encoding::Int8, ..conversion() })),
        (
            "options",
            Box::new(|_| {
                let options = MergeOptions { dtype: Some(DType::F16), ..conversion().options };
                Conversion { options, ..conversion() }
            }),
        ),
        (
            "config.json",
            Box::new(|_| {
                let text = std::fs::read_to_string(&config).unwrap();
                std::fs::write(&config, text + "\n").unwrap();
                conversion()
            }),
        ),
        (
            "version 0.0.0",
            Box::new(|partial| {
                let journal = partial.join(".journal");
                let mut state = json_of(&journal);
                state["origin"]["version"] = "0.0.0".into();
                std::fs::write(journal, state.to_string()).unwrap();
                conversion()
            }),
        ),
        (
            "journal cannot be read",
            Box::new(|partial| {
                std::fs::write(partial.join(".journal"), "{").unwrap();
                conversion()
            }),
        ),
    ];
    for (what, change) in changes {
        let out = tempfile::tempdir().unwrap();
        conversion().stop(out.path(), 0.7);
        let changed = change(&out.path().join(PARTIAL));
        let told = changed.run(out.path());
        assert!(
            matches!(&told[..], [Earlier::Discarded { reason }] if reason.contains(what)),
            "{what}: {told:?}"
        );
        assert_eq!(files_under(out.path()), changed.whole(), "{what}");
    }
}

#[test]
fn a_file_that_is_not_what_was_flushed_is_written_again() {
    let device = Device::flex();
    let conversion = Conversion::new(&device);
    let whole = conversion.whole();
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[40] ^= 1,
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.extend([7; 100]),
    ];
    for damage in damages {
        let out = tempfile::tempdir().unwrap();
        conversion.stop(out.path(), 0.7);
        let partial = out.path().join(PARTIAL);
        for name in names(&partial).iter().filter(|name| name.ends_with(".safetensors")) {
            let mut bytes = std::fs::read(partial.join(name)).unwrap();
            damage(&mut bytes);
            std::fs::write(partial.join(name), bytes).unwrap();
        }
        // Of something that was there, and is not any more.
        std::fs::write(partial.join("vocab.json"), "{}").unwrap();
        conversion.run(out.path());
        assert_eq!(files_under(out.path()), whole);
    }
}

/// New files that were being moved to their places, which is no time to refuse the folder for what it holds.
#[test]
fn a_conversion_that_was_killed_at_its_end_is_finished() {
    let device = Device::flex();
    let conversion = Conversion::new(&device);
    let whole = conversion.whole();
    let half_moved = || {
        let (out, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        conversion.stop(stopped.path(), 1.0);
        let partial = out.path().join(PARTIAL);
        for (path, bytes) in &whole {
            let moved = path.ends_with("model-00001-of-00007.safetensors") || path.ends_with("README.md");
            let place = if moved { out.path() } else { &partial }.join(path);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, bytes).unwrap();
        }
        std::fs::copy(stopped.path().join(PARTIAL).join(".journal"), partial.join(".journal")).unwrap();
        for mark in [".complete", ".moving"] {
            std::fs::write(partial.join(mark), "").unwrap();
        }
        out
    };
    let out = half_moved();
    assert!(matches!(conversion.run(out.path())[..], [Earlier::Kept { .. }]));
    assert_eq!(files_under(out.path()), whole);
    // Another one leaves it what it is: a whole model.
    let out = half_moved();
    let error =
        convert_checkpoint(&conversion.from, out.path(), &conversion.options, Encoding::Int8, &mut |_| {});
    let error = error.unwrap_err().to_string();
    assert!(error.contains("holds another model"), "{error}");
    assert_eq!(files_under(out.path()), whole);
}

#[test]
fn two_conversions_do_not_write_into_one_folder() {
    let device = Device::flex();
    let conversion = Conversion::new(&device);
    let out = tempfile::tempdir().unwrap();
    let mut second = None;
    let run = |told: &mut dyn FnMut(ConvertEvent)| {
        convert_checkpoint(&conversion.from, out.path(), &conversion.options, conversion.encoding, told)
    };
    run(&mut |_| second = second.take().or_else(|| Some(run(&mut |_| {}).unwrap_err().to_string()))).unwrap();
    let error = second.unwrap();
    assert!(error.contains("another process is writing into it"), "{error}");
    assert_eq!(files_under(out.path()), conversion.whole());
}
