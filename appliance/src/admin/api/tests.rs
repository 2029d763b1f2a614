//! The config API over real sockets, down to the steward and its files.

use super::*;
use crate::admin::{Admin, Settings};
use crate::steward::{Reconcile, Steward};
use crate::store::{Confirmed, DirFs, Store};
use fieldgate_hub::Clock;
use fieldgate_model::Timestamp;
use fieldgate_model::config::Part;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use tokio_util::sync::CancellationToken;

/// A running side on which everything starts and nothing was ever delivering.
struct Willing;

impl Reconcile for Willing {
    async fn reconcile(&mut self, _: &Config, _: &Config) -> Result<(), Vec<Problem>> {
        Ok(())
    }
    fn healthy(&self) -> BTreeSet<Part> {
        BTreeSet::new()
    }
}

/// On a machine with a software encoder that takes a lot.
fn masks() -> Arc<MaskDesk> {
    let registry = fieldgate_hub::Registry::new(1, Arc::new(fieldgate_net::RtmpForm));
    Arc::new(MaskDesk::in_memory(Arc::new(registry), planner().capacity))
}

fn planner() -> Planner {
    let capacity = Arc::new(crate::wiring::capacity::tests::capacity(200_000));
    Planner { capacity, machine_memory_bytes: None }
}

struct Running {
    address: SocketAddr,
    local: String,
    folder: PathBuf,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn first_config() -> Config {
    let value = json!({"mountpoints": {"yard": {"source": {"kind": "publish", "key": "s3cret"}}}});
    serde_json::from_value(value).unwrap()
}

impl Running {
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("fg-api-{}", crate::admin::random_name().unwrap()));
        std::fs::create_dir_all(&folder).unwrap();
        let cancel = CancellationToken::new();
        let (tell, told) = sync_channel(1);
        let (access, local) = crate::access::tests::for_tests();
        let (folder_, cancel_) = (folder.clone(), cancel.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut store, _) =
                    Store::open(Box::new(DirFs::open(&folder_.join("state")).unwrap())).unwrap();
                store.write_candidate(&first_config(), "test", Timestamp::default()).unwrap();
                let meta = store.promote().unwrap();
                let pulses = Pulses::default();
                let steward = Steward {
                    store,
                    confirmed: Confirmed { config: first_config(), meta },
                    running: Willing,
                    clock: Clock::default(),
                    pulse: pulses.watch("steward", Duration::from_secs(60)),
                    confirm_within: Duration::from_secs(90),
                    machine_memory_bytes: None,
                };
                let (steward, work) = steward.start(cancel_.clone());
                let settings = Settings {
                    listen: vec!["127.0.0.1:0".parse().unwrap()],
                    secure: None,
                    host_names: Vec::new(),
                    local_name: crate::local_name::LocalName::new("fg-7f3a"),
                    socket_folder: folder_.clone(),
                };
                let admin = Admin::bind(
                    &settings,
                    Arc::new(Gateway::new(
                        steward,
                        pulses,
                        Status::default,
                        Arc::default(),
                        planner(),
                        Arc::default(),
                        masks(),
                    )),
                    access,
                )
                .unwrap();
                tell.send(admin.addresses()[0]).unwrap();
                let ((ended, under_way), ()) = tokio::join!(admin.serve(cancel_.clone()), work);
                under_way.await;
                ended.unwrap();
            });
        });
        Running { address: told.recv().unwrap(), local, folder, cancel, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn ask(&self, request: &str, headers: &str, body: &str) -> (u16, String, Value) {
        self.ask_on(self.connect(), request, headers, body)
    }

    fn ask_on(
        &self,
        mut stream: TcpStream,
        request: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String, Value) {
        let (address, local, len) = (self.address, &self.local, body.len());
        let text = format!(
            "{request} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {local}\r\n\
             Content-Length: {len}\r\n{headers}\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.get(9..12).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or_default())
    }

    fn put(&self, over: u64, config: &Value) -> (u16, Value) {
        let headers = format!("If-Match: \"{over}\"\r\nContent-Type: application/json\r\n");
        let (status, _, body) = self.ask("PUT /api/v1/config", &headers, &config.to_string());
        (status, body)
    }

    fn get(&self) -> (String, Value) {
        let (status, head, body) = self.ask("GET /api/v1/config", "", "");
        assert_eq!(status, 200);
        (head, body)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        let _ = std::fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

#[test]
fn a_config_is_read_changed_and_confirmed_over_http() {
    let gateway = Running::start();
    let (head, mut config) = gateway.get();
    assert!(head.contains("etag: \"1\""), "{head}");
    assert_eq!(
        config["mountpoints"]["yard"]["source"]["key"],
        json!({"set": true}),
        "secrets do not read back"
    );

    config["mountpoints"]["demo"] = json!({"source": {"kind": "test"}});
    assert_eq!(gateway.put(7, &config).0, 412, "a revision that never was");
    let (status, body) = gateway.put(1, &config);
    assert_eq!((status, &body["revision"]), (200, &json!(2)), "an addition is confirmed at once: {body}");
    assert_eq!(gateway.put(1, &config).0, 412, "somebody else was faster");

    // A change of what exists is provisional, and confirmed only over a connection opened after it.
    let older = gateway.connect();
    config["mountpoints"]["yard"]["source"]["key"] = json!("other");
    let (status, body) = gateway.put(2, &config);
    assert_eq!((status, &body["state"]), (202, &json!("awaiting_confirm")), "{body}");
    assert_eq!(gateway.put(2, &config).0, 409, "one change at a time");
    assert_eq!(gateway.ask_on(older, "POST /api/v1/config/confirm", "", "").0, 409);
    assert!(gateway.get().0.contains("etag: \"2\""), "not confirmed yet");
    let (status, _, body) = gateway.ask("POST /api/v1/config/confirm", "", "");
    assert_eq!((status, &body["revision"]), (200, &json!(3)), "{body}");
    assert_eq!(gateway.ask("POST /api/v1/config/confirm", "", "").0, 409, "nothing waits any more");
}

#[test]
fn faults_are_told_all_at_once_with_their_paths() {
    let gateway = Running::start();
    let shape = json!({"mountpoints": {"yard": {"source": {"kind": "publish"}, "pushes": 1}}, "rtpm": {}});
    let (status, body) = gateway.put(1, &shape);
    assert_eq!(status, 400, "{body}");
    let paths: Vec<&str> =
        body["problems"].as_array().unwrap().iter().filter_map(|it| it["path"].as_str()).collect();
    assert!(paths.contains(&"rtpm") && paths.contains(&"mountpoints.yard.pushes"), "{paths:?}");

    let sense = json!({"admin": {"listen": ["0.0.0.0:8080"]},
        "mountpoints": {"yard": {"source": {"kind": "publish"}, "push": [{"url": "http://h/live"}]}}});
    let (status, body) = gateway.put(1, &sense);
    assert_eq!(status, 422, "{body}");
    let paths: Vec<&str> =
        body["problems"].as_array().unwrap().iter().filter_map(|it| it["path"].as_str()).collect();
    assert!(
        paths.contains(&"admin.listen[0]") && paths.contains(&"mountpoints.yard.push[0].url"),
        "{paths:?}"
    );
    assert!(gateway.get().0.contains("etag: \"1\""), "nothing was changed");
}

#[test]
fn a_dry_run_changes_nothing() {
    let gateway = Running::start();
    let (_, mut config) = gateway.get();
    config["mountpoints"]["yard"]["source"]["key"] = json!("other");
    let headers = "If-Match: *\r\nContent-Type: application/json\r\n";
    let (status, _, body) = gateway.ask("PUT /api/v1/config?dry_run", headers, &config.to_string());
    assert_eq!((status, &body["needs_confirm"]), (200, &json!(true)), "{body}");
    assert!(!body["changes"].as_array().unwrap().is_empty(), "what it would change: {body}");
    assert!(gateway.get().0.contains("etag: \"1\""));
    assert_eq!(gateway.ask("POST /api/v1/config/confirm", "", "").0, 409);
}

/// A bounded run of the fuzz target: mutations of a config with all kinds of sources, from a fixed seed.
#[test]
fn any_bytes_sent_as_a_config_are_survived() {
    let seed = json!({
        "rtmp": {"listen": ["127.0.0.1:1935"], "handshake_timeout": "5s"},
        "mountpoints": {
            "yard": {"source": {"kind": "publish", "key": "s3cret", "allow": ["10.0.0.0/8"]},
                     "push": [{"url": "rtmp://u:p@127.0.0.1:2935/live/yard?key=k", "id": "up"}],
                     "play": {"key": "v1ew"}},
            "gate": {"source": {"kind": "rtsp", "url": "rtsp://user:pass@127.0.0.1:8554/main"}},
            "bay": {"source": {"kind": "v4l2", "device": "/dev/video0"}},
            "demo": {"source": {"kind": "test"}},
            "far": {"source": {"kind": "pull", "url": "rtmp://127.0.0.1:3935/live/far"}},
            "s*": {"source": {"kind": "publish"}, "max": 64, "push": [{"url": "rtmp://h/live/{name}"}]}
        }
    })
    .to_string()
    .into_bytes();
    let tokens: [&[u8]; 14] = [
        b"null",
        b"-1",
        b"1e999",
        b"\"\"",
        b"{}",
        b"[]",
        b"true",
        b"*",
        b"{\"set\":true}",
        b"***",
        b"\xff",
        b"18446744073709551616",
        b"\"kind\"",
        b"99999999999d",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    fuzz_config(&seed);
    let mut taken = 0;
    for _ in 0..1_500 {
        let mut bytes = seed.clone();
        for _ in 0..=next(2) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = u8::try_from(0x20 + next(0x60)).unwrap(),
                1 => drop(bytes.remove(at)),
                2 => {
                    let end = (at + next(12)).min(bytes.len());
                    bytes.splice(at..end, tokens[next(tokens.len())].iter().copied());
                }
                _ => {
                    let end = (at + next(40)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
        }
        fuzz_config(&bytes);
        taken += usize::from(read_config(&bytes).is_ok());
    }
    assert!(taken > 100, "mutations must not all be refused at once: {taken}");
}

#[test]
fn a_plan_is_told_for_what_runs_and_for_what_might() {
    let running = Running::start();
    let (status, _, plan) = running.ask("GET /api/v1/plan", "", "");
    assert_eq!((status, plan["mountpoints"][0]["name"].as_str()), (200, Some("yard")));
    assert_eq!(plan["mountpoints"][0]["legs"][0]["output"], "players");
    let two = json!({"limits": {"cpu_percent": 1}, "mountpoints": {
        "a": {"source": {"kind": "test"}, "priority": 10}, "b": {"source": {"kind": "test"}}}});
    let (status, _, plan) =
        running.ask("POST /api/v1/plan", "Content-Type: application/json\r\n", &two.to_string());
    assert_eq!(status, 200, "{plan}");
    assert_eq!(plan["load"]["measured"], true);
    assert_eq!(plan["over"][0]["mountpoint"], "a");
    assert_eq!(plan["problems"][0]["path"], "mountpoints.a.source");
    // Nothing was applied.
    let (_, _, config) = running.ask("GET /api/v1/config", "", "");
    assert!(config["mountpoints"]["a"].is_null());
    let (status, _, problem) = running.ask(
        "POST /api/v1/plan",
        "Content-Type: application/json\r\n",
        r#"{"mountpoints": {"a b": {}}}"#,
    );
    assert_eq!((status, problem["problems"][0]["path"].is_string()), (400, true), "{problem}");
    let (status, ..) = running.ask("POST /api/v1/plan", "", "{}");
    assert_eq!(status, 415);
    let (status, ..) = running.ask("GET /api/v1/plan?format=yaml", "", "");
    assert_eq!(status, 400);
}

const PATCH: &str = "Content-Type: application/merge-patch+json\r\n";

#[test]
fn a_patch_names_what_changes_and_the_history_leads_back() {
    let running = Running::start();
    let patch = |tag: &str, body: &str| {
        running.ask("PATCH /api/v1/config", &format!("{PATCH}If-Match: {tag}\r\n"), body)
    };
    let body = r#"{"mountpoints": {"gate": {"source": {"kind": "publish", "key": "CANARY-1"}}}}"#;
    let (status, text, _) =
        running.ask("PATCH /api/v1/config", "Content-Type: application/json\r\nIf-Match: *\r\n", body);
    assert_eq!(status, 415, "{text}");
    let (status, _, answer) = patch("\"1\"", r#"{"mountpoints": {"gate": {"sorce": 1}}}"#);
    assert_eq!(status, 400, "{answer}");
    assert!(answer["problems"].to_string().contains("did you mean source?"), "{answer}");
    let (status, _, answer) = patch("\"1\"", body);
    assert_eq!((status, answer["revision"].as_u64()), (200, Some(2)), "{answer}");
    assert_eq!(patch("\"1\"", body).0, 412, "made from what is no more");
    let (status, _, answer) =
        patch("\"2\"", r#"{"mountpoints": {"yard": null, "gate": {"play": {"key": "CANARY-2"}}}}"#);
    assert_eq!((status, answer["revision"].as_u64()), (200, Some(3)), "{answer}");

    let (status, text, answer) = running.ask("GET /api/v1/config/history", "", "");
    assert_eq!(status, 200, "{text}");
    let revisions = answer["revisions"].as_array().unwrap();
    let told: Vec<(u64, &str, bool)> = revisions
        .iter()
        .map(|entry| {
            (
                entry["revision"].as_u64().unwrap(),
                entry["by"].as_str().unwrap(),
                entry["current"].as_bool().unwrap(),
            )
        })
        .collect();
    let by = "local from 127.0.0.1";
    assert_eq!(told, [(3, by, true), (2, by, false), (1, "test", false)]);
    assert_eq!(revisions[1]["changes"], json!([{"part": "mountpoint", "name": "gate", "action": "added"}]));
    assert!(revisions[2].get("changes").is_none(), "what was before is not known");

    let (_, text, answer) = running.ask("GET /api/v1/config/history/3", "", "");
    let paths: Vec<&str> =
        answer["diff"].as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["mountpoints.gate.play.key", "mountpoints.yard"], "{text}");
    assert!(!text.contains("CANARY") && !text.contains("s3cret"), "{text}");
    assert_eq!(running.ask("GET /api/v1/config/history/9", "", "").0, 404);

    let restore =
        |target: &str| running.ask(&format!("POST /api/v1/config/history/{target}"), "If-Match: *\r\n", "");
    let (status, _, answer) = restore("1/restore?dry_run");
    assert_eq!((status, answer["state"].as_str()), (200, Some("would_apply")), "{answer}");
    assert_eq!(answer["blips"], json!([{"mountpoint": "gate", "what": "mountpoint gate"}]), "it ends");
    let (status, _, answer) = restore("1/restore");
    assert_eq!((status, answer["revision"].as_u64()), (200, Some(4)), "{answer}");
    let (_, _, config) = running.ask("GET /api/v1/config", "", "");
    assert_eq!(config["mountpoints"]["yard"]["source"]["key"], json!({"set": true}), "with its secret");
    assert!(config["mountpoints"].get("gate").is_none());
    assert_eq!(restore("77/restore").0, 404);
    assert_eq!(running.ask("POST /api/v1/config/history/1/restore", "", "").0, 428);
}
