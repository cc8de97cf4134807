//! Loss scaling for f16, whose gradients would otherwise vanish below 6e-8.

use serde::{Deserialize, Serialize};

/// Steps without overflow before the scale is doubled (PyTorch's `GradScaler`).
const GROWTH_INTERVAL: u32 = 2000;

/// What the loss is multiplied with before the backward pass; the gradients are divided by it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor.
    pub scale: f64,
    /// Whether it follows the gradients: halved on overflow, doubled after a long time without.
    pub dynamic: bool,
    good_steps: u32,
}

impl LossScale {
    /// None: for f32 and bf16.
    pub const ONE: Self = Self { scale: 1.0, dynamic: false, good_steps: 0 };

    /// A scale that never changes.
    pub fn fixed(scale: f64) -> Self {
        Self { scale, dynamic: false, good_steps: 0 }
    }

    /// A scale that finds its size, from 65536 on.
    pub fn dynamic() -> Self {
        Self { scale: 65_536.0, dynamic: true, good_steps: 0 }
    }

    /// Notes whether a step's gradients were finite.
    pub fn update(&mut self, finite: bool) {
        if !self.dynamic {
            return;
        }
        if !finite {
            self.scale = (self.scale / 2.0).max(1.0);
            self.good_steps = 0;
            return;
        }
        self.good_steps += 1;
        if self.good_steps >= GROWTH_INTERVAL {
            self.scale *= 2.0;
            self.good_steps = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_on_overflow_and_doubles_after_a_long_time() {
        let mut scale = LossScale::dynamic();
        scale.update(false);
        assert_eq!(scale.scale, 32_768.0);
        (0..GROWTH_INTERVAL).for_each(|_| scale.update(true));
        assert_eq!(scale.scale, 65_536.0);
        let mut fixed = LossScale::fixed(128.0);
        fixed.update(false);
        assert_eq!(fixed.scale, 128.0);
    }
}
