//! Everything golden, on every CPU backend.

use burn::tensor::{DType, Device};
use tg_llava_cli::parity::{ParityOptions, report::Report, run};
use tg_llava_tests::fixture;

fn assert_passes(report: &Report, at_least: usize) {
    let rows = report.rows().count();
    assert!(report.failures() == 0, "{}", report.table());
    assert!(rows >= at_least, "only {rows} groups were compared:\n{}", report.table());
}

#[test]
fn everything_on_flex() {
    let report = run(&[fixture("")], &Device::flex(), &ParityOptions::default()).unwrap();
    assert_passes(&report, 500);
}

#[test]
fn forward_passes_in_half_precision() {
    let dirs = ["models", "rope-tiny", "siglip-tiny"].map(fixture);
    for dtype in [DType::F16, DType::BF16] {
        let only = ["forward", "batch"].map(str::to_owned).to_vec();
        let options = ParityOptions { dtype, only, ..ParityOptions::default() };
        assert_passes(&run(&dirs, &Device::flex(), &options).unwrap(), 50);
    }
}

#[test]
fn recorded_adapters_on_two_ranks() {
    let options = ParityOptions { ranks: 2, only: vec!["training".to_owned()], ..ParityOptions::default() };
    assert_passes(&run(&[fixture("lora/qwen2-tiny")], &Device::flex(), &options).unwrap(), 10);
}

#[test]
#[expect(deprecated, reason = "Burn will drop this backend; as long as it is there, our numbers hold on it")]
fn models_on_ndarray() {
    let dirs = ["models", "rope-tiny", "siglip-tiny"].map(fixture);
    let report = run(&dirs, &Device::ndarray(), &ParityOptions::default()).unwrap();
    assert_passes(&report, 250);
}

#[test]
fn recorded_runs_on_several_ranks() {
    let only = vec!["training".to_owned()];
    for (ranks, case) in [(2, "models/qwen2-tiny"), (4, "models/llama3-tiny")] {
        let options = ParityOptions { ranks, only: only.clone(), ..ParityOptions::default() };
        let report = run(&[fixture(case)], &Device::flex(), &options).unwrap();
        assert_passes(&report, 16);
    }
}

/// A comparison that cannot fail is none: one changed golden value must show.
#[test]
fn a_changed_value_fails() {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture("rope-tiny/none"), folder.path());
    let file = folder.path().join("golden.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 0x7f;
    std::fs::write(&file, bytes).unwrap();
    let dirs = [folder.path().to_path_buf()];
    let report = run(&dirs, &Device::flex(), &ParityOptions::default()).unwrap();
    assert!(report.failures() > 0, "{}", report.table());
}

#[test]
fn a_folder_without_golden_data_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let dirs = [folder.path().to_path_buf()];
    let error = run(&dirs, &Device::flex(), &ParityOptions::default()).unwrap_err();
    assert!(error.to_string().contains("nothing golden"), "{error}");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
