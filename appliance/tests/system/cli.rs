//! The command line, as a person or a script uses it.

use crate::common::gateway::{Gateway, program};
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::secs;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Exit code and all that was said.
fn run(args: &[&str]) -> (i32, String) {
    let mut process = Process::start(&program(), args);
    let status = process.end_within(secs(60));
    std::thread::sleep(std::time::Duration::from_millis(50));
    (status.code().expect("ended by itself"), process.log())
}

fn write(scratch: &Scratch, config: &Value) -> PathBuf {
    let file = scratch.join("config.json");
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

#[test]
fn check_names_every_problem_with_its_path() {
    let scratch = Scratch::new();
    let good = write(&scratch, &json!({ "mountpoints": { "yard": { "source": { "kind": "publish" } } } }));
    let (code, said) = run(&["check", good.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    let bad = write(
        &scratch,
        &json!({
            "admin": { "listen": ["0.0.0.0:8080"] },
            "mountpoints": { "yard": { "source": { "kind": "publish" }, "push": [{ "url": "http://h/x" }] } },
        }),
    );
    let (code, said) = run(&["check", bad.to_str().unwrap()]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("mountpoints.yard.push[0].url") && said.contains("admin.listen"), "{said}");
}

#[test]
fn every_command_explains_itself() {
    for args in [&["--help"][..], &["run", "--help"], &["check", "--help"], &["plan", "--help"], &["version"]]
    {
        let (code, said) = run(args);
        assert!(code == 0 && said.len() > 20, "{args:?}: {code} {said}");
    }
    let scratch = Scratch::new();
    let file = write(
        &scratch,
        &json!({ "mountpoints": { "yard": {
        "source": { "kind": "publish" }, "push": [{ "url": "rtmp://192.0.2.1/live/yard?key=s3cret" }] } } }),
    );
    let (code, said) = run(&["plan", file.to_str().unwrap()]);
    assert!(code == 0 && said.contains("yard") && !said.contains("s3cret"), "{said}");
    let (code, said) = run(&["devices", "--json"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn admin_address_that_strangers_reach_does_not_start() {
    let scratch = Scratch::new();
    let file = write(
        &scratch,
        &json!({ "rtmp": { "listen": ["127.0.0.1:0"] }, "admin": { "listen": ["0.0.0.0:0"] } }),
    );
    let state = scratch.join("state");
    let (code, said) = run(&["run", "--state", state.to_str().unwrap(), "--config", file.to_str().unwrap()]);
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("admin.listen"), "{said}");
}

#[test]
fn state_folder_has_one_owner() {
    let scratch = Arc::new(Scratch::new());
    let mut gateway = Gateway::start_in(scratch.clone(), json!({ "mountpoints": {} }), |_| {});
    let (state, file) = (scratch.join("state"), scratch.join("config.json"));
    let (code, said) = run(&["run", "--state", state.to_str().unwrap(), "--config", file.to_str().unwrap()]);
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("in use"), "{said}");
    gateway.assert_running();
}

#[test]
fn logs_are_json_when_asked_for() {
    let scratch = Arc::new(Scratch::new());
    let mut gateway = Gateway::start_in(scratch, json!({ "mountpoints": {} }), |command| {
        command.args(["--log-format", "json"]);
    });
    gateway.stop();
    let log = gateway.process().log();
    let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.len() > 2, "{log}");
    for line in lines {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "not JSON: {line}");
    }
}
