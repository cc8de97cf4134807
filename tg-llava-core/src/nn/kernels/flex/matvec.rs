use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::FlexTensor;
use half::bf16;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use tg_llava_x86::Tiles;

#[cfg(target_arch = "x86_64")]
use super::half::OnV4;
use super::half::{Number, Values};
#[cfg(target_arch = "x86_64")]
use super::pairs::{self, Pairs};
use super::reduce::{CHAINS, dots};
use super::{Wrapper, in_rows, product, recorded_linear, rows_of, tiled, zeros};
use crate::nn::RowsAlike;

/// Most rows of a text for which reading the matrix is the work. Beyond, a product in blocks is better.
const FEW_ROWS: usize = 4;

/// Most rows without a text that go together: an output head's, each the end of a text.
const MOST_ENDS: usize = 16;

/// `x W + bias`, of any of the float types, with sums in f32. Few rows, as in decoding: the matrix is read once, front to back, by
/// all threads. Many rows: a product in blocks. What counts are the rows of a text, of which there
/// may be any number.
///
/// # Shapes
/// - x: `[rows, d_input]` or `[.., rows of a text, d_input]`, output `[.., d_output]`
/// - weight: `[d_input, d_output]`, a transposed view of rows of `d_input` as files hold them
/// - bias: `[d_output]`
pub(crate) fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    let mut shape = x.dims();
    let [d_input, d_output] = weight.dims();
    let rows = shape[..D - 1].iter().product::<usize>();
    if rows == 0 || d_input == 0 || d_output == 0 || shape[D - 1] != d_input {
        return None;
    }
    if let Some(y) = recorded_linear::linear(x, weight, bias) {
        return Some(y);
    }
    let wrapper = Wrapper::of(x)?;
    let few = if D > 2 { shape[D - 2] <= FEW_ROWS } else { rows <= MOST_ENDS };
    let opened = columns_of(weight)?;
    if !few && opened.dtype() == DType::F32 && !has_wide_registers() {
        return Some(plain_product(x, weight, bias));
    }
    let weight = opened;
    let matrix = Matrix { values: Values::of(&weight)?, start: weight.layout().start_offset(), d_input };
    let bias = match bias {
        Some(bias) => Some(rows_of(bias)?),
        None => None,
    };
    let bias: Option<&[f32]> = bias.as_ref().map(|bias| bias.storage());
    shape[D - 1] = d_output;
    if let (false, Values::Bf16(columns), DType::BF16) = (few, matrix.values, wrapper.dtype) {
        let x = wrapper.strip(x.clone())?.to_contiguous();
        let x = &x.storage::<bf16>()[x.layout().start_offset()..][..rows * d_input];
        let columns = &columns[matrix.start..][..d_input * d_output];
        if let Some(values) = product_of_halves(x, columns, d_input, bias) {
            return Some(wrapper.rewrap(FlexTensor::from_data(TensorData::new(values, shape))));
        }
    }
    let x = in_rows(wrapper.strip(x.clone())?);
    let x: &[f32] = x.storage();

    let mut values = zeros(rows * d_output);
    let threads = rayon::current_num_threads();
    if few {
        let stretch = d_output.div_ceil(4 * threads).max(16);
        each_stretch(&mut values, d_output, stretch, |first, out| {
            run(out, first, x, matrix, bias);
        });
    } else {
        let stretch = product::stretch(d_output, threads);
        let right = product::Right::ByColumns(matrix);
        each_stretch(&mut values, d_output, stretch, |first, out| {
            let columns = product::Columns { out, first, x, d_input, d_output, right, bias };
            pulp::Arch::new().dispatch(columns);
        });
    }
    Some(wrapper.wrap(super::tensor(values, shape)))
}

/// The product of many rows, where the processor multiplies bf16 as it is.
fn product_of_halves(
    x: &[bf16],
    columns: &[bf16],
    d_input: usize,
    bias: Option<&[f32]>,
) -> Option<Vec<bf16>> {
    if let Some(tiles) = Tiles::detect() {
        return Some(tiled::multiply(tiles, x, columns, d_input, bias));
    }
    #[cfg(target_arch = "x86_64")]
    return pairs::multiply(Pairs::detect()?, x, columns, d_input, bias);
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// Whether [`product`] is as good as the backend's product of many rows in f32, and better where these are few dozens.
pub(super) fn has_wide_registers() -> bool {
    #[cfg(target_arch = "x86_64")]
    return pulp::x86::V4::try_new().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The backend's product of matrices; given more axes, it would copy the transposed weight each time.
fn plain_product<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Tensor<D> {
    let mut shape = x.dims();
    let [d_input, d_output] = weight.dims();
    let rows = shape[..D - 1].iter().product();
    let y = x.clone().reshape([rows, d_input]).matmul(weight.clone());
    shape[D - 1] = d_output;
    bias.map_or(y.clone(), |bias| y + bias.clone().unsqueeze()).reshape(shape)
}

/// Rows of a product with `weight` that [`linear`] computes to the bit as each alone would be: few, each value summed in vectors along
/// the input, or many, each value summed front to back, by [`product`] or by the backend's `gemm`.
pub(crate) fn rows_alike(weight: &Tensor<2>) -> Option<RowsAlike> {
    match columns_of(weight)?.dtype() {
        DType::F32 if !has_wide_registers() => Some(rows_alike_by_size(weight.dims())),
        _ => Some(RowsAlike { few: MOST_ENDS, many: FEW_ROWS + 1, piece: FEW_ROWS + 1 }),
    }
}

/// The same for a matrix of f32, `[d_input, d_output]`, of that layout.
pub(super) fn rows_alike_by_size([d_input, d_output]: [usize; 2]) -> RowsAlike {
    let many = many_rows(d_input, d_output).max(FEW_ROWS + 1);
    RowsAlike { few: MOST_ENDS, many, piece: many }
}

/// Rows from which on `gemm` adds up each value of a product front to back, whatever their number. It may add up products of so few
/// values in vectors along the input, and adds up those of so few rows and columns in stretches of the input of another length,
/// which shows where there is more than one stretch.
fn many_rows(d_input: usize, d_output: usize) -> usize {
    const FEW_VALUES: usize = 16 * 16;
    const ONE_BLOCK: usize = 64;
    const STRETCH: usize = 512;
    let by_values = FEW_VALUES / d_output.max(1) + 1;
    let by_stretches = if d_output <= ONE_BLOCK && d_input > STRETCH { ONE_BLOCK + 1 } else { 0 };
    by_values.max(by_stretches)
}

/// The matrix, where it is a transposed view of rows.
fn columns_of(weight: &Tensor<2>) -> Option<FlexTensor> {
    let d_input = weight.dims()[0];
    let weight = Wrapper::of(weight)?.strip(weight.clone())?;
    let strides = weight.layout().strides();
    (strides[0] == 1 && strides[1] == d_input as isize).then_some(weight)
}

/// Runs `task` on stretches of the columns of all rows, each with the number of its first column, in all threads where it is worth it.
pub(super) fn each_stretch<T: Send>(
    values: &mut [T],
    width: usize,
    stretch: usize,
    task: impl Fn(usize, &mut [&mut [T]]) + Sync + Send,
) {
    let rows = values.len() / width;
    let mut stretches: Vec<Vec<&mut [T]>> =
        (0..width.div_ceil(stretch)).map(|_| Vec::with_capacity(rows)).collect();
    for row in values.chunks_exact_mut(width) {
        stretches.iter_mut().zip(row.chunks_mut(stretch)).for_each(|(out, part)| out.push(part));
    }
    let task = |(index, mut out): (usize, Vec<&mut [T]>)| task(index * stretch, &mut out);
    match stretches.len() > 1 {
        true => stretches.into_par_iter().enumerate().for_each(task),
        false => stretches.into_iter().enumerate().for_each(task),
    }
}

/// A matrix of rows of `d_input`, each a column of the product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub values: Values<'a>,
    pub start: usize,
    pub d_input: usize,
}

/// Columns `first..` of a few rows.
struct Columns<'a, 'o, N> {
    out: &'a mut [&'o mut [f32]],
    first: usize,
    x: &'a [f32],
    /// Rows of `d_input`, each one of these columns.
    weights: &'a [N],
    d_input: usize,
    bias: Option<&'a [f32]>,
}

/// Columns `first..` of a few rows of `x`, whatever the weights are stored as.
fn run(out: &mut [&mut [f32]], first: usize, x: &[f32], matrix: Matrix<'_>, bias: Option<&[f32]>) {
    let d_input = matrix.d_input;
    let from = matrix.start + first * d_input;
    let stored = from..from + out[0].len() * d_input;
    let arch = pulp::Arch::new();
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V4::try_new() {
        match matrix.values {
            Values::F32(_) => {}
            Values::F16(values) => {
                let weights = &values[stored];
                return simd.vectorize(OnV4(simd, Columns { out, first, x, weights, d_input, bias }));
            }
            Values::Bf16(values) => {
                let weights = &values[stored];
                return simd.vectorize(OnV4(simd, Columns { out, first, x, weights, d_input, bias }));
            }
        }
    }
    if let Values::F32(values) = matrix.values {
        let weights = &values[stored];
        return arch.dispatch(Columns { out, first, x, weights, d_input, bias });
    }
    arch.dispatch(Widened { out, first, x, matrix, bias });
}

impl WithSimd for Columns<'_, '_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.compute(simd);
    }
}

#[cfg(target_arch = "x86_64")]
impl<N: Number<pulp::x86::V4>> pulp::NullaryFnOnce for OnV4<Columns<'_, '_, N>> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.1.compute(self.0);
    }
}

/// The same of values that become f32 in memory, a few columns at a time.
struct Widened<'a, 'o> {
    out: &'a mut [&'o mut [f32]],
    first: usize,
    x: &'a [f32],
    matrix: Matrix<'a>,
    bias: Option<&'a [f32]>,
}

impl WithSimd for Widened<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        /// As many as are multiplied at a time.
        const COLUMNS: usize = 12;
        let Self { out, first, x, matrix: Matrix { values, start, d_input }, bias } = self;
        let mut room = vec![0.0; COLUMNS * d_input];
        for column in (0..out[0].len()).step_by(COLUMNS) {
            let used = COLUMNS.min(out[0].len() - column);
            let mut out: Vec<&mut [f32]> =
                out.iter_mut().map(|row| &mut row[column..column + used]).collect();
            let first = first + column;
            let weights = values.read(start + first * d_input, used * d_input, &mut room);
            Columns { out: &mut out, first, x, weights, d_input, bias }.compute(simd);
        }
    }
}

impl<N> Columns<'_, '_, N> {
    #[inline(always)]
    fn compute<S: Simd>(mut self, simd: S)
    where
        N: Number<S>,
    {
        // As many sums at a time as there are registers for.
        match self.out.len() == 1 && S::REGISTER_COUNT >= 32 {
            true => self.side_by_side::<S, 4>(simd),
            false => self.side_by_side::<S, 3>(simd),
        }
    }

    /// `C` columns at a time, each in a part of the matrix that is read front to back.
    #[inline(always)]
    fn side_by_side<S: Simd, const C: usize>(&mut self, simd: S)
    where
        N: Number<S>,
    {
        let columns = self.out[0].len();
        let part = columns / C;
        for column in 0..part {
            self.block::<S, C>(simd, column, part);
        }
        for column in part * C..columns {
            self.block::<S, 1>(simd, column, 0);
        }
    }

    /// `C` columns of all rows, each `part` behind the one before.
    #[inline(always)]
    fn block<S: Simd, const C: usize>(&mut self, simd: S, column: usize, part: usize)
    where
        N: Number<S>,
    {
        let d_input = self.d_input;
        let mut weights = [self.weights; C];
        for (c, weights) in weights.iter_mut().enumerate() {
            *weights = &self.weights[(column + c * part) * d_input..][..d_input];
        }
        let rows = self.out.len();
        let mut row = 0;
        if C <= 3 && S::REGISTER_COUNT >= 32 {
            while row + 2 <= rows {
                let x = &self.x[row * d_input..(row + 2) * d_input];
                let (first, second) = x.split_at(d_input);
                let [first, second] = dots::<S, N, 2, C, CHAINS>(simd, [first, second], weights);
                self.put(row, column, part, first);
                self.put(row + 1, column, part, second);
                row += 2;
            }
        }
        while row < rows {
            let x = &self.x[row * d_input..(row + 1) * d_input];
            let [sums] = dots::<S, N, 1, C, CHAINS>(simd, [x], weights);
            self.put(row, column, part, sums);
            row += 1;
        }
    }

    #[inline(always)]
    fn put<const C: usize>(&mut self, row: usize, column: usize, part: usize, sums: [f32; C]) {
        for (c, sum) in sums.into_iter().enumerate() {
            let column = column + c * part;
            self.out[row][column] = sum + self.bias.map_or(0.0, |bias| bias[self.first + column]);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::super::tests::random;
    use super::*;
    use crate::nn::cast_to;

    const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

    #[test]
    fn equals_the_product() {
        for (rows, d_input, d_output) in [
            (1, 1, 1),
            (1, 576, 1536),
            (3, 67, 5),
            (4, 100, 1000),
            (16, 300, 70),
            (17, 700, 70),
            (50, 1100, 130),
        ] {
            for dtype in DTYPES {
                let x = cast_to(random([1, rows, d_input], 1), dtype);
                let weight = cast_to(random([d_output, d_input], 2), dtype).transpose();
                let bias = cast_to(random([d_output], 3), dtype);
                let wide = |x: Tensor<3>| cast_to(x, DType::F32);
                let product = wide(x.clone()).matmul(wide(weight.clone().unsqueeze()));
                let tolerance = match dtype {
                    DType::F32 => Tolerance::rel_abs(1e-5, 1e-2),
                    DType::F16 => Tolerance::rel_abs(1e-3, 1e-2),
                    _ => Tolerance::rel_abs(1e-2, 1e-2),
                };
                let fast = linear(&x, &weight, None).expect("flex");
                assert_eq!(fast.dtype(), dtype);
                wide(fast).into_data().assert_approx_eq::<f32>(&product.clone().into_data(), tolerance);
                let fast = linear(&x, &weight, Some(&bias)).expect("flex");
                let product = product + wide(bias.unsqueeze());
                wide(fast).into_data().assert_approx_eq::<f32>(&product.into_data(), tolerance);
            }
        }
    }

    #[test]
    fn processors_multiply_halves_as_floats() {
        for (rows, d_input, d_output) in [(5, 40, 3), (70, 1100, 130), (33, 9000, 200), (8, 4098, 64)] {
            let [x, weight] =
                [[rows, d_input], [d_output, d_input]].map(|shape| cast_to(random(shape, 1), DType::BF16));
            let bias: Vec<f32> = (0..d_output).map(|i| i as f32).collect();
            let [x_values, columns] =
                [&x, &weight].map(|x| x.to_data().try_into_vec::<bf16>().expect("values"));
            let [x, weight] = [x, weight].map(|x| cast_to(x, DType::F32));
            let expected = x.matmul(weight.transpose())
                + Tensor::<1>::from_floats(bias.as_slice(), &Device::flex()).unsqueeze();
            let mut found = Vec::new();
            found.extend(
                Tiles::detect()
                    .map(|tiles| tiled::multiply(tiles, &x_values, &columns, d_input, Some(&bias))),
            );
            #[cfg(target_arch = "x86_64")]
            found
                .extend(Pairs::detect().map(|it| {
                    pairs::multiply(it, &x_values, &columns, d_input, Some(&bias)).expect("pairs")
                }));
            for mine in found {
                let mine =
                    Tensor::<1>::from_floats(mine.as_slice(), &Device::flex()).reshape([rows, d_output]);
                mine.into_data().assert_approx_eq::<f32>(&expected.to_data(), Tolerance::rel_abs(4e-3, 1e-2));
            }
        }
    }

    /// Texts one behind the other, each with its rows: few single ones, and many of each.
    #[test]
    fn rows_alike_have_the_bits_that_they_have_alone() {
        for [d_input, d_output] in [[16, 8], [64, 64], [64, 33], [1100, 40], [1100, 300], [3000, 64]] {
            for dtype in DTYPES {
                let weight = cast_to(random([d_output, d_input], 1), dtype).transpose();
                let RowsAlike { few, many, .. } = rows_alike(&weight).expect("flex");
                let lengths =
                    [vec![1; few], vec![1; 3], vec![many; 2], vec![many + 3, many, 3 * many + 70, many + 1]];
                for lengths in lengths {
                    let texts: Vec<Tensor<3>> = (0..)
                        .zip(&lengths)
                        .map(|(seed, &len)| cast_to(random([1, len, d_input], 2 + seed), dtype))
                        .collect();
                    // Single rows are texts of one row each, and the others stand one behind the other.
                    let axis = usize::from(lengths[0] > 1);
                    let product = |x: Tensor<3>| linear(&x, &weight, None).expect("flex");
                    let together = product(Tensor::cat(texts.clone(), axis));
                    let alone = Tensor::cat(texts.iter().cloned().map(product).collect(), axis);
                    assert_eq!(
                        together.to_data(),
                        alone.to_data(),
                        "{d_input} to {d_output}, {lengths:?}, {dtype:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn leaves_to_others_what_they_do_better() {
        let weight = random([8, 8], 1);
        assert!(linear(&random([1, 8], 2), &weight, None).is_none(), "rows of d_output");
    }
}
