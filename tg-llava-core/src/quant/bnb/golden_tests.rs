//! Bytes and values of the library itself.

use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::codes::DYNAMIC;
use super::*;

/// Calls `check` with each golden file: the one of this repository, and the one beside it where it is there.
fn for_each_golden_file(check: impl Fn(&SafeTensors<'_>)) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    check(
        &SafeTensors::deserialize(
            &std::fs::read(here.join("../tests/fixtures/quant/bnb.safetensors")).unwrap(),
        )
        .unwrap(),
    );
    match std::fs::read(here.join("../../shared/fixtures/quant/bnb.safetensors")) {
        Ok(bytes) => check(&SafeTensors::deserialize(&bytes).unwrap()),
        Err(_) => eprintln!("no golden data beside the repository: those in it are compared alone"),
    }
}

fn floats(file: &SafeTensors<'_>, key: &str) -> Vec<f32> {
    let tensor = file.tensor(key).unwrap();
    let halves = || tensor.data().chunks_exact(2).map(|raw| u16::from_le_bytes([raw[0], raw[1]]));
    match tensor.dtype() {
        Dtype::F32 => {
            tensor.data().chunks_exact(4).map(|raw| f32::from_le_bytes(raw.try_into().unwrap())).collect()
        }
        Dtype::F16 => halves().map(|bits| f16::from_bits(bits).to_f32()).collect(),
        Dtype::BF16 => halves().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        other => panic!("{key} is {other:?}"),
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A 4-bit tensor of the file, from the keys under `weight`.
fn stored(file: &SafeTensors<'_>, weight: &str, kind: FourBitKind) -> FourBit {
    let raw = |key: String| file.tensor(&key).unwrap().data().to_vec();
    let state =
        QuantState::parse(&raw(format!("{weight}.quant_state.bitsandbytes__{}", kind.name()))).unwrap();
    let map: [f32; 16] = floats(file, &format!("{weight}.quant_map")).try_into().unwrap();
    assert_eq!(bits(&map), bits(&kind.map()), "{weight}");
    let absmax = match &state.nested {
        None => Absmax::Single(floats(file, &format!("{weight}.absmax"))),
        Some(nested) => Absmax::Double(NestedAbsmax {
            codes: raw(format!("{weight}.absmax")),
            absmax: floats(file, &format!("{weight}.nested_absmax")),
            map: floats(file, &format!("{weight}.nested_quant_map")).into_boxed_slice().try_into().unwrap(),
            blocksize: nested.blocksize,
            offset: nested.offset as f32,
        }),
    };
    FourBit::new(state, raw(weight.to_owned()), absmax, map).unwrap()
}

/// The 4-bit tensors of a golden file: base of the keys and kind.
fn four_bit_cases(file: &SafeTensors<'_>) -> Vec<(String, FourBitKind)> {
    let names = file.names().into_iter();
    let bases: Vec<_> =
        names.filter_map(|name| name.strip_suffix(".dequantised_f32").map(str::to_owned)).collect();
    let kind = |base: &str| match base.split('.').nth(2).unwrap() {
        "nf4" => FourBitKind::Nf4,
        "fp4" => FourBitKind::Fp4,
        other => panic!("{base}: {other}"),
    };
    bases.into_iter().map(|base| (base.clone(), kind(&base))).collect()
}

#[test]
fn four_bits_are_dequantised_to_the_bit() {
    for_each_golden_file(|file| {
        let cases = four_bit_cases(file);
        assert!(!cases.is_empty());
        for (base, kind) in cases {
            let tensor = stored(file, &format!("{base}.weight"), kind);
            let mut values = vec![f32::NAN; tensor.state().num_elements()];
            tensor.dequantise(0, &mut values);
            assert_eq!(bits(&values), bits(&floats(file, &format!("{base}.dequantised_f32"))), "{base}");
            let rounded: Vec<f32> = match tensor.state().dtype.as_str() {
                "float32" => values,
                "float16" => values.iter().map(|value| f16::from_f32(*value).to_f32()).collect(),
                "bfloat16" => values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect(),
                other => panic!("{base}: {other}"),
            };
            assert_eq!(bits(&rounded), bits(&floats(file, &format!("{base}.dequantised"))), "{base}");
        }
    });
}

#[test]
fn nf4_is_quantised_to_the_bytes_of_the_library() {
    for_each_golden_file(|file| {
        for (base, kind) in four_bit_cases(file) {
            if kind != FourBitKind::Nf4 {
                continue;
            }
            let golden = stored(file, &format!("{base}.weight"), kind);
            let matrix: Vec<&str> = base.split('.').take(2).collect();
            let values = floats(file, &format!("{}.input", matrix.join(".")));
            let storage = match golden.absmax() {
                Absmax::Single(_) => AbsmaxStorage::Single,
                Absmax::Double(_) => AbsmaxStorage::Double,
            };
            let state = golden.state();
            let ours = FourBit::quantise_nf4(&values, &state.shape, &state.dtype, storage);
            assert_eq!(ours, golden, "{base}");
            assert_eq!(QuantState::parse(&ours.state().to_json()).unwrap(), *state, "{base}");
        }
    });
}

#[test]
fn codes_of_eight_bits_stand_for_the_values_of_the_library() {
    for_each_golden_file(|file| assert_eq!(bits(&floats(file, "nested_quant_map")), bits(&DYNAMIC[..])));
}

#[test]
fn int8_is_quantised_and_dequantised_to_the_bit() {
    for_each_golden_file(|file| {
        let weight = file.tensor("int8.weight").unwrap();
        let codes: Vec<i8> = weight.data().iter().map(|byte| *byte as i8).collect();
        let golden = Int8Rows::new(weight.shape()[1], codes, floats(file, "int8.SCB")).unwrap();
        assert_eq!(Int8Rows::quantise(&floats(file, "int8.weight_f32"), weight.shape()[1]), golden);
        let mut values = vec![f32::NAN; golden.codes().len()];
        golden.dequantise(0, &mut values);
        assert_eq!(bits(&values), bits(&floats(file, "int8.dequantised")));
    });
}
