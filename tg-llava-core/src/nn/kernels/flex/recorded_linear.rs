use burn::backend::Flex;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use super::matvec::has_wide_registers;
use super::recorded::{self, Derivative, Input};
use super::turn::transpose;
use super::{in_rows, product};

/// `x W + bias` where a gradient of `x` or `W` is wanted. On the way back [`product`]'s panels, or the backend's products, of two axes each,
/// as it would copy a transposed matrix given more. The gradient of `W` lies in memory as `W` does.
///
/// # Shapes
/// - x: `[.., d_input]`, output `[.., d_output]`
/// - weight: `[d_input, d_output]`
/// - bias: `[d_output]`
pub(super) fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    recorded::inputs([Input::of(x), Input::of(weight)])?;
    let (mut shape, x) = (x.dims(), in_two_axes(x));
    let inputs = recorded::inputs([Input::of(&x), Input::of(weight)])?;
    let back = Back::new(&inputs);
    let (x, weight) = (x.inner(), weight.clone().inner());
    let y = super::linear(&x, &weight, None).unwrap_or_else(|| x.matmul(weight));
    let y = recorded::record(inputs, back, y)?;
    let y: Tensor<2> = bias.map_or(y.clone(), |bias| y + bias.clone().unsqueeze());
    shape[D - 1] = y.dims()[1];
    Some(y.reshape(shape))
}

/// A number with the gradients of `sum(x W * gradient)`, without the product: its value is zero.
///
/// # Shapes
/// - x: `[.., d_input]`
/// - weight: `[d_input, d_output]`
/// - gradient: `[.., d_output]`, of which no gradient is wanted
pub(crate) fn linear_against<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    gradient: &Tensor<D>,
) -> Option<Tensor<1>> {
    recorded::inputs([Input::of(x), Input::of(weight)])?;
    let (x, gradient) = (in_two_axes(x), Input::of(&in_two_axes(gradient))?);
    if gradient.is_tracked() {
        return None;
    }
    let inputs = recorded::inputs([Input::of(&x), Input::of(weight)])?;
    let against = Against { product: Back::new(&inputs), gradient: gradient.values() };
    let zero = super::tensor(vec![0.0], [1]);
    recorded::record(inputs, against, Tensor::from_primitive::<Flex>(zero))
}

fn in_two_axes<const D: usize>(x: &Tensor<D>) -> Tensor<2> {
    let shape = x.dims();
    x.clone().reshape([shape[..D - 1].iter().product(), shape[D - 1]])
}

fn is_by_columns(weight: &FlexTensor) -> bool {
    let strides = weight.layout().strides();
    strides[0] == 1 && strides[1] != 1
}

#[derive(Debug, Clone)]
struct Back {
    x: Option<FlexTensor>,
    weight: Option<FlexTensor>,
    by_columns: bool,
}

impl Back {
    fn new(inputs: &[Input; 2]) -> Self {
        let [x, weight] = inputs;
        // Each gradient needs the other operand.
        Self {
            x: weight.is_tracked().then(|| x.values()),
            weight: x.is_tracked().then(|| weight.values()),
            by_columns: is_by_columns(&weight.values()),
        }
    }
}

impl Derivative<2> for Back {
    fn gradients(self, gradient: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        if self.by_columns && has_wide_registers() {
            return self.by_panels(gradient);
        }
        let open = |tensor: FlexTensor| Tensor::<2>::from_primitive::<Flex>(tensor);
        let gradient = open(gradient);
        let for_x = self.weight.map(|weight| gradient.clone().matmul(open(weight).transpose()));
        let for_weight = self.x.map(|x| match self.by_columns {
            true => gradient.transpose().matmul(open(x)).transpose(),
            false => open(x).transpose().matmul(gradient),
        });
        [for_x, for_weight].map(|found| found?.try_into_primitive::<Flex>().ok())
    }
}

impl Back {
    /// Of a matrix that lies by its columns, in panels; see [`product`].
    fn by_panels(self, gradient: FlexTensor) -> [Option<FlexTensor>; 2] {
        let gradient = in_rows(gradient);
        let [rows, d_output] = [0, 1].map(|axis| gradient.layout().shape()[axis]);
        let gradient: &[f32] = gradient.storage();
        let for_x = self.weight.map(|weight| {
            let weight = in_rows(weight.transpose(0, 1));
            let d_input = weight.layout().shape()[1];
            let values = product::by_rows(gradient, weight.storage(), [d_output, d_input]);
            super::tensor(values, [rows, d_input])
        });
        let for_weight = self.x.map(|x| {
            let x = in_rows(x);
            let d_input = x.layout().shape()[1];
            let values = product::by_rows(&transpose(gradient, rows), x.storage(), [rows, d_input]);
            super::tensor(values, [d_output, d_input]).transpose(0, 1)
        });
        [for_x, for_weight]
    }
}

#[derive(Debug, Clone)]
struct Against {
    product: Back,
    gradient: FlexTensor,
}

impl Derivative<2> for Against {
    fn gradients(self, factor: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let factor = in_rows(factor).storage::<f32>()[0];
        let gradient = Tensor::<2>::from_primitive::<Flex>(self.gradient) * factor;
        match gradient.try_into_primitive::<Flex>() {
            Ok(gradient) => self.product.gradients(gradient, wanted),
            Err(_) => [None, None],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gradients_agree, random};
    use super::*;

    #[test]
    fn gradients_are_those_of_the_written_out_form() {
        for (rows, d_input, d_output) in [(1, 1, 1), (3, 7, 5), (70, 100, 130), (450, 900, 40)] {
            for transposed in [false, true] {
                let shape = if transposed { [1, d_output, d_input] } else { [1, d_input, d_output] };
                let matrix = move |weight: Tensor<3>| {
                    let weight = weight.squeeze_dim::<2>(0);
                    if transposed { weight.transpose() } else { weight }
                };
                gradients_agree(
                    [random([2, rows, d_input], 1), random(shape, 2), random([1, 1, d_output], 3)],
                    |[x, weight, bias]| {
                        let (weight, bias) = (matrix(weight), bias.reshape([d_output]));
                        let y = linear(&x, &weight, Some(&bias));
                        // Without a gradient of one of the two there is nothing to do here.
                        y.unwrap_or_else(|| x.matmul(weight.unsqueeze()) + bias.unsqueeze())
                    },
                    |[x, weight, bias]| x.matmul(matrix(weight).unsqueeze()) + bias,
                );
            }
        }
    }

    #[test]
    fn a_gradient_lies_as_its_matrix_does() {
        let x = Tensor::from_inner(random([9, 6], 1));
        for transposed in [false, true] {
            let weight = Tensor::from_inner(random([6, 6], 2));
            let weight = if transposed { weight.transpose() } else { weight }.require_grad();
            let grads = linear(&x, &weight, None).expect("flex in f32").sum().backward();
            let gradient = weight.grad(&grads).expect("wanted").try_into_primitive::<Flex>().expect("flex");
            assert_eq!(is_by_columns(&gradient), transposed);
        }
    }
}
