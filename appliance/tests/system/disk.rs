//! A gateway whose state is on a disk that takes nothing.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Lets the gateway see another disk at `folder`: what `prepare` does there is for it alone.
pub(crate) fn in_a_namespace(command: &mut Command, folder: &Path, prepare: &str) {
    let mut inner = unshared(&format!("{prepare}\nshift; exec \"$@\""));
    inner.arg(folder).arg(command.get_program()).args(command.get_args());
    inner.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    inner.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
    inner.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    *command = inner;
}

/// A shell with mounts of its own.
fn unshared(script: &str) -> Command {
    let mut command = Command::new("unshare");
    let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-Urm" };
    command.args([flags, "sh", "-euc", script, "sh"]);
    command
}

/// A disk that a file system has given up on: somebody must get in and see it.
#[test]
fn a_gateway_whose_whole_state_is_on_a_read_only_disk_starts_delivers_and_says_so() {
    if !may(READ_ONLY) {
        return;
    }
    let scratch = Arc::new(Scratch::new());
    let config = json!({ "mountpoints": { "yard": { "source": { "kind": "publish" } } } });
    let mut first = Gateway::start_in(scratch.clone(), config.clone(), |_| {});
    let tag = first.config().1;
    first.process().kill();
    drop(first);
    let before = names(&scratch.join("state"));

    let (state, memory) = (scratch.join("state"), scratch.join("memory"));
    let gateway = Gateway::start_in(scratch.clone(), config, |command| {
        command.arg("--memory").arg(&memory);
        in_a_namespace(command, &state, READ_ONLY);
    });
    let status = gateway.status();
    let notices = status["notices"].as_array().unwrap();
    let told = notices.iter().find(|notice| notice["code"] == "state_read_only").expect("it says so");
    assert!(told["text"].as_str().unwrap().contains("is read-only"), "{told}");
    assert_eq!(gateway.config().1, tag);
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    wait::until_true("pictures", secs(60), || {
        gateway.status()["mountpoints"]["yard"]["counters"]["units"].as_u64() > Some(50)
    });
    publisher.finish();
    // The installer gets on with his work; it lasts as long as the gateway runs.
    let (mut other, tag) = gateway.config();
    other["mountpoints"]["more"] = json!({ "source": { "kind": "publish" } });
    assert_eq!(gateway.put_config(&other, Some(&tag)).status, 200);
    assert!(gateway.status()["mountpoints"]["more"].is_object());
    assert_eq!(names(&state), before, "nothing was written to the disk");
}

/// The names of all that is in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub(crate) const READ_ONLY: &str = "mount --bind \"$1\" \"$1\"; mount -o remount,bind,ro \"$1\"";
/// A disk of 4 MiB with what was there before, and not a byte more.
pub(crate) const FULL: &str =
    "mkdir \"$1.full\"; mount -t tmpfs -o size=4m none \"$1.full\"; cp -a \"$1/.\" \"$1.full\"
dd if=/dev/zero of=\"$1.full/other\" bs=4k 2>/dev/null || true; mount --move \"$1.full\" \"$1\"";

/// Whether this kernel lets us do so; says why not.
pub(crate) fn may(prepare: &str) -> bool {
    let scratch = Scratch::new();
    let output = unshared(prepare).arg(scratch.path()).output().unwrap();
    if !output.status.success() {
        println!("skipped: no mounts of our own here: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    output.status.success()
}

/// A power cut while recordings or somebody's copies have filled the disk: nobody is there to make room.
#[test]
fn a_gateway_whose_whole_state_is_on_a_full_disk_starts_and_relays() {
    if !may(FULL) {
        return;
    }
    let scratch = Arc::new(Scratch::new());
    let sink = Gateway::with_mountpoints(json!({ "yard": { "source": { "kind": "publish" } } }));
    let push = json!([{ "id": "up", "url": sink.url("yard") }]);
    let config = json!({ "mountpoints": { "yard": { "source": { "kind": "publish" }, "push": push } } });
    let mut first = Gateway::start_in(scratch.clone(), config.clone(), |_| {});
    first.process().kill();
    drop(first);

    let state = scratch.join("state");
    let gateway = Gateway::start_in(scratch, config, |command| in_a_namespace(command, &state, FULL));
    let status = gateway.status();
    let notices = status["notices"].as_array().unwrap();
    assert!(notices.iter().any(|notice| notice["code"] == "local_token_not_written"), "{notices:?}");
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    wait::until_true("pictures at the upstream", secs(60), || {
        sink.status()["mountpoints"]["yard"]["counters"]["units"].as_u64() > Some(50)
    });
    publisher.finish();
    // What cannot be kept is refused, and what runs goes on.
    let (mut other, tag) = gateway.config();
    other["mountpoints"]["more"] = json!({ "source": { "kind": "publish" } });
    let answer = gateway.put_config(&other, Some(&tag));
    assert!(
        answer.status >= 500 && answer.text().contains("free some space"),
        "{}: {}",
        answer.status,
        answer.text()
    );
    assert_eq!(gateway.config().1, tag);
}
