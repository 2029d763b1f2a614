//! A gateway is started on what a power cut left, and held to what it had promised.

use super::block::{Loop, Mounted};
use super::far_end::{Came, FarEnd, Got, Unit};
use super::story::{Story, TRACKS, in_order, number_of, publish, push};
use crate::common::gateway::Gateway;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// The ledger knows the time of a frame every tenth of a second, and takes what lies between as if it came evenly.
const ROUNDING_MICROS: i64 = 150_000;

/// One entry of the ledger.
#[derive(Debug)]
struct Line {
    state: String,
    from: i64,
    to: i64,
    frames: u64,
}

/// The data partition of this disk, as a machine that starts checks and mounts it.
pub(super) fn mounted(disk: &Path, folder: &Path) -> (Mounted, Loop) {
    let device = Loop::of(disk, "data");
    let fsck = |flags: &str| {
        let output = Command::new("/sbin/e2fsck").arg(flags).arg(&device.0).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // The journal is replayed; then nothing is left to repair. A superblock that was torn is taken from a copy, as
    // systemd/image/check-data.conf has it.
    let (code, said) = fsck("-p");
    if !matches!(code, Some(0 | 1)) {
        assert!(said.contains("superblock"), "e2fsck -p: {code:?}: {said}");
        let (code, said) = fsck("-y");
        assert!(matches!(code, Some(0 | 1)), "e2fsck -y: {code:?}: {said}");
    }
    let (code, said) = fsck("-fn");
    assert_eq!(code, Some(0), "e2fsck -fn: {said}");
    (Mounted::at(&device, folder), device)
}

impl Story {
    /// Judges what is on this disk when the power went after the log had this length.
    pub(super) fn judge(&self, disk: &Path, end: u64) {
        let scratch = Arc::new(Scratch::new());
        let _data = mounted(disk, &scratch.join("state"));
        let mut gateway = Gateway::start_in(scratch.clone(), json!({}), |_| {});
        if self.changes[0].answered > end {
            // It had never said that it is there.
            return;
        }
        self.judge_config(&gateway, end);
        self.judge_tokens(&gateway, end);
        self.judge_spool(&gateway, end);
        gateway.process().kill();
    }

    fn judge_config(&self, gateway: &Gateway, end: u64) {
        let number = number_of(&gateway.config().0);
        let oldest = self.changes.iter().rev().find(|change| change.answered <= end).map(|change| change.of);
        let newest = self.changes.iter().rev().find(|change| change.begun <= end).map(|change| change.of);
        assert!(
            oldest <= Some(number) && Some(number) <= newest,
            "config {number}, not {oldest:?} to {newest:?}"
        );
        let notices = gateway.status()["notices"].to_string();
        assert!(!notices.contains("config_unreadable"), "{notices}");
    }

    fn judge_tokens(&self, gateway: &Gateway, end: u64) {
        let tokens = gateway.get("/api/v1/tokens").json()["tokens"].take();
        let names: Vec<&str> =
            tokens.as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
        for token in &self.tokens {
            let (must, may) = (token.answered <= end, token.begun <= end);
            let is_there = names.contains(&token.of.as_str());
            assert!(may && is_there || !must && !is_there, "token {} of {names:?}", token.of);
        }
    }

    fn judge_spool(&self, gateway: &Gateway, end: u64) {
        let by_then = |got: &Got| -> Got {
            let had = |track: &BTreeMap<u64, Came>| {
                let had = track.iter().filter(|(_, came)| came.at <= end);
                had.map(|(id, came)| (*id, Came { again: 0, ..*came })).collect()
            };
            got.iter().map(|(name, track)| (name.clone(), had(track))).collect()
        };
        let (had, sent) = (by_then(&self.got), by_then(&self.sent));
        let far = FarEnd::new(self.upstream.unwrap(), None, had.clone());
        settled(gateway);
        let caught_up = far.got();
        // It goes on as if nothing had been; that also ends what nobody knows of.
        let publisher = publish(gateway);
        publisher.wait_for_more(20);
        let more = publisher.finish();
        let more = [more.video.frames.len(), more.audio.frames.len()];
        wait::until_true("what is new", secs(60), || {
            TRACKS.iter().zip(more).all(|(track, more)| far.count(track) >= count(&caught_up, track) + more)
        });
        settled(gateway);
        let got = far.got();
        for (at, track) in TRACKS.into_iter().enumerate() {
            let lines = ledger(gateway, track);
            let context = |what: String| format!("{track}: {what}; the ledger: {lines:?}");
            assert_eq!(count(&got, track), count(&caught_up, track) + more[at], "{track}: each once");
            let (sent, caught_up) = (in_order(&sent, track), in_order(&caught_up, track));
            let has: BTreeSet<Unit> = caught_up.iter().map(|came| came.unit).collect();
            assert_eq!(has.len(), caught_up.len(), "{track}: each under one id");
            let all: BTreeSet<Unit> = in_order(&self.sent, track).iter().map(|came| came.unit).collect();
            assert!(has.is_subset(&all), "{track}: something came that was never sent");
            let in_the_end: BTreeSet<Unit> =
                in_order(&self.got, track).iter().map(|came| came.unit).collect();
            let missing: Vec<Unit> =
                sent.iter().map(|came| came.unit).filter(|unit| !has.contains(unit)).collect();
            for unit in &missing {
                let is_named = lines.iter().any(|line| line.is_gone() && line.covers(unit));
                assert!(is_named, "{}", context(format!("{unit:?} is missing")));
            }
            let kept = self.kept.iter().rev().find(|(by, _)| *by <= end).map_or(0, |(_, counts)| counts[at]);
            for came in sent.iter().take(kept) {
                let is_gone = in_the_end.contains(&came.unit) && !has.contains(&came.unit);
                assert!(!is_gone, "{}", context(format!("{:?} was on disk", came.unit)));
            }
            let frames = |state: &str| -> u64 {
                lines.iter().filter(|line| line.state == state).map(|line| line.frames).sum()
            };
            let (delivered, lost) = (frames("delivered"), frames("lost"));
            // Acknowledged, but not yet written down as such: it is sent, and counted, again.
            let again: u64 =
                got.get(track).into_iter().flat_map(BTreeMap::values).map(|came| came.again).sum();
            let most = count(&got, track) as u64 + again;
            assert!(delivered <= most, "{}", context(format!("{delivered} are more than {most}")));
            assert!(delivered >= more[at] as u64, "{}", context(format!("{delivered} are too few")));
            assert!(
                lost <= missing.len() as u64,
                "{}",
                context(format!("{lost} lost, {} missing", missing.len()))
            );
            assert_eq!(frames("pending"), 0, "{}", context("all is settled".to_owned()));
        }
    }
}

impl Line {
    fn is_gone(&self) -> bool {
        matches!(self.state.as_str(), "lost" | "unconfirmed" | "unknown")
    }

    fn covers(&self, unit: &Unit) -> bool {
        (self.from - ROUNDING_MICROS..=self.to + ROUNDING_MICROS).contains(&unit.micros)
    }
}

fn count(got: &Got, track: &str) -> usize {
    got.get(track).map_or(0, BTreeMap::len)
}

/// Waits until nothing is to be delivered any more, and the ledger knows it.
fn settled(gateway: &Gateway) {
    wait::until_true("all to be settled", secs(60), || push(gateway)["kmp"]["unacked_frames"] == 0);
    wait::until_true("the ledger to say so", secs(60), || {
        TRACKS.iter().all(|track| ledger(gateway, track).iter().all(|line| line.state != "pending"))
    });
}

fn ledger(gateway: &Gateway, track: &str) -> Vec<Line> {
    let entries = gateway.get("/api/v1/ledger?mountpoint=yard&limit=5000").json()["entries"].take();
    let micros = |entry: &Value, field: &str| {
        let text = entry[field].as_str().expect("a time");
        let at: fieldgate_model::Timestamp = serde_json::from_value(json!(text)).expect("a time");
        at.unix_millis() * 1_000
    };
    let of = entries.as_array().unwrap().iter();
    let of = of.filter(|entry| entry["track"] == track && entry["upstream"] == "k");
    of.map(|entry| Line {
        state: entry["state"].as_str().unwrap().to_owned(),
        from: micros(entry, "from"),
        to: micros(entry, "to"),
        frames: entry["frames"].as_u64().unwrap_or(0),
    })
    .collect()
}
