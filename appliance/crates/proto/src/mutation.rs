//! Mutations of recorded bytes, for the tests that run the fuzz targets. Also part of the tests of other crates.

/// Bytes that mean something in lengths, flags and text.
const TELLING: &[u8] = &[0, 1, 0x7F, 0x80, 0xFF, 3, 9, 0xC3];

/// Runs a target on all seeds and on mutations of each.
pub(crate) fn run(target: fn(&[u8]), seeds: &[Vec<u8>], rounds: usize, seed: u64) {
    run_with(TELLING, target, seeds, rounds, seed);
}

/// The same with other bytes that mean something to the target.
pub(crate) fn run_with(
    telling: &[u8],
    mut target: impl FnMut(&[u8]),
    seeds: &[Vec<u8>],
    rounds: usize,
    seed: u64,
) {
    let mut random = Random(seed);
    for bytes in seeds {
        target(bytes);
        for _ in 0..rounds {
            target(&random.mutate(telling, bytes));
        }
    }
}

/// Marsaglia's xorshift64: the same mutations in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }

    /// Flips, overwrites, cuts, doubles and inserts.
    fn mutate(&mut self, telling: &[u8], seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.next(4) {
            if bytes.is_empty() {
                bytes.push(self.next(256) as u8);
            }
            let at = self.next(bytes.len());
            match self.next(6) {
                0 => bytes[at] ^= 1 << self.next(8),
                1 => bytes[at] = telling[self.next(telling.len())],
                2 => bytes.truncate(at),
                3 => {
                    let end = (at + self.next(64)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                4 => {
                    let end = (at + self.next(8)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => bytes.insert(at, self.next(256) as u8),
            }
        }
        bytes
    }
}
