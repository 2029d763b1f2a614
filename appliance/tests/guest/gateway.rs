//! The gateway in the guest: run as the service runs it, without privileges, in the group of cameras.

use crate::common::gateway::program;
use crate::machine::{Answer, Machine, PATIENCE};
use serde_json::Value;

/// Debian's user `nobody` in its groups `video` and `audio`, without capabilities.
const AS_SERVICE: &str =
    "setpriv --reuid 65534 --regid 65534 --groups 44,29 --bounding-set -all --no-new-privs --";

/// Lets the gateway's user open the device files, as udev does.
pub(crate) fn hand_over(machine: &mut Machine) {
    machine.must("for file in /dev/video*; do chgrp 44 $file && chmod 660 $file || exit 1; done");
}

/// A command of the program.
pub(crate) fn command(machine: &mut Machine, arguments: &str) -> Answer {
    machine.run(&format!("{AS_SERVICE} {} {arguments}", program()))
}

/// Starts it with this config and waits until it answers.
pub(crate) fn start(machine: &mut Machine, config: &Value) {
    machine.must("mkdir -p /run/state && chmod 777 /run /run/state");
    write_config(machine, config);
    machine.must(&format!(
        "{AS_SERVICE} {} run --state /run/state --config /run/config.json >/run/gateway.out 2>/run/gateway.log & \
         echo $! >/run/gateway.pid",
        program()
    ));
    machine.until("the gateway to listen", PATIENCE, |machine| {
        let out = machine.run("cat /run/gateway.out").text;
        if out.contains("listening") { Ok(()) } else { Err(out) }
    });
}

fn write_config(machine: &mut Machine, config: &Value) {
    let text = config.to_string();
    assert!(!text.contains('\''), "no quotes");
    machine.must(&format!("printf %s '{text}' >/run/config.json"));
}

/// What its owner shows to its API.
const CREDENTIAL: &str = "-H \"Authorization: Bearer $(cat /run/state/access/local.token)\"";

/// `GET` on its API.
pub(crate) fn get(machine: &mut Machine, path: &str) -> Value {
    let text = machine.must(&format!("curl -sS {CREDENTIAL} --max-time 60 http://127.0.0.1:8080{path}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

/// `GET` on its API into a file; the answer's status code.
pub(crate) fn fetch(machine: &mut Machine, path: &str, file: &str) -> u32 {
    let get = format!(
        "curl -sS {CREDENTIAL} --max-time 60 -o {file} -w %{{http_code}} http://127.0.0.1:8080{path}"
    );
    machine.must(&get).trim().parse().expect("a status code")
}

/// Changes the config by what `edit` does to it; the answer's status code.
pub(crate) fn change(machine: &mut Machine, edit: impl FnOnce(&mut Value)) -> u32 {
    let head = machine.must(&format!(
        "curl -sS {CREDENTIAL} -D /run/head -o /run/body --max-time 60 http://127.0.0.1:8080/api/v1/config; cat /run/head",
    ));
    let tag = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().starts_with("etag:").then(|| line[5..].trim().to_owned()));
    let tag = tag.expect("the config has an ETag");
    let mut config: Value = serde_json::from_str(&machine.must("cat /run/body")).unwrap();
    edit(&mut config);
    write_config(machine, &config);
    let put = format!(
        "curl -sS {CREDENTIAL} --max-time 120 -o /run/body -w %{{http_code}} -X PUT -H 'Content-Type: application/json' \
         -H 'If-Match: {tag}' --data-binary @/run/config.json http://127.0.0.1:8080/api/v1/config"
    );
    let code = machine.must(&put).trim().parse().expect("a status code");
    if code == 202 {
        // What touches a running camera is undone unless somebody says over a new connection that all is well.
        let post = format!(
            "curl -sS {CREDENTIAL} --max-time 60 -o /run/body -w %{{http_code}} -X POST \
             http://127.0.0.1:8080/api/v1/config/confirm"
        );
        machine.until("the change to be confirmed", PATIENCE, |machine| {
            let answer = machine.must(&post);
            if answer.trim() == "200" { Ok(()) } else { Err(answer + &machine.must("cat /run/body")) }
        });
    }
    code
}

/// What is shown of a mountpoint.
pub(crate) fn mountpoint(machine: &mut Machine, name: &str) -> Value {
    get(machine, "/api/v1/status")["mountpoints"][name].clone()
}
