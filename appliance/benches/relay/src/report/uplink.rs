//! KMP beside the RTMP push of the same round.

use std::fmt::Write as _;

use super::{Goal, Results, median};
use crate::loads::{Outcome, Uplink};
use crate::peers::Peer;

/// The loads that are pushed by KMP.
pub(super) const LOADS: [&str; 3] = ["kmp", "spool", "unacked"];

const PEER: Peer = Peer::Fieldgate;

impl Results {
    /// The median over the rounds of what `figure` makes of a KMP load and the same round's RTMP push.
    fn beside_push(&self, load: &str, figure: impl Fn(&Outcome, &Outcome) -> Option<f64>) -> Option<f64> {
        let runs = self.runs.iter().filter(|(_, l, p, _)| l.name == load && *p == PEER);
        let pairs = runs.filter_map(|(round, .., outcome)| figure(outcome, self.get(*round, "push", PEER)?));
        median(pairs.collect())
    }

    fn cpu_to_push(&self, load: &str) -> Option<f64> {
        self.beside_push(load, |kmp, push| Some(kmp.cpu_per_gb / push.cpu_per_gb.max(f64::MIN_POSITIVE)))
    }

    /// Megabytes that a track adds beyond its share of the RTMP push.
    fn track_mb(&self, load: &str) -> Option<f64> {
        self.beside_push(load, |kmp, push| {
            let more = (kmp.peak_mb - kmp.base_mb) - (push.peak_mb - push.base_mb);
            Some(more / kmp.uplink?.tracks.max(1) as f64)
        })
    }

    fn of_uplink(&self, load: &str, figure: impl Fn(&Uplink) -> Option<f64>) -> Option<f64> {
        let runs = self.runs.iter().filter(|(_, l, p, _)| l.name == load && *p == PEER);
        median(runs.filter_map(|(.., outcome)| figure(outcome.uplink.as_ref()?)).collect())
    }

    /// What the KMP loads showed, a line each.
    pub(super) fn uplink_lines(&self) -> String {
        let mut out = String::new();
        let text = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        for load in LOADS {
            let Some(tracks) = self.of_uplink(load, |uplink| Some(uplink.tracks as f64)) else { continue };
            write!(
                out,
                "KMP, {load}: CPU per GB {} of the RTMP push's, {} MB a track beyond it, {tracks} tracks",
                text(self.cpu_to_push(load)),
                text(self.track_mb(load)),
            )
            .expect("writing to a string cannot fail");
            if let Some(written) = self.of_uplink(load, |uplink| uplink.written_per_byte) {
                let kept = self.of_uplink(load, |uplink| uplink.kept_per_byte);
                write!(out, "; per media byte {} bytes in files, {written:.3} written as pages", text(kept))
                    .expect("writing to a string cannot fail");
            }
            out.push('\n');
        }
        out
    }

    /// The goals of KMP: 1.02 and no loss are asked for, the others are this bench's own marks.
    pub(super) fn uplink_goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        let mut goal = |what: String, got: Option<f64>, must: f64, stretch: f64| {
            goals.extend(got.map(|got| Goal { what, got, must, stretch }));
        };
        for (load, must, stretch) in [("kmp", 1.5, 1.1), ("spool", 2.0, 1.3), ("unacked", 2.5, 1.5)] {
            goal(format!("CPU per GB to RTMP push, {load}"), self.cpu_to_push(load), must, stretch);
        }
        goal("memory of a KMP track, MB".into(), self.track_mb("kmp"), 0.25, 0.1);
        // Where frames are acknowledged files come and go, so that only what was written tells.
        let written = |load| self.of_uplink(load, |uplink| uplink.written_per_byte);
        goal("spool bytes per media byte, spool".into(), written("spool"), 1.02, 0.1);
        // Where none is, nothing goes, and everything must be there.
        let kept = self.of_uplink("unacked", |uplink| uplink.kept_per_byte);
        goal("spool bytes per media byte, unacked".into(), kept, 1.02, 1.01);
        goal("the same as whole pages, unacked".into(), written("unacked"), 1.05, 1.02);
        let missing = kept.map(|kept| 1.0 - kept);
        goal("share of media not in the spool, unacked".into(), missing, 0.0, 0.0);
        for load in LOADS {
            let unended = self.of_uplink(load, |uplink| Some(uplink.unended as f64));
            goal(format!("tracks without an end, {load}"), unended, 0.0, 0.0);
        }
        goals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads;

    fn results() -> Results {
        let mut results = Results::default();
        let load = |name| loads::LOADS.into_iter().find(|load| load.name == name).unwrap();
        for (round, cpu) in [(0, 2.0), (1, 4.0)] {
            let push = Outcome { cpu_per_gb: cpu, base_mb: 5.0, peak_mb: 15.0, ..Outcome::default() };
            let uplink = Uplink { tracks: 32, ..Uplink::default() };
            let kmp = Outcome { cpu_per_gb: cpu * 1.2, peak_mb: 18.2, uplink: Some(uplink), ..push.clone() };
            let uplink =
                Uplink { unended: 1, written_per_byte: Some(1.06), kept_per_byte: Some(1.03), ..uplink };
            results.add(round, load("unacked"), PEER, Outcome { uplink: Some(uplink), ..kmp.clone() });
            results.add(round, load("kmp"), PEER, kmp);
            results.add(round, load("push"), PEER, push);
        }
        results
    }

    #[test]
    fn kmp_is_set_beside_the_push_of_the_same_round() {
        let results = results();
        assert!((results.cpu_to_push("kmp").unwrap() - 1.2).abs() < 1e-9);
        assert!((results.track_mb("kmp").unwrap() - 0.1).abs() < 1e-9);
        assert_eq!(results.cpu_to_push("spool"), None);
        let lines = results.uplink_lines();
        assert!(lines.contains("KMP, kmp: CPU per GB 1.200 of the RTMP push's, 0.100 MB a track"), "{lines}");
        assert!(lines.contains("per media byte 1.030 bytes in files, 1.060 written as pages"), "{lines}");
    }

    #[test]
    fn too_much_written_and_a_track_without_an_end_are_said() {
        let goals = results().uplink_goals();
        let missed: Vec<&str> = goals.iter().filter(|goal| !goal.holds()).map(|goal| &*goal.what).collect();
        assert_eq!(
            missed,
            [
                "spool bytes per media byte, unacked",
                "the same as whole pages, unacked",
                "tracks without an end, unacked"
            ]
        );
    }
}
