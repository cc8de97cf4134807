//! The memory that this process holds.

/// Resident memory of this process in bytes (`VmRSS`); `None` where the system has no `/proc`.
pub fn memory_bytes() -> Option<u64> {
    resident(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn resident(status: &str) -> Option<u64> {
    let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = size.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_from_its_line() {
        let status = "Name:\tcat\nVmHWM:\t    2000 kB\nVmRSS:\t    1496 kB\nRssAnon:\t 88 kB\n";
        assert_eq!(resident(status), Some(1496 * 1024));
        for status in ["", "VmHWM:\t1 kB", "VmRSS:\t x kB", "VmRSS:\t 12", "VmRSS:\t 99999999999999999999 kB"]
        {
            assert_eq!(resident(status), None, "{status}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_touched_counts() {
        let block = vec![1u8; 64 << 20];
        let held = memory_bytes().unwrap();
        assert!(held >= 64 << 20, "{held}");
        drop(std::hint::black_box(block));
    }
}
