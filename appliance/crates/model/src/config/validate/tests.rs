use super::*;
use serde_json::json;

fn problems(value: Value) -> Vec<String> {
    let config = Config::from_value(value).expect("has the shape of a config");
    validate(&config).iter().map(ToString::to_string).collect()
}

fn mountpoints(mountpoints: Value) -> Vec<String> {
    problems(json!({"rtmp": {"listen": ["127.0.0.1:1935"]}, "mountpoints": mountpoints}))
}

/// The example that the project promises to take as it stands.
const EXAMPLE: &str = include_str!("../../../testdata/example.json");

#[test]
fn the_documented_example_is_valid() {
    let config = Config::parse(EXAMPLE).unwrap();
    assert_eq!(validate_on(&config, Some(1 << 30)), []);
    assert_eq!(config.mountpoints.len(), 6);
    assert_eq!(validate(&Config::default()), []);
}

#[test]
fn names_are_bounded_and_a_star_only_ends_them() {
    let publish = json!({"source": {"kind": "publish"}});
    let found = mountpoints(json!({
        "ok-1.a_B": publish, "t*": publish, "*": publish,
        "": publish, "a*b": publish, "a b": publish, "-x": publish, "..": publish, "a/b": publish,
        "x".repeat(65): publish,
    }));
    assert_eq!(found.len(), 7, "{found:#?}");
    assert!(found.iter().any(|problem| problem.contains("a name may have one *, at its end, got \"a*b\"")));
}

#[test]
fn renditions_are_other_mountpoints_that_can_be_watched() {
    let publish = json!({"kind": "publish"});
    let with = |renditions: Value| {
        mountpoints(json!({
            "yard": {"source": publish, "hls": {"renditions": renditions}},
            "low": {"source": publish, "hls": {}},
            "shut": {"source": publish},
            "t*": {"source": publish, "hls": {}},
        }))
    };
    assert_eq!(with(json!(["low"])), Vec::<String>::new());
    let found = with(json!(["low", "yard", "shut", "t*", "nowhere"]));
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].contains("mountpoints.yard.hls.renditions[1]"), "{found:#?}");
}

#[test]
fn sizes_are_even_and_differ() {
    let with =
        |sizes: Value| mountpoints(json!({"yard": {"source": {"kind": "publish"}, "hls": {"sizes": sizes}}}));
    assert_eq!(with(json!([{"height": 360}, {"height": 240, "max_frame_rate": 5}])), Vec::<String>::new());
    let found = with(json!([{"height": 360}, {"height": 241}, {"height": 360}]));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("mountpoints.yard.hls.sizes[1].height"), "{found:#?}");
    assert!(found[1].contains("mountpoints.yard.hls.sizes[2].height"), "{found:#?}");
    for wrong in [json!({"height": 62}), json!({"height": 2162}), json!({"height": 360, "bitrate": 9999})] {
        let config =
            json!({"mountpoints": {"yard": {"source": {"kind": "publish"}, "hls": {"sizes": [wrong]}}}});
        assert_eq!(Config::from_value(config).unwrap_err().len(), 1, "{wrong}");
    }
}

#[test]
fn templates_are_published_to_and_only_they_have_a_max() {
    let found = mountpoints(json!({
        "a": {"source": {"kind": "publish"}, "max": 3},
        "b*": {"source": {"kind": "test"}},
        "c*": {"source": {"kind": "publish"}, "push": [{"url": "rtmp://up/live/fixed"}]},
        "d*": {"source": {"kind": "publish"}, "max": 1, "push": [{"url": "rtmp://up/live/fixed"}]},
        "e": {"source": {"kind": "publish"}, "push": [{"url": "rtmp://up/live/{name}"}]},
        "f*": {"source": {"kind": "publish"}, "push": [{"url": "rtmp://up/live/{nam}"}]},
        "g*": {"source": {"kind": "publish"}, "push": [{"url": "kmp://up:1", "channel_id": "{name}"}]},
    }));
    assert_eq!(
        found,
        [
            "mountpoints.a.max: only a template (a name ending in *) has it, got 3",
            "mountpoints.b*.source.kind: a template (a name ending in *) must be publish, got \"test\"",
            "mountpoints.c*.push[0].url: every stream of the template would be pushed to one address, got \
             \"rtmp://up/live/fixed\" (put {name} into the URL or channel_id, or set max to 1)",
            "mountpoints.e.push[0].url: {name} has a meaning only in a template (a name ending in *), got \
             \"rtmp://up/live/{name}\"",
            "mountpoints.f*.push[0].url: {name} is the only placeholder, got \"rtmp://up/live/{nam}\"",
            "mountpoints.f*.push[0].url: every stream of the template would be pushed to one address, got \
             \"rtmp://up/live/{nam}\" (put {name} into the URL or channel_id, or set max to 1)",
        ]
    );
}

#[test]
fn no_address_is_listened_on_twice() {
    let found = problems(json!({
        "rtmp": {
            "listen": ["127.0.0.1:1935", "127.0.0.1:0", "127.0.0.1:0", "[::1]:1935"],
            "tls": {"listen": ["0.0.0.0:1935"], "cert": "/c.pem", "key": "k.pem"},
        },
        "admin": {"listen": ["127.0.0.1:1935"]},
    }));
    assert_eq!(
        found,
        [
            "rtmp.tls.listen[0]: is already taken by rtmp.listen[0], got \"0.0.0.0:1935\"",
            "admin.listen[0]: is already taken by rtmp.listen[0], got \"127.0.0.1:1935\"",
            "rtmp.tls.key: must be an absolute path, got \"k.pem\"",
        ]
    );
}

#[test]
fn the_admin_plane_over_tls_has_both_files_or_none_and_names_of_hosts() {
    let tls = |tls: Value| problems(json!({"admin": {"tls": tls}}));
    assert_eq!(tls(json!({"listen": ["0.0.0.0:8443"], "names": ["gate-7.example.org"]})), [""; 0]);
    assert_eq!(
        tls(json!({"listen": ["127.0.0.1:8080"], "cert": "c.pem", "names": ["a b"]})),
        [
            "admin.tls.listen[0]: is already taken by admin.listen[0], got \"127.0.0.1:8080\"",
            "admin.tls.key: is missing beside cert",
            "admin.tls.cert: must be an absolute path, got \"c.pem\"",
            "admin.tls.names[0]: must be a host's name, got \"a b\" (letters, digits, - and . such as gate-7.example.org)",
        ]
    );
}

#[test]
fn the_admin_plane_stays_on_loopback_without_tls() {
    let found = problems(
        json!({"admin": {"listen": ["0.0.0.0:8080", "10.0.0.1:8081", "127.0.0.2:8080", "[::1]:8080"]}}),
    );
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(
        found
            .iter()
            .any(|problem| problem.starts_with("admin.listen[0]: must be a loopback address: passwords"))
    );
    assert!(
        found
            .iter()
            .any(|problem| problem.starts_with("admin.listen[1]: must be a loopback address: passwords"))
    );
}

#[test]
fn a_kmp_push_has_one_order_and_one_place_for_its_backlog() {
    let push = |more: Value| {
        let mut push = json!({"url": "kmp://up:6543", "channel_id": "c"});
        push.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        push
    };
    let found = mountpoints(json!({
        "a": {"source": {"kind": "publish"}, "push": [
            push(json!({"id": "0", "order": "live_first", "backlog_channel_id": "late"})),
            push(json!({"id": "1", "order": "live_first"})),
            push(json!({"id": "2", "backlog_channel_id": "late"})),
            push(json!({"id": "3", "order": "live_first", "backlog_channel_id": "c"})),
            push(json!({"id": "4", "memory": {"video_bytes": 1048576}, "spool": {}})),
            {"url": "rtmp://up/live/x", "order": "live_first", "memory": {}},
        ]},
        "s*": {"source": {"kind": "publish"}, "push": [
            {"url": "kmp://up:6543", "channel_id": "{name}", "order": "live_first", "backlog_channel_id": "late"}]},
    }));
    assert_eq!(
        found,
        [
            "mountpoints.a.push[1].backlog_channel_id: is missing; live_first needs a second channel, as ids only rise \
             on a channel",
            "mountpoints.a.push[2].backlog_channel_id: has a meaning only with order live_first, got \"late\"",
            "mountpoints.a.push[3].backlog_channel_id: must differ from channel_id, got \"c\"",
            "mountpoints.a.push[4].memory: has no meaning beside spool (leave one of them out)",
            "mountpoints.a.push[5].memory: has a meaning only for kmp:// URLs",
            "mountpoints.a.push[5].order: has a meaning only for kmp:// URLs",
            "mountpoints.s*.push[0].backlog_channel_id: every stream of the template would share it, got \"late\" \
             (put {name} into it, as into channel_id)",
        ]
    );
    let push = push(json!({"memory": {"video_bytes": 1000, "audio_bytes": 1000}}));
    let config = json!({"mountpoints": {"a": {"source": {"kind": "publish"}, "push": [push]}}});
    let problems = Config::parse(&config.to_string()).unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let says = |field: &str, bound: &str| {
        problems.iter().any(|problem| problem.contains(field) && problem.contains(bound))
    };
    assert!(says("memory.audio_bytes", "16384") && says("memory.video_bytes", "262144"), "{problems:?}");
}

#[test]
fn urls_must_fit_their_use() {
    let found = mountpoints(json!({
        "a": {"source": {"kind": "rtsp", "url": "http://u:secret@cam/"}},
        "b": {"source": {"kind": "pull", "url": "rtmp://far/live"}},
        "c": {"source": {"kind": "publish"}, "push": [
            {"url": "http://up/x"}, {"url": "rtmp://up"}, {"url": "up/live/x"}, {"url": "RTMP://up/live/x"},
            {"url": "kmp://up"}, {"url": "rtmp://up/live/y", "channel_id": "x", "verify": false},
            {"url": "rtmp://a.example/live2/KEY?backup=1"}, {"url": "rtmps://up/app/x", "ca": "ca.pem"},
            {"url": "rtmp://up/live/z", "spool": {}},
        ]},
    }));
    assert_eq!(
        found,
        [
            "mountpoints.a.source.url: scheme must be rtsp or rtsps, got \"http\"",
            "mountpoints.b.source.url: names no stream, got \"rtmp://far/live\" (rtmp://HOST/APPLICATION/STREAM)",
            "mountpoints.c.push[0].url: scheme must be rtmp, rtmps, kmp or kmps, got \"http\"",
            "mountpoints.c.push[1].url: names no stream, got \"rtmp://up\" (rtmp://HOST/APPLICATION/STREAM)",
            "mountpoints.c.push[2].url: must start with a scheme such as rtmp://, got \"up/live/x\"",
            "mountpoints.c.push[4].url: names no port, got \"kmp://up\"",
            "mountpoints.c.push[4].channel_id: is missing; KMP needs it",
            "mountpoints.c.push[5].channel_id: has a meaning only for kmp:// URLs",
            "mountpoints.c.push[5].verify: has a meaning only for rtmps:// and kmps:// URLs",
            "mountpoints.c.push[7].ca: must be an absolute path, got \"ca.pem\"",
            "mountpoints.c.push[8].spool: has a meaning only for kmp:// URLs",
        ]
    );
}

#[test]
fn a_push_is_named_once() {
    let found = mountpoints(json!({"a": {"source": {"kind": "publish"}, "push": [
        {"url": "rtmp://u:1@up/live/x"}, {"url": "rtmp://u:2@up/live/x"},
        {"url": "rtmp://up/live/x", "id": "p"}, {"url": "rtmp://up/live/z", "id": "p"},
    ]}}));
    assert_eq!(
        found,
        [
            "mountpoints.a.push[1].url: is already pushed to from this mountpoint, got \"rtmp://u:***@up/live/x\" \
             (give both an id if this is meant)",
            "mountpoints.a.push[3].id: is already taken in this mountpoint, got \"p\"",
        ]
    );
}

#[test]
fn no_stream_feeds_itself() {
    let found = mountpoints(json!({
        "a": {"source": {"kind": "publish"}, "push": [{"url": "rtmp://localhost/live/a"}]},
        "b": {"source": {"kind": "publish"}, "push": [{"url": "rtmp://127.0.0.1/live/c"}]},
        "c": {"source": {"kind": "publish"}, "push": [{"url": "rtmp://127.0.0.1:1935/live/b"}]},
        "d": {"source": {"kind": "publish"}, "push": [{"url": "rtmp://127.0.0.1/live/e"}]},
        "e": {"source": {"kind": "pull", "url": "rtmp://elsewhere/live/e"}},
        "f": {"source": {"kind": "pull", "url": "rtmp://[::1]:2000/live/f"}},
        "s*": {"source": {"kind": "publish"}, "push": [{"url": "rtmp://127.0.0.1/live/s{name}"}]},
        "g": {"source": {"kind": "publish"}, "push": [{"url": "rtmp://127.0.0.1/live/s-copy-of-g"}]},
    }));
    let fed: Vec<&str> =
        found.iter().filter_map(|problem| problem.split_once(": ").map(|(path, _)| path)).collect();
    assert_eq!(
        fed,
        [
            "mountpoints.a.push[0].url",
            "mountpoints.b.push[0].url",
            "mountpoints.c.push[0].url",
            "mountpoints.d.push[0].url",
            "mountpoints.s*.push[0].url",
        ],
        "{found:#?}"
    );
    assert!(found[3].contains("whose source is pull, not publish"));
}

#[test]
fn rings_over_the_budget_are_refused() {
    let config = Config::from_value(json!({"mountpoints": {
        "a": {"source": {"kind": "publish"}},
        "b": {"source": {"kind": "publish"}, "ring": {"bytes": 16 << 20}},
    }}))
    .unwrap();
    assert_eq!(validate_on(&config, Some(96 << 20)), [], "exactly at the limit");
    assert_eq!(validate_on(&config, Some((96 << 20) - 4)).len(), 1, "one byte past it");
    let mut config = config;
    config.media.memory_bytes = Some((24 << 20) - 1);
    let found = validate(&config);
    assert_eq!(found[0].path, "media.memory_bytes");
    assert!(found[0].problem.contains("need 25165824 bytes, the budget is 25165823"), "{}", found[0]);
}

#[test]
fn combinations_that_cannot_work_are_refused() {
    let found = mountpoints(json!({
        "a": {"source": {"kind": "v4l2", "device": "/dev/video0"}, "max_lag": "20s"},
        "b": {"source": {"kind": "v4l2", "device": "/dev/video0", "width": 641}},
        "c": {"source": {"kind": "v4l2", "device": "/dev/../etc/passwd"}},
        "f": {"source": {"kind": "mjpeg", "url": "rtsp://cam/"}},
        "g": {"source": {"kind": "mjpeg", "url": "http://cam/", "verify": false, "allow_basic": true}},
        "h": {"source": {"kind": "rtp"}},
        "i": {"source": {"kind": "test", "microphone": "file:/etc/passwd"}},
        "e": {"source": {"kind": "file", "path": "/srv/../etc/shadow"}},
        "d": {"source": {"kind": "publish", "key": "with blank"}, "play": {"key": "\u{e9}"}},
    }));
    let paths: Vec<&str> =
        found.iter().filter_map(|problem| problem.split_once(": ").map(|(path, _)| path)).collect();
    assert_eq!(
        paths,
        [
            "mountpoints.a.max_lag",
            "mountpoints.b.source.width",
            "mountpoints.b.source.device",
            "mountpoints.c.source.device",
            "mountpoints.d.source.key",
            "mountpoints.d.play.key",
            "mountpoints.e.source.path",
            "mountpoints.f.source.url",
            "mountpoints.g.source.verify",
            "mountpoints.g.source.allow_basic",
            "mountpoints.h.source",
            "mountpoints.i.source.microphone",
        ],
        "{found:#?}"
    );
    assert!(!found.concat().contains("with blank"), "a key is never repeated");
}

#[test]
fn a_typed_config_is_held_to_the_same_ranges_as_a_written_one() {
    let mut config = Config::default();
    config.rtmp.max_connections = 0;
    config.rtmp.idle_timeout = crate::config::Span::from_millis(1);
    assert_eq!(validate(&config).len(), 3);
}

#[test]
fn what_is_no_json_says_where() {
    let found = Config::parse("{\"rtmp\": }").unwrap_err();
    assert!(found[0].problem.contains("line 1 column 10"), "{}", found[0]);
    assert!(Config::parse(&"[".repeat(100_000)).is_err(), "nesting is bounded");
    assert!(Config::parse("[]").is_err());
}

#[test]
fn any_bytes_are_survived() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..2_000 {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        for _ in 0..1 + next() % 4 {
            let at = (next() % bytes.len() as u64) as usize;
            bytes[at] = b"\"{}[]:,0aZ*\\\xff-."[(next() % 15) as usize];
        }
        if let Ok(config) = Config::parse(&String::from_utf8_lossy(&bytes)) {
            validate(&config);
            if let Ok(stored) = config.stored() {
                assert_eq!(Config::from_value(stored).unwrap(), config);
            }
        }
    }
}

#[test]
fn faults_of_shape_do_not_hide_faults_of_sense() {
    let text = r#"{
        "rtmp": {"lisen": []},
        "admin": {"listen": ["10.0.0.1:80"]},
        "mountpoints": {
            "a b": {"source": {"kind": "tst"}},
            "c": {"source": {"kind": "rtsp", "url": "http://cam/"}}
        }}"#;
    let found = Config::parse(text).unwrap_err();
    let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            r#"mountpoints["a b"].source.kind"#,
            "rtmp.lisen",
            r#"mountpoints["a b"]"#,
            "admin.listen[0]",
            "mountpoints.c.source.url",
        ]
    );
}

fn applications(applications: Value) -> Vec<String> {
    problems(json!({"compat": {"kmp": {"applications": applications}}}))
}

#[test]
fn a_controller_is_one_address_and_the_rest_has_defaults() {
    assert_eq!(applications(json!({"live": {"publish_url": "http://10.0.0.1/publish"}})), [""; 0]);
    let found = applications(json!({
        "relay": {"publish_url": "https://ctl:8443/p?token=x"},
        "a/b": {"publish_url": "http://ctl"},
        "c": {},
        "d": {"publish_url": "ftp://ctl/p", "connect_url": "http://u:s3cret@ctl/", "republish_url": "http://c/#x"},
        "e": {
            "publish_url": "http://ctl/", "strict": true, "ca": "/ca.pem", "mem_low_watermark": 75,
            "video_buffer_bytes": 8192, "video_mem_limit": 4096, "timescale": 44100,
        },
    }));
    assert_eq!(
        found,
        [
            "compat.kmp.applications[\"a/b\"]: a name is 1 to 64 of A-Z a-z 0-9 . _ - and starts with a letter or \
             digit, got \"a/b\"",
            "compat.kmp.applications.c.publish_url: is missing; without it nothing is sent anywhere (the controller's \
             address, such as \"http://10.0.0.1/publish\")",
            "compat.kmp.applications.d.connect_url: must have no user and password, got \"http://u:***@ctl/\" (put an \
             Authorization header into add_header)",
            "compat.kmp.applications.d.publish_url: scheme must be http or https, got \"ftp\"",
            "compat.kmp.applications.d.republish_url: must have no part after #, got \"http://c/#x\"",
            "compat.kmp.applications.e.ca: has a meaning only for https:// callbacks, or without strict for kmps:// \
             upstreams",
            "compat.kmp.applications.e.mem_low_watermark: must be less than mem_high_watermark, which is 75, got 75",
            "compat.kmp.applications.e.video_buffer_bytes: must be at most video_mem_limit, which is 4096, got 8192",
            "compat.kmp.applications.e.timescale: must be a multiple of 1000, else times drift, got 44100 (90000 suits \
             every codec)",
            "compat.kmp.applications.relay: relay is reserved for other gateways, got \"relay\"",
        ]
    );
}

#[test]
fn headers_of_callbacks_can_break_no_request() {
    let header = |name: &str, value: &str| json!({"name": name, "value": value});
    let found = applications(json!({"a": {"publish_url": "http://ctl/", "add_header": [
        header("X-Fieldgate-Test", "abc"),
        header("Authorization", "Bearer a b"),
        header("content-length", "7"),
        header("X Y", "1"),
        header("X-A", "s3cret\r\nX-B: 1"),
        header("X-C", " s3cret"),
    ]}}));
    assert_eq!(
        found,
        [
            "compat.kmp.applications.a.add_header[2].name: is a header that callbacks have anyway, got \
             \"content-length\"",
            "compat.kmp.applications.a.add_header[3].name: must be a header's name: letters, digits and - without \
             blanks, got \"X Y\"",
            "compat.kmp.applications.a.add_header[4].value: a value is 1 to 256 printable ASCII characters without a \
             blank at either end",
            "compat.kmp.applications.a.add_header[5].value: a value is 1 to 256 printable ASCII characters without a \
             blank at either end",
        ]
    );
}

#[test]
fn the_connectors_api_is_open_to_named_networks_only() {
    let api = |api: Value| problems(json!({"rtmp": {"listen": []}, "compat": {"kmp": {"api": api}}}));
    assert_eq!(api(json!({"listen": ["127.0.0.1:8001", "[::1]:8001"], "write": true})), [""; 0]);
    assert_eq!(api(json!({"listen": ["0.0.0.0:8001"], "allow": ["10.0.0.0/8"]})), [""; 0]);
    assert_eq!(
        api(json!({"listen": ["0.0.0.0:8001"]})),
        [
            "compat.kmp.api.listen[0]: is reached from elsewhere, but only loopback may ask, got \"0.0.0.0:8001\" \
             (name the networks that may use it in compat.kmp.api.allow)"
        ]
    );
    assert_eq!(
        api(json!({"listen": ["127.0.0.1:8080"]})),
        ["compat.kmp.api.listen[0]: is already taken by admin.listen[0], got \"127.0.0.1:8080\""]
    );
}

#[test]
fn the_kmp_page_names_every_setting_and_its_example_is_valid() {
    let page = include_str!("../../../../../docs/kmp.md");
    let example = page.split("```").find_map(|block| block.strip_prefix("json")).expect("an example");
    assert_eq!(validate(&Config::parse(example).unwrap()), []);
    let schema = shape::schema();
    for name in schema["$defs"]["KmpApplication"]["properties"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("`{name}")), "docs/kmp.md does not name {name}");
    }
}

#[test]
fn two_rtp_sources_need_ports_of_their_own() {
    let rtp = |port: u16, more: Value| {
        let mut source =
            json!({"kind": "rtp", "streams": [{"media": "video", "port": port, "encoding": "H264"}]});
        source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "source": source })
    };
    let beside = |other: Value| mountpoints(json!({"a": rtp(5004, json!({})), "b": other}));
    for taken in [5003, 5004, 5005] {
        let found = beside(rtp(taken, json!({})));
        assert_eq!(found.len(), 1, "{taken}: {found:?}");
        assert!(found[0].contains("port 5004 and the next are already taken by mountpoints.a"), "{found:?}");
    }
    assert!(beside(rtp(5006, json!({}))).is_empty());
    assert_eq!(beside(rtp(5004, json!({"listen": "10.0.0.1"}))).len(), 1, "any address is also this one");
    assert_eq!(beside(rtp(5004, json!({"group": "239.1.2.3"}))).len(), 1);
    let groups = ["239.1.2.3", "239.1.2.4"].map(|group| rtp(5004, json!({ "group": group })));
    let [one, other] = groups;
    assert!(mountpoints(json!({"a": one, "b": other})).is_empty());
}
