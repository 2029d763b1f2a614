//! `scripts/hw-tests` on the small guest: boot, streams, camera, encoders, a killed worker, a power cut.

use crate::common::gateway::program;
use crate::common::scratch::Scratch;
use crate::machine::Parts;
use serde_json::Value;
use std::process::Command;

const CASES: &str = "boot,push,encoders,power_cut,worker_killed,camera,update,heat,soak";

#[test]
#[ignore = "two minutes; scripts/slow vivid runs it"]
fn the_runner_shows_boot_streams_cameras_and_a_power_cut_in_the_small_guest() {
    if let Err(why) = Parts::prepare("kernel") {
        return println!("skipped: no guest can be booted here: {why}");
    }
    let scratch = Scratch::new();
    let report = scratch.join("report");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/hw-tests");
    let output = Command::new(script)
        .args(["--target", "qemu", "--small", "--program", &program(), "--cases", CASES])
        .args(["--pictures", "10", "--soak", "5s", "--json", report.to_str().unwrap()])
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "a case failed");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    for one in report["cases"].as_array().unwrap() {
        let (name, result, why) = (&one["case"], &one["result"], one["why"].as_str().unwrap_or_default());
        match name.as_str().unwrap() {
            "update" => assert_eq!(
                (result.as_str(), why),
                (Some("skipped"), "the small guest has no slots and takes no updates")
            ),
            "heat" => assert!(result == "skipped" && why.starts_with("no thermal zone"), "{one}"),
            _ => assert_eq!(result, "ran", "{one}"),
        }
    }
}
