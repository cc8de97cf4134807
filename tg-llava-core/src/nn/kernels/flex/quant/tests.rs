use burn::tensor::Tolerance;
use proptest::prelude::*;

use super::super::tests::random;
use super::*;
use crate::nn::matrix::apply_quantised;

/// A matrix `[d_output, d_input]` of random values in `format`, and its floats.
fn matrix(format: GgmlType, shape: [usize; 2], activations: Activations) -> (QuantMatrix, Tensor<2>) {
    let values = random(shape, 1).into_data().try_to_vec::<f32>().expect("f32");
    let blocks = quantise(format, &values, shape[1]);
    let stored = GgmlMatrix::new(format, shape, blocks).expect("whole rows").with_activations(activations);
    let matrix = QuantMatrix::from(stored);
    let mut values = vec![0.0; shape[0] * shape[1]];
    dequantise_rows(&matrix, 0..shape[0], &mut values);
    (matrix, Tensor::from_data(burn::tensor::TensorData::new(values, shape), &burn::tensor::Device::flex()))
}

fn formats() -> impl Strategy<Value = GgmlType> {
    proptest::sample::select(GgmlType::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn few_rows_of_floats_are_the_product_with_the_dequantised_matrix(
        format in formats(), rows in 1usize..=16, d_input in 1usize..700, d_output in 1usize..40,
    ) {
        let (matrix, floats) = matrix(format, [d_output, d_input], Activations::F32);
        let (x, bias) = (random([1, rows, d_input], 2), random([d_output], 3));
        let fast = quantised_matvec(&x, &matrix, Some(&bias)).expect("flex");
        let product = x.matmul(floats.transpose().unsqueeze()) + bias.unsqueeze();
        fast.into_data().assert_approx_eq::<f32>(&product.into_data(), Tolerance::rel_abs(1e-5, 2e-3));
    }

    #[test]
    fn few_rows_of_integers_are_the_product_as_written_out(
        format in formats(), rows in 1usize..=4, d_input in 1usize..700, d_output in 1usize..40,
    ) {
        let (matrix, _) = matrix(format, [d_output, d_input], Activations::Int8);
        let QuantMatrix::Ggml(stored) = &matrix else { unreachable!("made of blocks") };
        prop_assume!(!format.is_float());
        let x = random([rows, d_input], 2);
        let fast = quantised_matvec(&x, &matrix, None).expect("flex").into_data().try_to_vec::<f32>().expect("f32");
        let x = x.into_data().try_to_vec::<f32>().expect("f32");
        for (x, fast) in x.chunks(d_input).zip(fast.chunks(d_output)) {
            let x = Int8Row::new(x);
            for (row, &fast) in stored.blocks().chunks(stored.row_bytes()).zip(fast) {
                let product = ggml::dot_int8(format, row, &x);
                prop_assert!((fast - product).abs() <= 2e-3 + 1e-5 * product.abs(), "{format}: {fast} for {product}");
            }
        }
    }

    /// What is no AVX2 processor's.
    #[test]
    fn both_forms_of_integer_products_agree(format in formats(), rows in 1usize..=4, d_input in 1usize..600) {
        prop_assume!(!format.is_float());
        let (matrix, _) = matrix(format, [7, d_input], Activations::Int8);
        let QuantMatrix::Ggml(stored) = &matrix else { unreachable!("made of blocks") };
        let x = random([rows, d_input], 2).into_data().try_to_vec::<f32>().expect("f32");
        let x: Vec<Int8Row> = x.chunks(d_input).map(Int8Row::new).collect();
        let products = |out| Products { format, row_bytes: stored.row_bytes(), blocks: stored.blocks(), x: &x, out };
        let (mut fast, mut plain) = (vec![0.0; 7 * rows], vec![0.0; 7 * rows]);
        products(&mut fast).run();
        pulp::Arch::Scalar.dispatch(products(&mut plain));
        for (fast, plain) in fast.iter().zip(plain) {
            prop_assert!((fast - plain).abs() <= 2e-3 + 1e-5 * plain.abs(), "{fast} for {plain}");
        }
    }
}

/// What is wide where the processor is, and in all threads.
#[test]
fn blocks_are_those_of_the_scalar_code() {
    let mut values = random([70, 300], 4).into_data().try_to_vec::<f32>().expect("f32");
    values[..300].fill(0.0);
    (values[5000], values[9000]) = (f32::NAN, f32::NEG_INFINITY);
    for format in GgmlType::ALL {
        assert!(quantise(format, &values, 300) == ggml::quantise(format, &values, 300), "{format}");
    }
}

#[test]
fn a_value_that_is_no_number_spoils_every_product_of_its_row() {
    for format in GgmlType::ALL.into_iter().filter(|format| !format.is_float()) {
        let (matrix, _) = matrix(format, [5, 96], Activations::Int8);
        let QuantMatrix::Ggml(stored) = &matrix else { unreachable!("made of blocks") };
        for damage in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = random([2, 96], 2).into_data().try_to_vec::<f32>().expect("f32");
            x[40] = damage;
            let rows: Vec<Int8Row> = x.chunks(96).map(Int8Row::new).collect();
            let products = |out| Products {
                format,
                row_bytes: stored.row_bytes(),
                blocks: stored.blocks(),
                x: &rows,
                out,
            };
            let (mut fast, mut plain) = (vec![0.0; 10], vec![0.0; 10]);
            products(&mut fast).run();
            pulp::Arch::Scalar.dispatch(products(&mut plain));
            let x = Tensor::<2>::from_data(
                burn::tensor::TensorData::new(x, [2, 96]),
                &burn::tensor::Device::flex(),
            );
            let whole = quantised_matvec(&x, &matrix, None)
                .expect("flex")
                .into_data()
                .try_to_vec::<f32>()
                .expect("f32");
            // Products of one row of the matrix beside each other in the forms, those of one row of `x` in the tensor.
            for (index, (fast, plain)) in fast.iter().zip(&plain).enumerate() {
                assert_eq!(
                    (fast.is_nan(), plain.is_nan()),
                    (index % 2 == 0, index % 2 == 0),
                    "{format} {damage}"
                );
            }
            assert!(
                whole[..5].iter().all(|y| y.is_nan()) && whole[5..].iter().all(|y| y.is_finite()),
                "{format}"
            );
        }
    }
}

#[test]
fn rows_have_the_bits_that_they_have_alone() {
    for activations in [Activations::Int8, Activations::F32] {
        for format in GgmlType::ALL {
            let (matrix, _) = matrix(format, [33, 300], activations);
            let RowsAlike { few, .. } = quantised_rows_alike(&matrix, 33).expect("flex");
            let x = random([few, 300], 2);
            let together = quantised_matvec(&x, &matrix, None).expect("flex");
            let alone = (0..few)
                .map(|row| quantised_matvec(&x.clone().narrow(0, row, 1), &matrix, None).expect("flex"));
            assert_eq!(together.into_data(), Tensor::cat(alone.collect(), 0).into_data(), "{format}");
        }
    }
}

/// The matrix is floats in three pieces, the last of them narrow, where sums may be in another order for fewer rows.
#[test]
fn many_rows_have_the_bits_that_their_texts_have_alone() {
    let shape = [2100, 600];
    let (matrix, floats) = matrix(GgmlType::Q4_K, shape, Activations::Int8);
    let RowsAlike { many, piece, .. } = crate::nn::matrix::quantised_rows_alike(&matrix);
    let bias = random([shape[0]], 5);
    let product = |x: Tensor<2>| apply_quantised(&matrix, x, Some(bias.clone()));
    for lengths in [[many, many + 3, 2 * many], [piece, piece, piece]] {
        let texts: Vec<_> = (2..).zip(lengths).map(|(seed, len)| random([len, shape[1]], seed)).collect();
        let together = product(Tensor::cat(texts.clone(), 0));
        let alone = Tensor::cat(texts.iter().cloned().map(product).collect(), 0);
        assert_eq!(together.to_data(), alone.to_data(), "{lengths:?}");
        let whole = Tensor::cat(texts, 0).matmul(floats.clone().transpose()) + bias.clone().unsqueeze();
        together.into_data().assert_approx_eq::<f32>(&whole.into_data(), Tolerance::rel_abs(1e-5, 2e-3));
    }
}

#[test]
fn many_rows_are_left_to_products_of_floats() {
    let (matrix, _) = matrix(GgmlType::Q8_0, [8, 64], Activations::Int8);
    assert!(quantised_matvec(&random([17, 64], 2), &matrix, None).is_none());
}
