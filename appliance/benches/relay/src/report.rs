//! Medians over the rounds, ratios to the floor of the same round, and the goals.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::loads::{Kind, LOADS, Load, Outcome};
use crate::peers::Peer;

mod uplink;

/// All outcomes, as they came.
#[derive(Debug, Default)]
pub(crate) struct Results {
    runs: Vec<(usize, Load, Peer, Outcome)>,
}

/// One goal and what was measured.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    /// What it is about.
    pub what: String,
    /// What was measured.
    pub got: f64,
    /// What must hold: at most this.
    pub must: f64,
    /// What would be better still.
    pub stretch: f64,
}

impl Goal {
    /// Whether the must holds.
    pub(crate) fn holds(&self) -> bool {
        self.got <= self.must
    }
}

impl Results {
    /// Keeps one run's outcome.
    pub(crate) fn add(&mut self, round: usize, load: Load, peer: Peer, outcome: Outcome) {
        self.runs.push((round, load, peer, outcome));
    }

    /// The outcome of one run.
    pub(crate) fn get(&self, round: usize, load: &str, peer: Peer) -> Option<&Outcome> {
        let mut runs = self.runs.iter();
        runs.find(|(r, l, p, _)| (*r, l.name, *p) == (round, load, peer)).map(|(.., outcome)| outcome)
    }

    /// The median over the rounds of what `figure` reads.
    pub(crate) fn median(&self, load: &str, peer: Peer, figure: impl Fn(&Outcome) -> f64) -> Option<f64> {
        let runs = self.runs.iter().filter(|(_, l, p, _)| l.name == load && *p == peer);
        median(runs.map(|(.., outcome)| figure(outcome)).collect())
    }

    /// The median over the rounds of the ratio to the same round's floor.
    pub(crate) fn ratio(&self, load: &str, peer: Peer, figure: impl Fn(&Outcome) -> f64) -> Option<f64> {
        self.ratio_to(Peer::Floor, load, peer, figure)
    }

    /// The median over the rounds of the ratio to another peer in the same round.
    fn ratio_to(&self, other: Peer, load: &str, peer: Peer, figure: impl Fn(&Outcome) -> f64) -> Option<f64> {
        let base = load.strip_prefix("gather-").unwrap_or(load);
        // The floor and nginx know no KMP: their plain push carries the same.
        let base = if uplink::LOADS.contains(&base) { "push" } else { base };
        let runs = self.runs.iter().filter(|(_, l, p, _)| l.name == load && *p == peer);
        let ratios = runs.filter_map(|(round, .., outcome)| {
            let other = self.get(*round, load, other).or_else(|| self.get(*round, base, other))?;
            Some(figure(outcome) / figure(other).max(f64::MIN_POSITIVE))
        });
        median(ratios.collect())
    }

    fn pairs(&self) -> Vec<(Load, Peer)> {
        let mut pairs = Vec::new();
        for load in LOADS {
            for peer in Peer::ALL {
                if self.runs.iter().any(|(_, l, p, _)| l.name == load.name && *p == peer) {
                    pairs.push((load, peer));
                }
            }
        }
        pairs
    }

    /// The tables for people.
    pub(crate) fn tables(&self) -> String {
        let mut out = String::from(
            "load      peer        CPU s/GB  ratio  nginx  p50 us   p99 us  p99 x  peak PSS  RSS MB  \
             lost reord chang  Mbit/s  srv%  gen%\n",
        );
        let written = "writing to a string cannot fail";
        let column = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        for (load, peer) in self.pairs() {
            let get = |figure: fn(&Outcome) -> f64| self.median(load.name, peer, figure);
            let cpu = |outcome: &Outcome| outcome.cpu_per_gb;
            let sum = |figure: fn(&Outcome) -> u64| self.sum(load.name, peer, figure);
            let joins = matches!(load.kind, Kind::Join | Kind::Idle);
            writeln!(
                out,
                "{:<9} {:<11} {:>8} {:>6} {:>6} {:>7} {:>8} {:>6} {:>9} {:>7} {:>5} {:>5} {:>5} {:>7} {:>5} {:>5}",
                load.name,
                peer.name(),
                column(get(cpu), 3),
                column(self.ratio(load.name, peer, cpu).filter(|_| !joins), 2),
                column(self.ratio_to(Peer::Nginx, load.name, peer, cpu).filter(|_| !joins), 2),
                column(get(|o| o.p50_us), 0),
                column(get(|o| o.p99_us), 0),
                column(self.ratio(load.name, peer, |o| o.p99_us).filter(|_| !joins), 1),
                column(get(|o| o.peak_mb), 1),
                column(get(|o| o.peak_rss_mb), 1),
                sum(|o| o.faults.lost),
                sum(|o| o.faults.reordered),
                sum(|o| o.faults.changed + o.slow_faults),
                column(get(|o| o.delivered_mbit), 0),
                column(get(|o| o.cpu_share * 100.0), 1),
                column(get(|o| o.generator_share * 100.0), 1),
            )
            .expect(written);
        }
        for (load, peer) in self.pairs() {
            let get = |figure: fn(&Outcome) -> f64| column(self.median(load.name, peer, figure), 2);
            let name = peer.name();
            match load.kind {
                Kind::Join => writeln!(
                    out,
                    "late joiners, {name}: first keyframe p50 {} ms, p99 {} ms, {} of them",
                    get(|o| o.join_p50_ms),
                    get(|o| o.join_p99_ms),
                    get(|o| o.joined as f64)
                )
                .expect(written),
                Kind::Idle => writeln!(
                    out,
                    "memory, {name}: base {} MB, {} KB an idle connection, {} MB a stream of 4 Mbit/s",
                    get(|o| o.base_mb),
                    get(|o| o.idle_kb),
                    get(|o| o.stream_mb)
                )
                .expect(written),
                Kind::Slow => {
                    let each = column(self.per_slow_reader_mb(peer), 2);
                    writeln!(out, "slow readers, {name}: {each} MB each over load a").expect(written);
                }
                Kind::Relay if load.name == "x100" => {
                    let ratio = column(self.fanout(peer), 2);
                    writeln!(out, "fan-out, {name}: CPU per GB of 100 players to 1: {ratio}").expect(written);
                }
                Kind::Relay | Kind::Push | Kind::Kmp { .. } => {}
            }
        }
        out.push_str(&self.uplink_lines());
        out
    }

    fn sum(&self, load: &str, peer: Peer, figure: fn(&Outcome) -> u64) -> u64 {
        let runs = self.runs.iter().filter(|(_, l, p, _)| l.name == load && *p == peer);
        runs.map(|(.., outcome)| figure(outcome)).sum()
    }

    fn fanout(&self, peer: Peer) -> Option<f64> {
        let cpu = |load| self.median(load, peer, |outcome| outcome.cpu_per_gb);
        Some(cpu("x100")? / cpu("x1")?)
    }

    fn per_slow_reader_mb(&self, peer: Peer) -> Option<f64> {
        let peak = |load| self.median(load, peer, |outcome| outcome.peak_mb);
        Some((peak("slow")? - peak("a")?) / 16.0)
    }

    /// fieldgate beside its goals; those that were not measured are left out.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let peer = Peer::Fieldgate;
        let mut goals = Vec::new();
        let mut goal = |what: String, got: Option<f64>, must: f64, stretch: f64| {
            goals.extend(got.map(|got| Goal { what, got, must, stretch }));
        };
        for (load, must, stretch) in [
            ("a", 1.1, 0.95),
            ("b", 1.1, 1.0),
            ("h", 0.9, 0.75),
            ("push", 1.15, 1.0),
            ("gather-a", 0.75, 0.6),
            ("gather-b", 0.6, 0.5),
            ("gather-h", 0.55, 0.48),
        ] {
            goal(format!("CPU per GB, {load}"), self.ratio(load, peer, |o| o.cpu_per_gb), must, stretch);
        }
        for load in ["a", "b", "h", "push"] {
            goal(format!("p99 latency, {load}"), self.ratio(load, peer, |o| o.p99_us), 2.0, 1.3);
        }
        goal("late joiner p50, ms".into(), self.median("join", peer, |o| o.join_p50_ms), 5.0, 1.0);
        goal("memory base, MB".into(), self.median("idle", peer, |o| o.base_mb), 8.0, 5.0);
        let stream = self.median("idle", peer, |o| o.stream_mb - GOP_MB);
        goal("memory of a stream beyond its GOP, MB".into(), stream, 0.3, 0.2);
        goal("memory of an idle connection, KB".into(), self.median("idle", peer, |o| o.idle_kb), 8.0, 4.0);
        goal("memory of a slow reader, MB".into(), self.per_slow_reader_mb(peer), 2.0, 2.0);
        let faults = |load: &str| {
            let seen = self.median(load, peer, |o| o.peak_mb).is_some();
            seen.then(|| self.sum(load, peer, |o| o.faults.total() + o.slow_faults) as f64)
        };
        for load in LOADS {
            goal(format!("frames lost or wrong, {}", load.name), faults(load.name), 0.0, 0.0);
        }
        goals.extend(self.uplink_goals());
        goals
    }

    /// The goals as a table.
    pub(crate) fn goal_table(&self) -> String {
        let mut out = String::from("goal                                        got    must  stretch\n");
        for goal in self.goals() {
            let verdict = match (goal.holds(), goal.got <= goal.stretch) {
                (true, true) => "holds, stretch too",
                (true, false) => "holds",
                (false, _) => "misses",
            };
            writeln!(
                out,
                "{:<40} {:>6.2}  {:>6.2}  {:>7.2}  {verdict}",
                goal.what, goal.got, goal.must, goal.stretch
            )
            .expect("writing to a string cannot fail");
        }
        out
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> Value {
        let run = |(round, load, peer, o): &(usize, Load, Peer, Outcome)| {
            json!({
                "round": round, "load": load.name, "peer": peer.name(),
                "cpu_s_per_gb": o.cpu_per_gb, "delivered_mbit": o.delivered_mbit,
                "server_share": o.cpu_share, "generator_share": o.generator_share,
                "p50_us": o.p50_us, "p99_us": o.p99_us, "pacing_late_ms": o.pacing_late_ms,
                "lost": o.faults.lost, "reordered": o.faults.reordered, "changed": o.faults.changed,
                "slow_faults": o.slow_faults, "base_mb": o.base_mb, "peak_pss_mb": o.peak_mb,
                "peak_rss_mb": o.peak_rss_mb, "join_p50_ms": o.join_p50_ms, "join_p99_ms": o.join_p99_ms,
                "joined": o.joined, "idle_kb": o.idle_kb, "stream_mb": o.stream_mb,
                "uplink": o.uplink.map(|uplink| json!({
                    "tracks": uplink.tracks, "unended": uplink.unended,
                    "written_per_media_byte": uplink.written_per_byte, "kept_per_media_byte": uplink.kept_per_byte,
                })),
            })
        };
        let goal = |g: Goal| json!({ "what": g.what, "got": g.got, "must": g.must, "stretch": g.stretch, "holds": g.holds() });
        json!({
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
            "goals": self.goals().into_iter().map(goal).collect::<Vec<_>>(),
        })
    }
}

/// Two seconds of 4 Mbit/s: what the GOP cache of the memory load holds.
const GOP_MB: f64 = 1.0;

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 0 => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Faults;

    fn outcome(cpu: f64) -> Outcome {
        Outcome { cpu_per_gb: cpu, p99_us: cpu, ..Outcome::default() }
    }

    #[test]
    fn ratios_are_to_the_floor_of_the_same_round() {
        let mut results = Results::default();
        for (round, floor, fieldgate) in [(0, 1.0, 1.0), (1, 2.0, 2.2)] {
            results.add(round, LOADS[0], Peer::Floor, outcome(floor));
            results.add(round, LOADS[0], Peer::Fieldgate, outcome(fieldgate));
            results.add(round, LOADS[7], Peer::Fieldgate, outcome(fieldgate / 2.0));
        }
        let cpu = |o: &Outcome| o.cpu_per_gb;
        assert!((results.ratio("a", Peer::Fieldgate, cpu).unwrap() - 1.05).abs() < 1e-9);
        assert!((results.ratio("gather-a", Peer::Fieldgate, cpu).unwrap() - 0.525).abs() < 1e-9);
        assert_eq!(results.ratio("b", Peer::Fieldgate, cpu), None);
        results.add(1, LOADS[0], Peer::Nginx, outcome(4.4));
        assert_eq!(results.ratio_to(Peer::Nginx, "a", Peer::Fieldgate, cpu), Some(0.5));
    }

    #[test]
    fn a_missed_must_and_a_lost_frame_are_said() {
        let mut results = Results::default();
        results.add(0, LOADS[0], Peer::Floor, outcome(1.0));
        let faults = Faults { lost: 1, ..Faults::default() };
        results.add(0, LOADS[0], Peer::Fieldgate, Outcome { faults, ..outcome(1.2) });
        let goals = results.goals();
        let missed: Vec<&str> = goals.iter().filter(|g| !g.holds()).map(|g| g.what.as_str()).collect();
        assert_eq!(missed, ["CPU per GB, a", "frames lost or wrong, a"]);
        assert!(results.goal_table().contains("misses"));
        assert!(results.tables().contains("fieldgate"));
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
