//! Values that are a function of a seed and a place, so that any part of the load can be
//! computed again without the rest.

/// The increment of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014).
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The `place`-th value of the stream that starts at `seed`: SplitMix64's output function.
#[inline]
pub fn value(seed: u64, place: u64) -> u64 {
    let mut z = seed.wrapping_add(place.wrapping_add(1).wrapping_mul(GAMMA));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of values, for building templates.
#[derive(Debug)]
pub struct Rng {
    seed: u64,
    place: u64,
}

impl Rng {
    /// The stream that starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, place: 0 }
    }

    /// The next value.
    pub fn next(&mut self) -> u64 {
        self.place += 1;
        value(self.seed, self.place)
    }

    /// The next value below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
