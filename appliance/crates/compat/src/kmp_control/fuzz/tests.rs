use super::*;
use crate::CallOutcome;
use crate::kmp_control::testing::cases;
use crate::mutation::run_with;

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
    let seeds = seeds();
    for (_, target) in TARGETS {
        target(&[]);
        run_with(b"{}[]\",:\\0e.-tk=:/", target, &seeds, 150, 0x9E37_79B9_7F4A_7C15);
    }
}
