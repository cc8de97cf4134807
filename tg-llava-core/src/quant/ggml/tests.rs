//! Against the bytes and numbers of ggml's scalar code in `tests/fixtures/quant`.

use std::path::Path;

use safetensors::SafeTensors;

use super::*;

fn golden() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/quant/ggml.safetensors");
    std::fs::read(path).expect("golden file")
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).expect(name);
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn key(format: GgmlType) -> String {
    format.name().replace('Q', "q")
}

/// Formats with blocks, each with the name of its golden tensors and of its input.
fn cases() -> impl Iterator<Item = (GgmlType, String, &'static str)> {
    let plain = GgmlType::ALL.into_iter().filter(|format| !format.is_float()).map(|format| {
        let input = if format.block_values() == 256 { "x256" } else { "x32" };
        (format, key(format), input)
    });
    let odd = [GgmlType::Q4_0, GgmlType::Q8_0].map(|format| (format, format!("odd.{}", key(format)), "odd"));
    plain.chain(odd)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn bytes_mean_the_golden_values_to_the_bit() {
    let file = golden();
    let file = SafeTensors::deserialize(&file).expect("safetensors");
    for (format, name, _) in cases() {
        let bytes = file.tensor(&format!("{name}.bytes")).expect("bytes");
        let wanted = floats(&file, &format!("{name}.dequantised"));
        let mut values = vec![0.0; wanted.len()];
        dequantise(format, bytes.data(), wanted.len() / bytes.shape()[0], &mut values);
        assert_eq!(bits(&values), bits(&wanted), "{name}");
    }
}

#[test]
fn values_become_the_golden_bytes() {
    let file = golden();
    let file = SafeTensors::deserialize(&file).expect("safetensors");
    for (format, name, input) in cases() {
        let bytes = file.tensor(&format!("{name}.bytes")).expect("bytes");
        let values = floats(&file, input);
        let quantised = quantise(format, &values, values.len() / bytes.shape()[0]);
        assert!(quantised == bytes.data(), "{name}");
    }
}

#[test]
fn activations_become_the_golden_integers() {
    let file = golden();
    let file = SafeTensors::deserialize(&file).expect("safetensors");
    let wanted: Vec<i8> = file.tensor("activations.q").expect("q").data().iter().map(|&b| b as i8).collect();
    let scales = floats(&file, "activations.scale");
    for (i, row) in floats(&file, "activations").chunks(512).enumerate() {
        let row = Int8Row::new(row);
        let quants: Vec<i8> = row.groups.iter().flat_map(|group| group.quants).collect();
        assert_eq!(quants, wanted[512 * i..512 * (i + 1)]);
        let found: Vec<f32> = row.groups.iter().map(|group| group.scale).collect();
        assert_eq!(found, scales[16 * i..16 * (i + 1)]);
    }
}

#[test]
fn products_with_integers_are_the_golden_ones() {
    let file = golden();
    let file = SafeTensors::deserialize(&file).expect("safetensors");
    let activations = floats(&file, "activations");
    for (format, name, input) in cases() {
        let bytes = file.tensor(&format!("{name}.bytes")).expect("bytes");
        let len = file.tensor(input).expect(input).shape()[1];
        let wanted = floats(&file, &format!("{name}.int8_product"));
        let scale = wanted.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        for (x, wanted) in activations.chunks(512).zip(wanted.chunks(bytes.shape()[0])) {
            let x = Int8Row::new(&x[..len]);
            for (row, wanted) in bytes.data().chunks(bytes.shape()[1]).zip(wanted) {
                let product = dot_int8(format, row, &x);
                assert!((product - wanted).abs() <= 1e-5 * scale, "{name}: {product} for {wanted}");
            }
        }
    }
}

#[test]
fn ids_and_sizes_are_those_of_gguf() {
    for format in GgmlType::ALL {
        assert_eq!(GgmlType::from_id(format.id()), Some(format));
    }
    assert_eq!(GgmlType::from_id(10), None, "Q2_K");
    assert_eq!(GgmlType::Q4_0.row_bytes(40), 36, "a short last block is a whole one");
    assert_eq!(GgmlType::Q6_K.row_bytes(512), 420);
    assert_eq!(GgmlType::BF16.row_bytes(3), 6);
}

#[test]
fn plain_floats_come_back() {
    let values = [1.0, -0.5, 3.25, 0.0, 65504.0, -1.5];
    for format in [GgmlType::F32, GgmlType::F16, GgmlType::BF16] {
        let bytes = quantise(format, &values, 3);
        assert_eq!(bytes.len(), 2 * format.row_bytes(3));
        let mut back = [0.0; 6];
        dequantise(format, &bytes, 3, &mut back);
        let exact = format != GgmlType::BF16;
        assert_eq!(back, if exact { values } else { [1.0, -0.5, 3.25, 0.0, 65536.0, -1.5] });
    }
}
