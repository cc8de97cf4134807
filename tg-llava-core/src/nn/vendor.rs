//! Products by a vendor's library, where a program has put one in place.

use std::sync::OnceLock;

use burn::tensor::Tensor;

/// Products of linear layers that somebody computes better than the backend.
pub trait VendorProducts: Send + Sync {
    /// `x weight`, with its gradients where they are recorded; `None` where it is the backend's affair.
    ///
    /// # Shapes
    /// - x: `[rows, d_input]`, weight: `[d_input, d_output]`, output: `[rows, d_output]`
    fn product(&self, x: &Tensor<2>, weight: &Tensor<2>) -> Option<Tensor<2>>;
}

static PRODUCTS: OnceLock<Box<dyn VendorProducts>> = OnceLock::new();

/// Asks `products` first, in this process from now on; whether nobody else was in place already.
pub fn use_vendor_products(products: Box<dyn VendorProducts>) -> bool {
    PRODUCTS.set(products).is_ok()
}

/// `x weight + bias` by whoever is in place.
pub(super) fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    let products = PRODUCTS.get()?;
    let mut shape = x.dims();
    let [d_input, d_output] = weight.dims();
    let rows = shape[..D - 1].iter().product::<usize>();
    let y = products.product(&x.clone().reshape([rows, d_input]), weight)?;
    let y = match bias {
        Some(bias) => y + bias.clone().unsqueeze(),
        None => y,
    };
    shape[D - 1] = d_output;
    Some(y.reshape(shape))
}
