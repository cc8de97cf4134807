//! The line that a step prints where there is no terminal interface.

use std::time::Duration;

use super::StepRecord;

/// One plain line for a step, in columns that stay under each other as the run goes on:
/// `step  120/600  loss 0.4312  lr 9.80e-4  norm  0.71   412 samples/s   5.1k tok/s  wait   2%  mem  312 MiB  eta  3m12s`.
///
/// What the record lacks is left out.
pub fn progress_line(record: &StepRecord, total_steps: usize, eta: Option<Duration>) -> String {
    let digits = total_steps.to_string().len();
    let mut columns = vec![
        format!("step {:>digits$}/{total_steps}", record.step),
        format!("loss {:>6}", significant(record.loss)),
        format!("lr {:>7}", scientific(record.lr)),
    ];
    columns.extend(record.grad_norm.map(|norm| format!("norm {:>5}", three(norm))));
    columns.push(format!("{:>5} samples/s", three(record.samples_per_s)));
    columns.push(format!("{:>5} tok/s", three(record.tokens_per_s)));
    columns.push(format!("wait {:>3.0}%", record.data_wait * 100.0));
    columns.extend(record.communication.map(|share| format!("comm {:>3.0}%", share * 100.0)));
    columns.extend(record.memory_bytes.map(|bytes| format!("mem {:>8}", memory(bytes))));
    columns.extend(record.loss_scale.map(|scale| format!("scale {:>5}", three(scale))));
    columns.extend(eta.map(|eta| format!("eta {:>6}", duration(eta))));
    if record.skipped {
        columns.push("SKIPPED".into());
    }
    columns.join("  ")
}

/// Four decimals for a loss of every day, fewer digits for one beyond.
fn significant(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.4}"),
        size if size < 1000.0 => format!("{value:.2}"),
        size if size.is_finite() => format!("{value:.0e}"),
        _ => value.to_string(),
    }
}

/// At most five characters, three digits of them telling: `0.71`, `12.3`, `412`, `5.12k`, `1.20M`.
fn three(value: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    if !value.is_finite() {
        return value.to_string();
    }
    let (mut value, mut unit) = (value, 0);
    // 999.5 rounds to 1000, which is one digit too many.
    while value.abs() >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value.abs() {
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{}", UNITS[unit])
}

fn scientific(value: f64) -> String {
    format!("{value:.2e}")
}

fn memory(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 10_000.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

/// The two largest units: `42s`, `3m12s`, `5h03m`, `2d04h`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_millis() >= 500);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> StepRecord {
        StepRecord {
            step: 120,
            epoch: 0.2,
            loss: 0.431_24,
            lr: 9.8e-4,
            grad_norm: Some(0.7149),
            samples_per_s: 412.3,
            tokens_per_s: 5121.0,
            data_wait: 0.0212,
            memory_bytes: Some(312 << 20),
            seconds: 60.0,
            skipped: false,
            loss_scale: None,
            straggler: None,
            communication: None,
        }
    }

    #[test]
    fn a_step_is_one_line() {
        assert_eq!(
            progress_line(&record(), 600, Some(Duration::from_secs(192))),
            "step 120/600  loss 0.4312  lr 9.80e-4  norm  0.71    412 samples/s  5.12k tok/s  wait   2%  \
             mem  312 MiB  eta  3m12s"
        );
    }

    #[test]
    fn columns_stay_in_place() {
        let first = StepRecord {
            step: 7,
            loss: 11.25,
            lr: 0.0,
            grad_norm: Some(153.2),
            samples_per_s: 9.3,
            tokens_per_s: 312_345.6,
            data_wait: 1.0,
            memory_bytes: Some(70 << 30),
            ..record()
        };
        let lines = [
            progress_line(&first, 5198, Some(Duration::from_secs(59))),
            progress_line(&record(), 5198, Some(Duration::from_secs(40_000))),
        ];
        let places = |line: &str| {
            ["step", "loss", "lr", "norm", "samples/s", "tok/s", "wait", "mem", "eta"]
                .map(|word| line.find(word).unwrap_or_else(|| panic!("{word} in {line}")))
        };
        assert_eq!(places(&lines[0]), places(&lines[1]), "{lines:#?}");
        assert_eq!(lines[0].len(), lines[1].len(), "{lines:#?}");
    }

    #[test]
    fn what_is_absent_is_left_out_and_a_skipped_step_says_so() {
        let bare =
            StepRecord { grad_norm: None, memory_bytes: None, loss: f64::NAN, skipped: true, ..record() };
        assert_eq!(
            progress_line(&bare, 600, None),
            "step 120/600  loss    NaN  lr 9.80e-4    412 samples/s  5.12k tok/s  wait   2%  SKIPPED"
        );
        let scaled = StepRecord { loss_scale: Some(65536.0), ..record() };
        assert!(progress_line(&scaled, 600, None).ends_with("mem  312 MiB  scale 65.5k"));
    }

    #[test]
    fn numbers_round_to_the_width_of_their_column() {
        let cases = [0.0, 0.7149, 9.9949, 9.996, 99.96, 412.3, 999.6, 5121.0, 1.2e6, 2.5e17, f64::INFINITY];
        let words =
            ["0.00", "0.71", "9.99", "10.0", "100", "412", "1.00k", "5.12k", "1.20M", "250000T", "inf"];
        assert_eq!(cases.map(three), words);
        assert_eq!([0.5, 9.99996, 123.456, 1e5].map(significant), ["0.5000", "10.0000", "123.46", "1e5"]);
        assert_eq!([0, 312 << 20, 12 << 30].map(memory), ["0 MiB", "312 MiB", "12.0 GiB"]);
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        let cases = [0, 42, 60, 192, 3599, 3600, 18_180, 86_399, 86_400, 187_200];
        let words = ["0s", "42s", "1m00s", "3m12s", "59m59s", "1h00m", "5h03m", "23h59m", "1d00h", "2d04h"];
        assert_eq!(cases.map(|seconds| duration(Duration::from_secs(seconds))), words);
        assert_eq!(duration(Duration::from_millis(59_500)), "1m00s");
    }
}
