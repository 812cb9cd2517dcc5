//! Randomness that repeats: everything the sandbox invents is a function of the seed.

/// Mixes numbers to one that looks random (the finaliser of splitmix64).
pub(super) fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        let mut z = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// Whether an event of probability `share` happens, given a mixed number.
pub(super) fn happens(mixed: u64, share: f64) -> bool {
    // 53 bits are what a double holds exactly.
    ((mixed >> 11) as f64) < share * (1_u64 << 53) as f64
}

/// A sequence of numbers.
#[derive(Debug)]
pub(super) struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, thrown: 0 }
    }

    pub(super) fn throw(&mut self) -> u64 {
        self.thrown += 1;
        mix(&[self.seed, self.thrown])
    }

    /// A number below `limit`; 0 when that is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.throw().checked_rem(limit).unwrap_or(0)
    }

    pub(super) fn happens(&mut self, share: f64) -> bool {
        happens(self.throw(), share)
    }
}
