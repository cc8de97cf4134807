//! Devices: the backends that this build has, which one to take, and how to open it.

use burn::tensor::{DType, Device, Tensor};
use clap::{Args, ValueEnum};

use crate::console::Console;
use crate::failure::Failure;
use crate::fault;

/// A Burn backend; each is compiled in by the Cargo feature of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// NVIDIA GPUs.
    Cuda,
    /// GPUs through Vulkan, with SPIR-V kernels.
    Vulkan,
    /// GPUs through Vulkan, Metal or DirectX, with WGSL kernels.
    Wgpu,
    /// The CPU.
    Flex,
    /// The CPU, with Burn's older backend.
    NdArray,
}

/// What `--device` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSpec {
    /// The backend.
    pub backend: Backend,
    /// Which of several GPUs (CUDA alone).
    pub index: usize,
}

/// What `--dtype` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the values' help would repeat their names")]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
        }
    }
}

/// What the numbers are computed with.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Device")]
pub struct ComputeArgs {
    /// Where to compute: flex, ndarray, wgpu, vulkan, cuda or cuda:N [default: the best that works here]
    #[arg(long, value_name = "DEVICE", value_parser = DeviceSpec::parse)]
    pub device: Option<DeviceSpec>,
    /// Number format of weights and activations [default: f32; bf16 for chat on cuda]
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<Dtype>,
    /// Who computes the products of linear layers in f16 and bf16 on CUDA
    #[cfg(any(feature = "cuda", feature = "cuda-plain"))]
    #[arg(long, value_name = "WHO", value_enum, default_value_t)]
    pub products: Products,
}

/// What `--products` names.
#[cfg(any(feature = "cuda", feature = "cuda-plain"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Products {
    /// cuBLASLt if it is there and faster in a short comparison, otherwise Burn
    #[default]
    Auto,
    /// NVIDIA's library wherever it can
    Cublaslt,
    /// Burn's own kernels
    Burn,
}

/// The number format where none is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultDtype {
    /// What the device is best at: bf16 on CUDA, f32 elsewhere.
    Fast,
    /// f32.
    Exact,
}

/// A device ready for use.
#[derive(Debug, Clone)]
pub struct Opened {
    /// What was opened.
    pub spec: DeviceSpec,
    /// Burn's handle.
    pub device: Device,
    /// The number format to load weights in.
    pub dtype: DType,
}

impl Opened {
    /// Bytes of the largest buffer that the device can bind, where that is a limit models run into: wgpu and Vulkan.
    pub fn largest_buffer(&self) -> Option<u64> {
        match self.spec.backend {
            Backend::Wgpu | Backend::Vulkan => largest_binding(self.spec.backend),
            _ => None,
        }
    }
}

#[cfg(any(feature = "vulkan", feature = "wgpu"))]
fn largest_binding(backend: Backend) -> Option<u64> {
    use burn::backend::wgpu::{AutoCompiler, WgpuBackend, WgpuDevice, WgpuRuntime};
    use cubecl_runtime::runtime::Runtime;
    let api = if backend == Backend::Vulkan { WgpuBackend::Vulkan } else { WgpuBackend::Auto };
    let device = WgpuDevice::default().on(api);
    fault::catch(false, || WgpuRuntime::<AutoCompiler>::client(&device).properties().memory.max_page_size)
        .ok()
}

#[cfg(not(any(feature = "vulkan", feature = "wgpu")))]
fn largest_binding(_backend: Backend) -> Option<u64> {
    None
}

impl Backend {
    /// All backends, the one to prefer first.
    pub const ALL: [Self; 5] = [Self::Cuda, Self::Vulkan, Self::Wgpu, Self::Flex, Self::NdArray];

    /// The name on the command line, which is the Cargo feature's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
            Self::Flex => "flex",
            Self::NdArray => "ndarray",
        }
    }

    /// Whether this build has it.
    pub fn is_built(self) -> bool {
        match self {
            Self::Cuda => cfg!(any(feature = "cuda", feature = "cuda-plain")),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Flex => cfg!(feature = "flex"),
            Self::NdArray => cfg!(feature = "ndarray"),
        }
    }

    /// Names of the backends that this build has.
    pub fn built() -> Vec<&'static str> {
        Self::ALL.into_iter().filter(|backend| backend.is_built()).map(Self::name).collect()
    }

    /// Whether it computes on the CPU.
    pub fn is_cpu(self) -> bool {
        matches!(self, Self::Flex | Self::NdArray)
    }
}

impl DeviceSpec {
    /// Reads `flex`, `ndarray`, `wgpu`, `vulkan`, `cuda` or `cuda:N`.
    ///
    /// # Errors
    /// A text for the user: the names there are, or the feature that this build lacks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index)),
            None => (text, None),
        };
        let backend = Backend::ALL.into_iter().find(|backend| backend.name() == name).ok_or_else(|| {
            format!(
                "there is no such device; there are flex, ndarray, wgpu, vulkan, cuda and cuda:N (this build has {})",
                list_built()
            )
        })?;
        let index = match index {
            None => 0,
            Some(index) if backend == Backend::Cuda => index
                .parse()
                .map_err(|_| format!("{index:?} is not the number of a GPU; the first is cuda:0"))?,
            Some(_) => return Err(format!("{name} takes no number; write --device {name}")),
        };
        if !backend.is_built() {
            return Err(format!(
                "this build has {}, not {name}; build with `cargo build --release -p tg-llava-cli --features {name}`",
                list_built()
            ));
        }
        Ok(Self { backend, index })
    }

    /// Burn's handle; `None` for a backend that this build lacks.
    fn device(self) -> Option<Device> {
        match self.backend {
            #[cfg(any(feature = "cuda", feature = "cuda-plain"))]
            Backend::Cuda => Some(Device::cuda(self.index)),
            #[cfg(feature = "vulkan")]
            Backend::Vulkan => Some(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "flex")]
            Backend::Flex => Some(Device::flex()),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "offered to compare with, as long as Burn has it")]
            Backend::NdArray => Some(Device::ndarray()),
            #[cfg(not(all(
                any(feature = "cuda", feature = "cuda-plain"),
                feature = "vulkan",
                feature = "wgpu",
                feature = "flex",
                feature = "ndarray"
            )))]
            _ => None,
        }
    }

    /// Burn's handle, once a small computation has shown that the device works.
    fn open(self) -> Result<Device, String> {
        let device = self.device().ok_or_else(|| format!("this build has no {}", self.backend.name()))?;
        if self.backend.is_cpu() {
            return Ok(device);
        }
        let sum = fault::catch(false, || {
            Tensor::<1>::from_floats([1.0, 2.0], &device).sum().try_into_vec_as::<f32>()
        })?;
        match sum {
            Ok(values) if values == [3.0] => Ok(device),
            Ok(values) => Err(format!("1 + 2 came out as {values:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether to take this device before others unasked: a GPU must be a real one, not a program that plays one.
    fn is_worth_trying(self) -> bool {
        match self.backend {
            #[cfg(feature = "vulkan")]
            Backend::Vulkan => has_real_gpu(burn::tensor::DeviceType::Vulkan, Device::vulkan),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => has_real_gpu(burn::tensor::DeviceType::Wgpu, Device::wgpu),
            _ => true,
        }
    }
}

impl std::fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.backend {
            Backend::Cuda => write!(f, "cuda:{}", self.index),
            other => f.write_str(other.name()),
        }
    }
}

#[cfg(any(feature = "vulkan", feature = "wgpu"))]
fn has_real_gpu(kind: burn::tensor::DeviceType, device: fn(burn::tensor::DeviceKind) -> Device) -> bool {
    use burn::tensor::DeviceKind::{DiscreteGpu, IntegratedGpu, VirtualGpu};
    let found = fault::catch(false, || Device::enumerate(kind).into_vec()).unwrap_or_default();
    [DiscreteGpu(0), IntegratedGpu(0), VirtualGpu(0)].into_iter().any(|gpu| found.contains(&device(gpu)))
}

fn list_built() -> String {
    match Backend::built() {
        built if built.is_empty() => "no device at all".into(),
        built => built.join(", "),
    }
}

/// How many GPUs CUDA can use here, without taking any memory of them; none where this build has no CUDA.
pub fn gpus() -> usize {
    #[cfg(any(feature = "cuda", feature = "cuda-plain"))]
    {
        let found = || Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().len();
        fault::catch(false, found).unwrap_or_default()
    }
    #[cfg(not(any(feature = "cuda", feature = "cuda-plain")))]
    0
}

/// A device to describe models with, on which nothing is computed.
///
/// # Errors
/// Where this build has no backend.
pub fn any() -> Result<Device, Failure> {
    // From the last: the CPU costs nothing to name.
    let device = Backend::ALL.into_iter().rev().find_map(|backend| DeviceSpec { backend, index: 0 }.device());
    device.ok_or_else(no_backend)
}

/// Opens the device that was asked for, or the best one that works; `default` is the number format where none was
/// asked for.
///
/// # Errors
/// [`Failure::Run`] where a device does not work, [`Failure::Input`] where it cannot compute in the format asked
/// for.
pub fn open(args: &ComputeArgs, default: DefaultDtype, console: &Console) -> Result<Opened, Failure> {
    let (spec, device) = match args.device {
        Some(spec) => {
            let device = spec.open().map_err(|reason| {
                Failure::Run(anyhow::anyhow!("device {spec} does not work on this machine: {reason}"))
            })?;
            (spec, device)
        }
        None => best(console)?,
    };
    let dtype = dtype_of(args.dtype, default, spec.backend);
    check_dtype(dtype, spec, &device)?;
    console.detail(format_args!("device {spec}, numbers in {}", dtype.name()));
    #[cfg(any(feature = "cuda", feature = "cuda-plain", feature = "vulkan", feature = "wgpu"))]
    tg_llava_core::quant::use_packed_products(Box::new(tg_llava_cube::CubeProducts));
    #[cfg(any(feature = "cuda", feature = "cuda-plain"))]
    if spec.backend == Backend::Cuda && dtype != DType::F32 {
        place_products(args.products, &device, *console);
    }
    Ok(Opened { spec, device, dtype })
}

/// Lets cuBLASLt compute products from now on, where it is chosen. The first device that is opened for halves decides.
#[cfg(any(feature = "cuda", feature = "cuda-plain"))]
fn place_products(who: Products, device: &Device, console: Console) {
    use tg_llava_cuda::products::{CublasLt, Mode};
    let mode = match who {
        Products::Auto => Mode::Auto,
        Products::Cublaslt => Mode::CublasLt,
        Products::Burn => return,
    };
    let note = std::sync::Arc::new(move |text: &str| console.note(text));
    tg_llava_core::nn::use_vendor_products(Box::new(CublasLt::new(device.clone(), mode, note)));
}

fn best(console: &Console) -> Result<(DeviceSpec, Device), Failure> {
    let built = Backend::ALL.into_iter().filter(|backend| backend.is_built());
    let (good, poor): (Vec<_>, Vec<_>) =
        built.map(|backend| DeviceSpec { backend, index: 0 }).partition(|spec| spec.is_worth_trying());
    for spec in good.into_iter().chain(poor) {
        match spec.open() {
            Ok(device) => return Ok((spec, device)),
            Err(reason) => console.detail(format_args!("device {spec} does not work here: {reason}")),
        }
    }
    Err(no_backend())
}

fn no_backend() -> Failure {
    Failure::input(format_args!(
        "no device works here (this build has {}); `cargo build --release -p tg-llava-cli` has flex, which runs on \
         any CPU",
        list_built()
    ))
}

/// The format to compute in: what was asked for, or the default one.
fn dtype_of(asked: Option<Dtype>, default: DefaultDtype, backend: Backend) -> DType {
    match (asked, default) {
        (Some(dtype), _) => dtype.into(),
        (None, DefaultDtype::Fast) if backend == Backend::Cuda => DType::BF16,
        (None, DefaultDtype::Fast | DefaultDtype::Exact) => DType::F32,
    }
}

fn check_dtype(dtype: DType, spec: DeviceSpec, device: &Device) -> Result<(), Failure> {
    let refused = spec.backend == Backend::Wgpu && dtype == DType::BF16;
    if refused || !device.supports_dtype(dtype) {
        return Err(Failure::input(format_args!(
            "{spec} does not compute in {}; use --dtype f32{}",
            dtype.name(),
            if spec.backend == Backend::NdArray { " or --device flex" } else { "" }
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert!(
            DeviceSpec::parse("tpu").unwrap_err().contains("flex, ndarray, wgpu, vulkan, cuda and cuda:N")
        );
        assert!(DeviceSpec::parse("cuda:first").unwrap_err().contains("\"first\""));
        assert!(DeviceSpec::parse("flex:1").unwrap_err().contains("takes no number"));
        for backend in Backend::ALL {
            match DeviceSpec::parse(backend.name()) {
                Ok(spec) => assert!(spec.backend == backend && backend.is_built()),
                Err(text) => assert!(text.contains(&format!("--features {}", backend.name())), "{text}"),
            }
        }
    }

    #[test]
    #[cfg(feature = "flex")]
    fn the_cpu_always_works() {
        let spec = DeviceSpec::parse("flex").unwrap();
        let console = Console::new(&Default::default());
        let args = ComputeArgs { device: Some(spec), ..ComputeArgs::default() };
        let opened = open(&args, DefaultDtype::Fast, &console).unwrap();
        assert_eq!(opened.dtype, DType::F32);
        assert_eq!(spec.to_string(), "flex");
    }
}
