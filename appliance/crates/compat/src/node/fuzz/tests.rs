use super::*;
use crate::mutation::run_with;

fn mutations(seeds: &[&str], rounds: usize, target: impl FnMut(&[u8])) {
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    run_with(b"{}[]\",:0sn", target, &seeds, rounds, 0x9E37_79B9_7F4A_7C15);
}

#[test]
fn check_18_mutated_tables_are_read_or_refused() {
    let seeds = [
        r#"{"version":13,"ingest":{"s1":[{"node_id":"n2","node_url":"rtmp://n2:1935/relay","node_key":"K1"}]},
            "relay":[{"s2":{"node_id":"me","node_url":"rtmp://me:1935/relay","node_key":"K2"}}],"accept":{}}"#,
        r#"{"version":"1","epoch":"a","relay":[{"steam_id":"s1","node_url":"rtmp://me/r","node_key":"K"}]}"#,
    ];
    mutations(&seeds, 4000, tables);
}

#[test]
fn mutated_replies_of_a_master_are_read_or_refused() {
    let heartbeat = [
        "0{\"heartbeat_id\":\"h\",\"key\":\"k\",\"interval\":5,\"frame_of_error\":2}",
        "1{\"heartbeat_id\":\"h\",\"key\":\"k\",\"interval\":0,\"mode\":\"R\",\"commands\":[{\"cmd\":\"drop\"}]}",
    ];
    #[allow(clippy::disallowed_methods, reason = "only differences matter")]
    let now = Instant::now();
    mutations(&heartbeat, 3000, |data| heartbeat_reply(data, now));
    let replies = [
        r#"[{"token":"t","status":"ok","stream_id":"s1","ttl":300},{"status":200,"stream_id":"s2"}]"#,
        r#"{"id":"n","name":"n","mode":"RR","slug":"s","secret":"x","rtmp_ip":"1.2.3.4","rtmp_port":"7"}"#,
        r#"{"accepted":false,"table_version":7}"#,
    ];
    mutations(&replies, 3000, master_reply);
}
