use super::*;

const CANONICAL: &str = r#"{"version":13,
 "ingest":{"s1":[{"node_id":"n2","node_url":"rtmp://n2.example:1935/relay","node_key":"K1"}]},
 "relay": {"s1":[{"node_id":"n3","node_url":"rtmp://n3.example:1935/relay","node_key":"K2"}]},
 "accept":{"s1":[{"node_id":"n1","node_key":"K1"}]}}"#;

fn pushes(tables: &Tables, role: Role, streams: &[&str], own: &Own) -> Vec<(String, String)> {
    let pushes = tables.pushes(&Roles::one(role), streams.iter().copied(), own);
    pushes.into_iter().map(|(id, key)| (id.node_url, key.reveal().to_owned())).collect()
}

#[test]
fn check_09_an_ingest_reads_its_table_and_a_relay_its_own() {
    let tables = Tables::parse(CANONICAL.as_bytes()).unwrap();
    let own = Own::default();
    let to = |url: &str, key: &str| vec![(format!("rtmp://{url}/relay"), key.to_owned())];
    assert_eq!(pushes(&tables, Role::Ingest, &["s1"], &own), to("n2.example:1935", "K1"));
    assert_eq!(pushes(&tables, Role::RootRelay, &["s1"], &own), to("n3.example:1935", "K2"));
    assert_eq!(pushes(&tables, Role::Relay, &["s1"], &own), to("n3.example:1935", "K2"));
    assert!(pushes(&tables, Role::Ingest, &["s2"], &own).is_empty(), "a stream that is not here");
    let only_relay =
        Tables::parse(br#"{"version":1,"relay":{"s1":{"node_url":"rtmp://a/r","node_key":"K"}}}"#);
    assert!(pushes(&only_relay.unwrap(), Role::Ingest, &["s1"], &own).is_empty());
}

#[test]
fn check_11_a_key_is_good_for_its_stream_also_as_a_bare_name() {
    let tables = Tables::parse(CANONICAL.as_bytes()).unwrap();
    assert_eq!(tables.accepts("s1", "K1").unwrap().node_id, "n1");
    assert!(tables.accepts("s1", "BAD").is_none() && tables.accepts("s1", "").is_none());
    assert!(tables.accepts("s2", "K1").is_none());
    assert_eq!(tables.stream_of("K1").unwrap().0, "s1");
    assert!(tables.stream_of("K2").is_none(), "keys of what goes out open nothing here");
}

#[test]
fn check_18_odd_forms_read_as_the_canonical_one_and_garbage_does_not() {
    let canonical = Tables::parse(CANONICAL.as_bytes()).unwrap();
    let odd = r#"{"version":"13",
     "ingest":[{"s1":[{"node_id":"n2","node_url":"rtmp://n2.example:1935/relay","node_key":"K1"}]}],
     "relay":[{"steam_id":"s1","node_id":"n3","node_url":"rtmp://n3.example:1935/relay","node_key":"K2"}],
     "accept":[{"x":[{"stream_id":"s1","node_id":"n1","node_key":"K1"}]}], "more":[1]}"#;
    assert_eq!(Tables::parse(odd.as_bytes()).unwrap(), canonical);
    for bad in [
        "",
        "garbage",
        "[]",
        "{}",
        r#"{"version":-1}"#,
        r#"{"version":1.5}"#,
        r#"{"version":1,"ingest":7}"#,
        r#"{"version":1,"ingest":[7]}"#,
        r#"{"version":1,"relay":{"s1":[7]}}"#,
        r#"{"version":1,"epoch":[]}"#,
        r#"{"version":1,"relay":{"../x":[{"node_url":"rtmp://a/r","node_key":"K"}]}}"#,
        r#"{"version":1,"relay":{"s1":[{"node_url":"http://a/r","node_key":"K"}]}}"#,
        r#"{"version":1,"relay":{"s1":[{"node_url":"rtmp://a/r"}]}}"#,
        r#"{"version":1,"relay":{"s1":[{"node_url":"rtmp://a/r","node_key":"a b"}]}}"#,
        r#"{"version":1,"accept":{"s1":[{"node_id":7,"node_key":"K"}]}}"#,
    ] {
        assert!(Tables::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn check_18_an_older_version_needs_another_epoch() {
    let table = |version: u64, epoch: Option<&str>| Tables {
        version,
        epoch: epoch.map(str::to_owned),
        ..Tables::default()
    };
    let now = table(13, Some("a"));
    assert_eq!(now.may_become(&table(12, Some("a"))), Err(TableError::Old { have: 13, got: 12 }));
    for next in [table(13, Some("a")), table(14, Some("a")), table(1, Some("b")), table(1, None)] {
        assert_eq!(now.may_become(&next), Ok(()));
    }
}

#[test]
fn check_24_entries_that_point_to_the_node_itself_are_left_out() {
    let tables = Tables::parse(CANONICAL.as_bytes()).unwrap();
    let ids = Own { ids: ["n3".to_owned()].into(), addresses: BTreeSet::new() };
    assert!(pushes(&tables, Role::Relay, &["s1"], &ids).is_empty());
    let addresses = Own { ids: BTreeSet::new(), addresses: ["n3.example:1935".to_owned()].into() };
    assert!(pushes(&tables, Role::Relay, &["s1"], &addresses).is_empty());
    assert_eq!(address("rtmp://N3.Example/relay").as_deref(), Some("n3.example:1935"));
    assert_eq!(address("rtmps://[::1]/relay").as_deref(), Some("[::1]:443"));
    for none in
        ["rtmp://a", "rtmp://a/", "rtmp:///x", "rtmp://a b/x", "http://a/x", "rtmp://u@a/x", "rtmp://a/x?k=1"]
    {
        assert_eq!(address(none), None, "{none}");
    }
}

#[test]
fn a_table_has_bounds() {
    let entry = r#"{"node_url":"rtmp://a/r","node_key":"K"}"#;
    let of_stream = |count: usize| {
        let entries = vec![entry; count].join(",");
        Tables::parse(format!(r#"{{"version":1,"relay":{{"s1":[{entries}]}}}}"#).as_bytes())
    };
    assert!(of_stream(64).is_ok() && of_stream(65).is_err());
    let streams = |count: usize| {
        let streams: Vec<String> = (0..count).map(|n| format!(r#""s{n}":[{entry}]"#)).collect();
        Tables::parse(format!(r#"{{"version":1,"relay":{{{}}}}}"#, streams.join(",")).as_bytes())
    };
    assert!(streams(2000).is_ok() && streams(2001).is_err());
    let long = vec![b' '; DOCUMENT_MAX + 1];
    assert!(matches!(Tables::parse(&long), Err(TableError::TooLong { .. })));
    let deep = "[".repeat(10_000);
    assert!(Tables::parse(deep.as_bytes()).is_err());
}
