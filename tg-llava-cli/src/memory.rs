//! Memory by way of the system: how the C library hands it back, and files that lie in it.

use std::fs::File;

use bytes::Bytes;

/// A file's bytes where the system keeps them. Where somebody cuts the file off meanwhile, the program ends with a signal.
///
/// # Errors
/// Where the system cannot show the file.
#[expect(unsafe_code, reason = "that nobody writes into a file is not to be had from the system")]
pub fn map_file(file: &File) -> std::io::Result<Bytes> {
    // SAFETY: what the tools of this program write takes the place of a file and leaves the old one as it is; to whoever overwrites a
    // checkpoint in its place, `--no-mmap` is there.
    let map = unsafe { memmap2::Mmap::map(file) }?;
    Ok(Bytes::from_owner(map))
}

/// Keeps freed memory for the next tensor instead of handing it back to the system.
///
/// By default glibc maps every block of some megabytes anew, and the kernel fills each page with zeros at first touch:
/// a third of the time of an encoder pass. Blocks above 1 GiB still come and go.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "mallopt has no safe wrapper; it takes two numbers and touches no memory of ours"
)]
pub fn keep_freed_memory() {
    const LARGEST: libc::c_int = 1 << 30;
    // SAFETY: called before any thread is started, as mallopt's manual asks.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

/// Other C libraries do as they like.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed_memory() {}
