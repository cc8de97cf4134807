/// A permission to compute with what `pulp`'s `V4` asks for, and with one thing more.
macro_rules! with_v4 {
    ($(#[$docs:meta])* $name:ident, $field:ident: $feature:tt) => {
        pulp::simd_type! {
            $(#[$docs])*
            #[allow(missing_docs)]
            pub struct $name {
                pub sse: "sse",
                pub sse2: "sse2",
                pub fxsr: "fxsr",
                pub sse3: "sse3",
                pub ssse3: "ssse3",
                pub sse4_1: "sse4.1",
                pub sse4_2: "sse4.2",
                pub popcnt: "popcnt",
                pub avx: "avx",
                pub avx2: "avx2",
                pub bmi1: "bmi1",
                pub bmi2: "bmi2",
                pub fma: "fma",
                pub lzcnt: "lzcnt",
                pub avx512f: "avx512f",
                pub avx512bw: "avx512bw",
                pub avx512cd: "avx512cd",
                pub avx512dq: "avx512dq",
                pub avx512vl: "avx512vl",
                pub $field: $feature,
            }
        }
    };
}

pub(crate) use with_v4;
