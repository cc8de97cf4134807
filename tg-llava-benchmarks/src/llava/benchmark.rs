//! The benchmarks that LLaVA's scripts know.

use super::mmbench::Language;

/// A benchmark, and so how its answers are scored or submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of benchmarks")]
pub enum Benchmark {
    Pope,
    Mme,
    TextVqa,
    Gqa,
    VizWiz,
    VqaV2,
    ScienceQa,
    Seed,
    MmBench(Language),
    MmVet,
    LlavaBench,
}

impl Benchmark {
    /// What users call them.
    pub const CALLED: [&str; 11] = [
        "POPE",
        "MME",
        "TextVQA",
        "GQA",
        "VizWiz",
        "VQAv2",
        "ScienceQA",
        "SEED",
        "MMBench",
        "MM-Vet",
        "LLaVA-Bench",
    ];

    /// What names of files and data sets have in them, without `-` and `_`. The first that is found counts.
    const NAMES: [(&str, Self); 15] = [
        ("mmbench", Self::MmBench(Language::English)),
        ("mmvet", Self::MmVet),
        ("llavabench", Self::LlavaBench),
        ("textvqa", Self::TextVqa),
        ("vizwiz", Self::VizWiz),
        ("vqav2", Self::VqaV2),
        ("gqa", Self::Gqa),
        ("pope", Self::Pope),
        ("scienceqa", Self::ScienceQa),
        ("sqa", Self::ScienceQa),
        // `llava_test_CQM-A.json`
        ("cqma", Self::ScienceQa),
        ("seed", Self::Seed),
        ("llavamme", Self::Mme),
        ("mmetest", Self::Mme),
        ("mmebenchmark", Self::Mme),
    ];

    /// The benchmark that a name or a file is of; `None` for an unknown one.
    pub fn of(name: &str) -> Option<Self> {
        let lower = name.to_lowercase();
        let plain = lower.replace(['-', '_', ' '], "");
        let known =
            Self::NAMES.iter().find(|(known, _)| plain.contains(known)).map(|&(_, benchmark)| benchmark);
        match known.or((plain == "mme").then_some(Self::Mme))? {
            Self::MmBench(_) if lower.split(['_', '-']).any(|part| part == "cn") => {
                Some(Self::MmBench(Language::Chinese))
            }
            benchmark => Some(benchmark),
        }
    }

    /// Longest answer in tokens: that of the script that asks.
    pub fn max_new_tokens(self) -> usize {
        match self {
            Self::Pope | Self::Mme | Self::TextVqa | Self::Gqa | Self::VizWiz | Self::VqaV2 | Self::Seed => {
                128
            }
            Self::ScienceQa | Self::MmBench(_) | Self::MmVet | Self::LlavaBench => 1024,
        }
    }

    /// Whether a question without an answer counts as an empty or a wrong one; elsewhere the scripts fail.
    pub(super) fn allows_gaps(self) -> bool {
        matches!(self, Self::ScienceQa | Self::Seed | Self::VqaV2 | Self::MmBench(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_data_sets_tell_their_benchmark() {
        for (name, benchmark) in [
            ("llava_pope_test", Some(Benchmark::Pope)),
            ("llava_mme", Some(Benchmark::Mme)),
            ("MME", Some(Benchmark::Mme)),
            ("llava_textvqa_val_v051_ocr", Some(Benchmark::TextVqa)),
            ("llava_gqa_testdev_balanced", Some(Benchmark::Gqa)),
            ("llava_vqav2_mscoco_test-dev2015", Some(Benchmark::VqaV2)),
            ("llava_test_CQM-A", Some(Benchmark::ScienceQa)),
            ("llava-seed-bench", Some(Benchmark::Seed)),
            ("SEEDBench_IMG", Some(Benchmark::Seed)),
            ("llava-mm-vet", Some(Benchmark::MmVet)),
            ("mmbench_dev_20230712", Some(Benchmark::MmBench(Language::English))),
            ("mmbench_dev_cn_20231003", Some(Benchmark::MmBench(Language::Chinese))),
            ("llava-bench-in-the-wild", Some(Benchmark::LlavaBench)),
            ("llava_test", None),
            ("comments", None),
        ] {
            assert_eq!(Benchmark::of(name), benchmark, "{name}");
        }
        for name in Benchmark::CALLED {
            assert!(Benchmark::of(name).is_some(), "{name}");
        }
    }
}
