/// Values that are added side by side, and such vectors beside each other.
const LANES: usize = 8;
const VECTORS: usize = 4;
/// Sums of sums.
const LEVELS: usize = 4;

/// The mean in f32 with the additions in PyTorch's order (`cascade_sum` in SumKernel.cpp, on one thread with vectors of eight): it is
/// stored, and so decides bytes.
pub(super) fn mean(values: &[f32]) -> f32 {
    let (vectors, rest) = values.as_chunks::<LANES>();
    let (rows, single) = vectors.as_chunks::<VECTORS>();
    let [mut sum, others @ ..] = sum_rows(rows);
    single.iter().for_each(|vector| add(&mut sum, vector));
    others.iter().for_each(|vector| add(&mut sum, vector));
    let total = rest.iter().chain(&sum).fold(0.0, |total, value| total + value);
    total / values.len().max(1) as f32
}

fn sum_rows(rows: &[[[f32; LANES]; VECTORS]]) -> [[f32; LANES]; VECTORS] {
    // The power of two of the rows that are added before their sum is.
    let power = (rows.len().next_power_of_two().ilog2() / LEVELS as u32).max(4);
    let mut sums = [[[0f32; LANES]; VECTORS]; LEVELS];
    let mut done = 0;
    for block in rows.chunks(1 << power) {
        for row in block {
            add_rows(&mut sums[0], row);
        }
        done += block.len();
        if block.len() < 1 << power {
            break;
        }
        for level in 1..LEVELS {
            let below = std::mem::take(&mut sums[level - 1]);
            add_rows(&mut sums[level], &below);
            if done & (((1 << power) - 1) << (level as u32 * power)) != 0 {
                break;
            }
        }
    }
    let [mut total, higher @ ..] = sums;
    higher.iter().for_each(|sum| add_rows(&mut total, sum));
    total
}

fn add_rows(sums: &mut [[f32; LANES]; VECTORS], row: &[[f32; LANES]; VECTORS]) {
    sums.iter_mut().zip(row).for_each(|(sum, vector)| add(sum, vector));
}

fn add(sum: &mut [f32; LANES], vector: &[f32; LANES]) {
    sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_counts_once() {
        for count in [0, 1, 7, 8, 31, 32, 33, 511, 512, 4096, 40_000] {
            // Sums of these are exact.
            let values: Vec<f32> = (0..count).map(|i| (i % 128) as f32).collect();
            let sum: f32 = values.iter().sum();
            assert_eq!(mean(&values), sum / count.max(1) as f32, "{count}");
        }
    }
}
