use super::*;
use crate::CallOutcome;
use crate::kmp_control::testing::cases;

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
    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.next(4) {
            if bytes.is_empty() {
                bytes.push(self.next(256) as u8);
            }
            let at = self.next(bytes.len());
            match self.next(5) {
                0 => bytes[at] ^= 1 << self.next(8),
                1 => bytes[at] = b"{}[]\",:\\0e.-tk=:/"[self.next(17)],
                2 => bytes.truncate(at),
                3 => {
                    let end = (at + self.next(40)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => bytes.insert(at, self.next(256) as u8),
            }
        }
        bytes
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let outcomes = cases().into_iter().flat_map(|(_, records)| records).map(|record| record.outcome);
    let bodies = outcomes.filter_map(|outcome| match outcome {
        CallOutcome::Replied(reply) => Some(reply.body),
        CallOutcome::Failed(_) => None,
    });
    let mut bodies: Vec<Vec<u8>> = bodies.collect();
    bodies.push(br#"{"code":"ok","url":"kmps://[::1]:7","connect_data":"Zm8=","required":false}"#.to_vec());
    let requests = [
        "GET /?pretty=1",
        "DELETE /rtmp_kmp_api/sessions/7",
        "POST /kmp_out_api/tracks/1/upstreams\n{\"id\":\"a\",\"url\":\"10.0.0.1:1\",\"src_id\":\"b\"}",
        "DELETE /kmp_out_api/tracks/1/upstreams/my%20id",
        "POST /multi\n[{\"uri\":\"/sessions/7\",\"method\":\"DELETE\"},{\"uri\":\"/\",\"method\":\"GET\",\"body\":null}]",
    ];
    bodies.extend(requests.map(|request| request.as_bytes().to_vec()));
    bodies.sort();
    bodies.dedup();
    bodies
}

#[test]
fn every_target_holds_over_recordings_and_their_mutations() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let seeds = seeds();
    for (_, target) in TARGETS {
        target(&[]);
        for seed in &seeds {
            target(seed);
            (0..150).for_each(|_| target(&random.mutate(seed)));
        }
    }
}
