/// Asks the processor to bring the value at `place`, which may be beyond the end, into its caches; a hint without any other effect.
/// Where several rows are read side by side, the processor does not see by itself what comes next.
#[inline(always)]
pub fn prefetch<T>(values: &[T], place: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let pointer = values.as_ptr().wrapping_add(place);
        // SAFETY: a hint, for which any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(pointer.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, place);
}
