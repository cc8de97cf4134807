use std::fmt;

/// How a GGUF file stores the values of a tensor; the formats that are read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(non_camel_case_types, reason = "the names that everybody knows the formats by")]
pub enum GgmlType {
    /// Plain f32.
    F32,
    /// Plain f16.
    F16,
    /// Plain bf16.
    BF16,
    /// 4 bits, a scale for 32 values.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 values.
    Q4_1,
    /// 5 bits, a scale for 32 values.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 values.
    Q5_1,
    /// 8 bits, a scale for 32 values.
    Q8_0,
    /// 4 bits, a scale and a minimum of 6 bits for 32 of 256 values.
    Q4_K,
    /// 5 bits, a scale and a minimum of 6 bits for 32 of 256 values.
    Q5_K,
    /// 6 bits, a scale of 8 bits for 16 of 256 values.
    Q6_K,
}

impl GgmlType {
    /// All that are read, by their [`GgmlType::id`].
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::BF16,
    ];

    /// The type of this number in a GGUF file (`enum ggml_type`); `None` for those that are not read.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.id() == id)
    }

    /// The type's number in a GGUF file (`enum ggml_type`).
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4_K => 12,
            Self::Q5_K => 13,
            Self::Q6_K => 14,
            Self::BF16 => 30,
        }
    }

    /// The names of all that are read.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// The format's name, as llama.cpp writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
        }
    }

    /// Values in a block.
    pub fn block_values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of a row of `len` values, its last block filled up.
    pub fn row_bytes(self, len: usize) -> usize {
        len.div_ceil(self.block_values()) * self.block_bytes()
    }

    /// [`GgmlType::row_bytes`] of a length that may be anything; `None` where no memory could hold so many.
    pub fn checked_row_bytes(self, len: usize) -> Option<usize> {
        let bytes = len.div_ceil(self.block_values()).checked_mul(self.block_bytes())?;
        isize::try_from(bytes).is_ok().then_some(bytes)
    }

    /// Whether values are plain floats.
    pub fn is_float(self) -> bool {
        self.block_values() == 1
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Runs `$body` with `$block` as the [`Block`](super::Block) of the format `$format`; `$float` for plain floats.
macro_rules! with_block {
    ($format:expr, $block:ident => $body:expr, float => $float:expr) => {{
        use $crate::quant::ggml::{GgmlType, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        macro_rules! with {
            ($type:ty) => {{
                type $block = $type;
                $body
            }};
        }
        match $format {
            GgmlType::Q4_0 => with!(Q4_0),
            GgmlType::Q4_1 => with!(Q4_1),
            GgmlType::Q5_0 => with!(Q5_0),
            GgmlType::Q5_1 => with!(Q5_1),
            GgmlType::Q8_0 => with!(Q8_0),
            GgmlType::Q4_K => with!(Q4K),
            GgmlType::Q5_K => with!(Q5K),
            GgmlType::Q6_K => with!(Q6K),
            GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 => $float,
        }
    }};
}

pub(crate) use with_block;
