//! Quantised formats by themselves: what bytes mean, and what values become, in `ggml.safetensors` and `bnb.safetensors`.

use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::{DType, Device, Tensor, TensorData, bf16, f16};
use tg_llava_core::nn::{BlockLinear, Matrix};
use tg_llava_core::quant::bnb::{
    Absmax, AbsmaxStorage, DYNAMIC, FourBit, FourBitKind, Int8Rows, NestedAbsmax, QuantState,
};
use tg_llava_core::quant::ggml::{GgmlType, Int8Row, dequantise, dot_int8, quantise};
use tg_llava_core::quant::{GgmlMatrix, PackedMatrix, QuantMatrix};

use super::golden::{Array, Golden, Group, to_host};
use super::report::Row;

const GGML: &str = "ggml.safetensors";
const BITSANDBYTES: &str = "bnb.safetensors";

/// In units of the largest product, as the fixtures state it.
const PRODUCT: f64 = 1e-5;

/// In units of the largest value: a GPU may multiply and add in one rounding.
const VALUE: f64 = 1e-6;

/// What LLM.int8 does with activations.
const OF_ACTIVATIONS: [&str; 8] = [
    "int8.x",
    "int8.x_int8",
    "int8.x_scale",
    "int8.x_int8_without_outliers",
    "int8.x_scale_without_outliers",
    "int8.outlier_columns",
    "int8.product",
    "int8.product_with_outliers",
];

/// Whether `dir` holds recordings of formats.
pub(super) fn is_codecs(dir: &Path) -> bool {
    [GGML, BITSANDBYTES].into_iter().any(|file| dir.join(file).is_file())
}

/// Compares all that the files hold, and what `device` makes of it where it holds matrices in blocks.
pub(super) fn run(dir: &Path, device: &Device) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (file, compare) in [(GGML, ggml as fn(&Golden, &Device) -> _), (BITSANDBYTES, bitsandbytes)] {
        if dir.join(file).is_file() {
            let golden = Golden::read(&dir.join(file))?;
            let found: Vec<Row> = compare(&golden, device).context(file)?;
            rows.extend(found);
            let mut all = Group::new(format!("{file}: all tensors compared"), 0.0);
            all.equal("left out", &golden.unseen(), &Vec::new());
            rows.extend(all.row());
        }
    }
    Ok(rows)
}

fn floats<'a>(golden: &'a Golden, name: &str) -> anyhow::Result<&'a Array<f32>> {
    golden.float(name).with_context(|| format!("{name} is missing"))
}

fn bytes(golden: &Golden, name: &str) -> anyhow::Result<Vec<u8>> {
    let array = golden.int(name).with_context(|| format!("{name} is missing"))?;
    Ok(array.values.iter().map(|value| *value as u8).collect())
}

/// Compares bits: a zero has a sign.
fn exact(group: &mut Group, name: &str, ours: &[f32], golden: &Array<f32>) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let same = bits(ours) == bits(&golden.values);
    let ours = Array { shape: golden.shape.clone(), values: ours.to_vec() };
    group.floats(name, &ours, golden);
    group.equal(&format!("{name}, every bit"), &same, &true);
}

/// Blocks in a file.
struct Stored<'a> {
    base: String,
    format: GgmlType,
    /// What they were made of.
    input: &'a Array<f32>,
    /// Rows and values of a row.
    shape: [usize; 2],
    bytes: Vec<u8>,
}

fn stored(golden: &Golden, base: String) -> anyhow::Result<Stored<'_>> {
    let name = base.rsplit('.').next().unwrap_or(&base);
    let format = GgmlType::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name));
    let format = format.with_context(|| format!("{base}: no known format"))?;
    let input = match (base.starts_with("odd."), format.block_values()) {
        (true, _) => "odd",
        (false, 256) => "x256",
        (false, _) => "x32",
    };
    let input = floats(golden, input)?;
    let [rows, width] = input.shape[..] else { bail!("what {base} was made of is no matrix") };
    let bytes = bytes(golden, &format!("{base}.bytes"))?;
    Ok(Stored { base, format, input, shape: [rows, width], bytes })
}

fn ggml(golden: &Golden, device: &Device) -> anyhow::Result<Vec<Row>> {
    let mut meaning = Group::new("blocks to values", 0.0);
    let mut blocks = Group::new("values to blocks", 0.0);
    let mut products = Group::new("products with integers", PRODUCT);
    let mut packed = PackedMatrix::may_lie_on(device).then(Packed::new);
    let x = floats(golden, "activations")?;
    for base in bases(golden, ".bytes") {
        let stored = stored(golden, base)?;
        let Stored { base, format, input, shape: [rows, width], bytes } = &stored;
        let mut ours = vec![f32::NAN; input.values.len()];
        dequantise(*format, bytes, *width, &mut ours);
        let values = floats(golden, &format!("{base}.dequantised"))?;
        exact(&mut meaning, base, &ours, values);
        blocks.equal(base, &(quantise(*format, &input.values, *width) == *bytes), &true);
        let expected = floats(golden, &format!("{base}.int8_product"))?;
        let mut ours = Vec::new();
        for x in x.rows() {
            let x = Int8Row::new(&x[..*width]);
            ours.extend(bytes.chunks(bytes.len() / rows).map(|row| dot_int8(*format, row, &x)));
        }
        products.floats(base, &Array { shape: expected.shape.clone(), values: ours }, expected);
        if let Some(packed) = &mut packed {
            packed.compare(&stored, values, x, device)?;
        }
    }
    let mut activations = Group::new("activations to integers", 0.0);
    let rows: Vec<Int8Row> = x.rows().iter().map(|row| Int8Row::new(row)).collect();
    let groups = || rows.iter().flat_map(|row| &row.groups);
    let quants: Vec<u8> = groups().flat_map(|group| group.quants.map(|q| q as u8)).collect();
    activations.equal("activations.q", &(quants == bytes(golden, "activations.q")?), &true);
    let scales: Vec<f32> = groups().map(|group| group.scale).collect();
    exact(&mut activations, "activations.scale", &scales, floats(golden, "activations.scale")?);
    let packed = packed.into_iter().flat_map(|packed| [packed.values, packed.few, packed.many]);
    let groups = [meaning, blocks, products, activations].into_iter().chain(packed);
    Ok(groups.filter_map(Group::row).collect())
}

/// Matrices in the memory of a GPU, in f32.
struct Packed {
    values: Group,
    few: Group,
    many: Group,
}

impl Packed {
    fn new() -> Self {
        Self {
            values: Group::new("blocks on the device to values", VALUE),
            few: Group::new("products of few rows on the device", PRODUCT),
            many: Group::new("products of many rows on the device", PRODUCT),
        }
    }

    /// A matrix whose values are known, by itself and multiplied with rows of `x`.
    fn compare(
        &mut self,
        stored: &Stored<'_>,
        values: &Array<f32>,
        x: &Array<f32>,
        device: &Device,
    ) -> anyhow::Result<()> {
        let Stored { base, format, shape: [rows, width], bytes, .. } = stored;
        let matrix = QuantMatrix::from(GgmlMatrix::new(*format, stored.shape, bytes.clone())?).beside(device);
        let placed = matches!(matrix, QuantMatrix::Packed(_));
        self.values.equal(&format!("{base} is there"), &placed, &true);
        let mut ours = vec![f32::NAN; rows * width];
        matrix.dequantise_rows(0..*rows, &mut ours);
        self.values.floats(base, &Array { shape: values.shape.clone(), values: ours }, values);
        let layer = BlockLinear { weight: Matrix::Quantised(matrix), bias: None, lora: None };
        for count in [1, 4, 7, 40] {
            let group = if count > 16 { &mut self.many } else { &mut self.few };
            let x: Vec<f32> =
                x.rows().iter().cycle().take(count).flat_map(|x| &x[..*width]).copied().collect();
            let product = |x: &[f32], row: &[f32]| -> f64 {
                x.iter().zip(row).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
            };
            let expected = x
                .chunks(*width)
                .flat_map(|x| values.values.chunks(*width).map(move |row| product(x, row) as f32));
            let expected = Array { shape: vec![count, *rows], values: expected.collect() };
            let x = Tensor::<2>::from_data(TensorData::new(x, [count, *width]), (device, DType::F32));
            group.floats(&format!("{base}, {count} rows"), &to_host(layer.forward(x))?, &expected);
        }
        Ok(())
    }
}

/// What names of tensors begin with that end in `suffix`.
fn bases(golden: &Golden, suffix: &str) -> Vec<String> {
    golden.names().filter_map(|name| name.strip_suffix(suffix).map(str::to_owned)).collect()
}

fn bitsandbytes(golden: &Golden, _: &Device) -> anyhow::Result<Vec<Row>> {
    let mut meaning = Group::new("four bits to values", 0.0);
    let mut quantised = Group::new("values to NF4", 0.0);
    for base in bases(golden, ".dequantised_f32") {
        let parts: Vec<&str> = base.split('.').collect();
        let kinds = [FourBitKind::Nf4, FourBitKind::Fp4];
        let kind = kinds.into_iter().find(|kind| parts.contains(&kind.name()));
        let kind = kind.with_context(|| format!("{base}: no known format"))?;
        let tensor = four_bit(golden, &format!("{base}.weight"), kind)?;
        let mut ours = vec![f32::NAN; tensor.state().num_elements()];
        tensor.dequantise(0, &mut ours);
        exact(&mut meaning, &base, &ours, floats(golden, &format!("{base}.dequantised_f32"))?);
        let round: fn(f32) -> f32 = match tensor.state().dtype.as_str() {
            "float16" => |value| f16::from_f32(value).to_f32(),
            "bfloat16" => |value| bf16::from_f32(value).to_f32(),
            _ => |value| value,
        };
        let ours: Vec<f32> = ours.into_iter().map(round).collect();
        let name = format!("{base}.dequantised");
        exact(&mut meaning, &name, &ours, floats(golden, &name)?);
        let input = floats(golden, &format!("{}.input", parts[..2].join(".")))?;
        if kind == FourBitKind::Nf4 {
            let storage = match tensor.absmax() {
                Absmax::Single(_) => AbsmaxStorage::Single,
                Absmax::Double(_) => AbsmaxStorage::Double,
            };
            let ours = FourBit::quantise_nf4(&input.values, &input.shape, &tensor.state().dtype, storage);
            quantised.equal(&base, &(ours == tensor), &true);
        }
    }
    let mut eight = Group::new("eight bits", 0.0);
    exact(&mut eight, "nested_quant_map", &DYNAMIC[..], floats(golden, "nested_quant_map")?);
    let weight = floats(golden, "int8.weight_f32")?;
    let [_, width] = weight.shape[..] else { bail!("int8.weight_f32 is no matrix") };
    let ours = Int8Rows::quantise(&weight.values, width);
    let codes: Vec<u8> = ours.codes().iter().map(|code| *code as u8).collect();
    eight.equal("int8.weight", &(codes == bytes(golden, "int8.weight")?), &true);
    eight.equal("int8.weight_format", &bytes(golden, "int8.weight_format")?, &vec![0]);
    exact(&mut eight, "int8.SCB", ours.scales(), floats(golden, "int8.SCB")?);
    let mut values = vec![f32::NAN; weight.values.len()];
    ours.dequantise(0, &mut values);
    exact(&mut eight, "int8.dequantised", &values, floats(golden, "int8.dequantised")?);
    let there = OF_ACTIVATIONS.iter().filter(|name| golden.names().any(|known| known == **name)).count();
    OF_ACTIVATIONS.iter().for_each(|name| golden.skip(name));
    let note = "LLM.int8 quantises activations as well; here such files are read as weights alone";
    let rows = [meaning, quantised, eight].into_iter().filter_map(Group::row);
    Ok(rows.chain([Row::by_design("LLM.int8's activations", there, note)]).collect())
}

/// A 4-bit tensor under `key` and what begins with it.
fn four_bit(golden: &Golden, key: &str, kind: FourBitKind) -> anyhow::Result<FourBit> {
    let state =
        QuantState::parse(&bytes(golden, &format!("{key}.quant_state.bitsandbytes__{}", kind.name()))?)?;
    let values =
        |part: &str| Ok::<_, anyhow::Error>(floats(golden, &format!("{key}.{part}"))?.values.clone());
    let map = values("quant_map")?;
    if map != kind.map() {
        bail!("{key}.quant_map is not that of {}", kind.name());
    }
    let absmax = match &state.nested {
        None => Absmax::Single(values("absmax")?),
        Some(nested) => Absmax::Double(NestedAbsmax {
            codes: bytes(golden, &format!("{key}.absmax"))?,
            absmax: values("nested_absmax")?,
            map: values("nested_quant_map")?.into_boxed_slice().try_into().ok().context("256 values")?,
            blocksize: nested.blocksize,
            offset: nested.offset as f32,
        }),
    };
    Ok(FourBit::new(state, bytes(golden, key)?, absmax, kind.map())?)
}
