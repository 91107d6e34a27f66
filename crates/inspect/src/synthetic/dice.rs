use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Seeded randomness with its own float conversion: the pinned pictures must not move with a release of `rand`.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64, stream: u64) -> Dice {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(stream);
        Dice(rng)
    }

    /// In `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / 16_777_216.0
    }

    /// In `[low, high)`.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// In `(-reach, reach)`, values near 0 the likeliest.
    pub fn jitter(&mut self, reach: f32) -> f32 {
        (self.unit() - self.unit()) * reach
    }

    pub fn chance(&mut self, share: f32) -> bool {
        self.unit() < share
    }

    /// `options` is not empty.
    pub fn pick<T: Copy>(&mut self, options: &[T]) -> T {
        options[((u64::from(self.0.next_u32()) * options.len() as u64) >> 32) as usize]
    }

    /// A unit vector within about `reach` x 57 degrees of the x axis; by a rational function, for a sine differs
    /// between platforms.
    pub fn direction(&mut self, reach: f32) -> [f32; 2] {
        let t = self.jitter(reach) / 2.0;
        [(1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)]
    }

    /// A unit vector in any direction.
    pub fn heading(&mut self) -> [f32; 2] {
        loop {
            let (x, y) = (self.range(-1.0, 1.0), self.range(-1.0, 1.0));
            let square = x * x + y * y;
            if (0.01..=1.0).contains(&square) {
                let length = square.sqrt();
                return [x / length, y / length];
            }
        }
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}
