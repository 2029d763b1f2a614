//! How hot and how busy the machine is, from `/sys` and `/proc`.

use fieldgate_model::config::Limits;
use fieldgate_model::plan::Readings;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The limit where neither the config nor the zone names one, degrees Celsius.
const DEFAULT_LIMIT_C: i32 = 90;
/// Degrees below a zone's critical point at which the kernel would still do nothing, and we do.
const BELOW_CRITICAL_C: i32 = 5;
/// More zones than this are not looked at.
const ZONES_MAX: usize = 32;

/// Reads the sensors of a machine, or of a folder that looks like one.
#[derive(Clone, Debug)]
pub struct Sensors {
    root: PathBuf,
    ticks_per_second: u64,
}

/// One look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Temperature and limit of the zone that is nearest to its limit, degrees Celsius.
    pub zone: Option<(i32, i32)>,
    /// Per cent of the last ten seconds in which some task waited for a processor.
    pub pressure: Option<u32>,
    /// Processor time that each of the processes has taken since its start.
    pub cpu: BTreeMap<u32, Duration>,
}

impl Sensors {
    /// Of the machine below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Sensors { root: root.into(), ticks_per_second: rustix::param::clock_ticks_per_second() }
    }

    /// Reads them all; may wait for a slow sensor.
    pub fn look(&self, limits: &Limits, processes: &[u32]) -> Look {
        let cpu = processes.iter().filter_map(|pid| Some((*pid, self.cpu_of(*pid)?)));
        Look { zone: self.hottest(limits), pressure: self.pressure(), cpu: cpu.collect() }
    }

    fn hottest(&self, limits: &Limits) -> Option<(i32, i32)> {
        let folders = std::fs::read_dir(self.root.join("sys/class/thermal")).ok()?;
        let zones = folders.flatten().map(|entry| entry.path());
        let zones = zones.filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("thermal_zone"))
        });
        let readings = zones.take(ZONES_MAX).filter_map(|zone| {
            let temperature = celsius(&zone.join("temp"))?;
            let limit = limits
                .temperature_c
                .map(i32::from)
                .or_else(|| critical(&zone).map(|critical| critical.saturating_sub(BELOW_CRITICAL_C)));
            // Some drivers show absurd values for sensors that are switched off.
            (-60..=250).contains(&temperature).then(|| (temperature, limit.unwrap_or(DEFAULT_LIMIT_C)))
        });
        readings.max_by_key(|(temperature, limit)| temperature.saturating_sub(*limit))
    }

    /// Source: Documentation/accounting/psi.rst of the kernel.
    fn pressure(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.root.join("proc/pressure/cpu")).ok()?;
        let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
        let average = some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
        average.split('.').next()?.parse().ok()
    }

    /// Source: proc_pid_stat(5); the name may hold brackets, so fields are counted from its last one.
    fn cpu_of(&self, pid: u32) -> Option<Duration> {
        let stat = std::fs::read_to_string(self.root.join(format!("proc/{pid}/stat"))).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let ticks = ticks()?.checked_add(ticks()?)?;
        Some(Duration::from_millis(ticks.saturating_mul(1_000) / self.ticks_per_second.max(1)))
    }
}

fn celsius(file: &Path) -> Option<i32> {
    let millidegrees: i32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    Some(millidegrees / 1_000)
}

fn critical(zone: &Path) -> Option<i32> {
    (0..8).find_map(|point| {
        let kind = std::fs::read_to_string(zone.join(format!("trip_point_{point}_type"))).ok()?;
        (kind.trim() == "critical").then(|| celsius(&zone.join(format!("trip_point_{point}_temp"))))?
    })
}

/// Turns looks into readings: processor time needs two of them.
#[derive(Debug, Default)]
pub struct Meter {
    last: Option<(Duration, BTreeMap<u32, Duration>)>,
}

impl Meter {
    /// What this look says; `now` as for [`fieldgate_model::plan::Shedder::look`].
    pub fn readings(&mut self, now: Duration, look: Look, cpu_limit_percent: u32) -> Readings {
        let cpu_percent = self.last.as_ref().and_then(|(then, before)| {
            let passed = now.checked_sub(*then).filter(|passed| !passed.is_zero())?;
            // Of a process that is new all its time counts, one that has ended is missed for one look.
            let used: Duration = look
                .cpu
                .iter()
                .map(|(pid, cpu)| cpu.saturating_sub(before.get(pid).copied().unwrap_or_default()))
                .sum();
            u32::try_from(used.as_micros().saturating_mul(100) / passed.as_micros().max(1)).ok()
        });
        self.last = Some((now, look.cpu));
        Readings {
            temperature_c: look.zone.map(|(temperature, _)| temperature),
            temperature_limit_c: look.zone.map_or(DEFAULT_LIMIT_C, |(_, limit)| limit),
            cpu_percent,
            cpu_limit_percent,
            pressure: look.pressure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a machine.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str, files: &[(&str, &str)]) -> Machine {
            let root = std::env::temp_dir().join(format!("fg-sensors-{name}-{}", std::process::id()));
            for (file, text) in files {
                let file = root.join(file);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, text).unwrap();
            }
            Machine(root)
        }

        fn look(&self, limits: &Limits, processes: &[u32]) -> Look {
            Sensors { root: self.0.clone(), ticks_per_second: 100 }.look(limits, processes)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn the_zone_nearest_to_its_limit_counts() {
        let zone = "sys/class/thermal/thermal_zone";
        let machine = Machine::new(
            "zones",
            &[
                (&format!("{zone}0/temp"), "71000\n"),
                (&format!("{zone}0/trip_point_0_type"), "passive\n"),
                (&format!("{zone}0/trip_point_0_temp"), "60000\n"),
                (&format!("{zone}0/trip_point_1_type"), "critical\n"),
                (&format!("{zone}0/trip_point_1_temp"), "110000\n"),
                (&format!("{zone}1/temp"), "68500\n"),
                (&format!("{zone}1/trip_point_0_type"), "critical\n"),
                (&format!("{zone}1/trip_point_0_temp"), "80000\n"),
                // Switched off, broken, and no zone at all.
                (&format!("{zone}2/temp"), "-274000\n"),
                (&format!("{zone}3/temp"), "N/A\n"),
                ("sys/class/thermal/cooling_device0/temp", "99000\n"),
            ],
        );
        assert_eq!(machine.look(&Limits::default(), &[]).zone, Some((68, 75)));
        let limits = Limits { temperature_c: Some(70), ..Limits::default() };
        assert_eq!(machine.look(&limits, &[]).zone, Some((71, 70)));
    }

    #[test]
    fn pressure_and_processor_time_are_read() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 120 30 0 0 20 0 9 0 100 1000 25";
        let pressure = "some avg10=42.99 avg60=1.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        let machine = Machine::new("proc", &[("proc/7/stat", stat), ("proc/pressure/cpu", pressure)]);
        let look = machine.look(&Limits::default(), &[7, 8]);
        assert_eq!((look.zone, look.pressure), (None, Some(42)));
        assert_eq!(look.cpu, [(7, Duration::from_millis(1_500))].into());
    }

    #[test]
    fn a_machine_without_sensors_says_nothing() {
        let machine = Machine::new("bare", &[]);
        assert_eq!(machine.look(&Limits::default(), &[1]), Look::default());
    }

    #[test]
    fn two_looks_give_a_rate_over_all_processes() {
        let mut meter = Meter::default();
        let look = |one: u64, two: u64| Look {
            cpu: [(1, Duration::from_millis(one)), (2, Duration::from_millis(two))].into(),
            ..Look::default()
        };
        assert_eq!(meter.readings(Duration::from_secs(1), look(1_000, 0), 80).cpu_percent, None);
        let second = meter.readings(Duration::from_secs(3), look(2_000, 3_000), 80);
        assert_eq!((second.cpu_percent, second.cpu_limit_percent), (Some(200), 80));
        // A worker that was started anew may have any id, and none of its time is negative.
        assert_eq!(meter.readings(Duration::from_secs(4), look(2_100, 10), 80).cpu_percent, Some(10));
    }
}
