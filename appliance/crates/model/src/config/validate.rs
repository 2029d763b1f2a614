//! Can a config be run? Finds all that is wrong, each with its path.
//!
//! [`super::shape`] checks what one setting alone can get wrong; here is what only shows in context.

mod aggregator;
mod compat;
mod control;
mod coordinator;
mod encoder;
mod kmp_listen;
mod listeners;
mod loops;
mod mesh_node;
mod mountpoints;

pub(super) use listeners::check_file;
pub use mountpoints::is_stream_name;

use super::json::Strict;
use super::{Config, Path, Problem, Record, shape};
use serde_json::Value;

/// Everything that is wrong with `config`; empty if it can be run.
///
/// The rings are held against `media.memory_bytes`, if that is set; [`validate_on`] knows the machine.
pub fn validate(config: &Config) -> Vec<Problem> {
    validate_on(config, None)
}

/// Like [`validate`], on a machine with this much memory: a quarter of it is the default for `media.memory_bytes`.
pub fn validate_on(config: &Config, machine_memory_bytes: Option<u64>) -> Vec<Problem> {
    let public = match serde_json::to_value(config) {
        Ok(public) => public,
        Err(error) => return vec![Problem::new(&Path::root(), format!("does not serialise: {error}"))],
    };
    let mut problems = shape::check(&shape::schema(), &public);
    problems.extend(config.kept_secrets());
    listeners::check(config, &mut problems);
    mountpoints::check(config, &mut problems);
    loops::check(config, &mut problems);
    compat::check(config, &mut problems);
    aggregator::check(config, &mut problems);
    mesh_node::check(config, &mut problems);
    coordinator::check(config, &mut problems);
    encoder::check(config, &mut problems);
    control::check(config, &mut problems);
    kmp_listen::check(config, &mut problems);
    super::discovery::check(config, &mut problems);
    super::events::check(config, &mut problems);
    super::fleet::check(config, &mut problems);
    super::machine::check(config, &mut problems);
    super::update::check(config, &mut problems);
    problems.extend(check_memory(config, machine_memory_bytes));
    problems
}

impl Config {
    /// The config in a JSON text, or everything that is wrong with its shape.
    ///
    /// Secrets may be there in full or as "as it was": call [`Config::keep_secrets`], then [`validate`].
    pub fn parse(text: &str) -> Result<Config, Vec<Problem>> {
        let Strict(value) = serde_json::from_str(text)
            .map_err(|error| vec![Problem::new(&Path::root(), format!("is no JSON: {error}"))])?;
        Config::from_value(value)
    }

    /// Like [`Config::parse`], from JSON that is parsed already.
    pub fn from_value(value: Value) -> Result<Config, Vec<Problem>> {
        let mut problems = shape::check(&shape::schema(), &value);
        if !problems.is_empty() {
            problems.extend(check_rest(value, &problems));
            return Err(problems);
        }
        serde_json::from_value(value).map_err(|error| {
            // The shape held, so this is a check that only a type knows; it names no place.
            vec![Problem::new(&Path::root(), format!("cannot be read: {error}"))]
        })
    }

    /// Bytes that all rings together may take, on a machine with this much memory.
    pub fn memory_budget(&self, machine_memory_bytes: Option<u64>) -> Option<u64> {
        self.media.memory_bytes.or(machine_memory_bytes.map(|bytes| bytes / 4))
    }
}

/// What is wrong with the sense of those parts whose shape is right, so that all is told at once.
fn check_rest(mut value: Value, shape_problems: &[Problem]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is_faulty = |path: &Path| {
        let path = path.to_string();
        shape_problems.iter().any(|problem| {
            problem
                .path
                .strip_prefix(&path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    };
    let Some(root) = value.as_object_mut() else { return problems };
    if let Some(mountpoints) = root.get_mut("mountpoints").and_then(Value::as_object_mut) {
        mountpoints.retain(|name, _| {
            let path = Path::mountpoint(name);
            let is_faulty = is_faulty(&path);
            if is_faulty {
                problems.extend(mountpoints::check_name(name, &path));
            }
            !is_faulty
        });
    }
    root.retain(|name, value| {
        let at = Path::root().field(name);
        (name == "mountpoints" && value.is_object()) || !is_faulty(&at)
    });
    // What still does not read has a fault that was told already.
    if let Ok(rest) = serde_json::from_value::<Config>(value) {
        listeners::check(&rest, &mut problems);
        mountpoints::check(&rest, &mut problems);
        loops::check(&rest, &mut problems);
        compat::check(&rest, &mut problems);
        aggregator::check(&rest, &mut problems);
        mesh_node::check(&rest, &mut problems);
        coordinator::check(&rest, &mut problems);
        control::check(&rest, &mut problems);
        kmp_listen::check(&rest, &mut problems);
        super::discovery::check(&rest, &mut problems);
        super::events::check(&rest, &mut problems);
        super::fleet::check(&rest, &mut problems);
        super::machine::check(&rest, &mut problems);
        super::update::check(&rest, &mut problems);
    }
    problems
}

/// A template counts as one stream: it permits up to `max`, and each that comes is held against the budget again.
fn check_memory(config: &Config, machine_memory_bytes: Option<u64>) -> Option<Problem> {
    let budget = config.memory_budget(machine_memory_bytes)?;
    let rings =
        config.mountpoints.values().fold(0_u64, |sum, mountpoint| sum.saturating_add(mountpoint.ring.bytes));
    let segments = config.mountpoints.values().filter_map(|mountpoint| mountpoint.hls.as_ref());
    let segments = segments.fold(0_u64, |sum, hls| sum.saturating_add(hls.memory_bytes));
    let pushes = config.mountpoints.values().flat_map(|mountpoint| &mountpoint.push);
    let kept = pushes.fold(0_u64, |sum, push| sum.saturating_add(push.memory_bytes()));
    let recorders =
        config.mountpoints.values().filter(|mountpoint| mountpoint.record.is_some()).count() as u64;
    let recorders = recorders.saturating_mul(Record::MEMORY_BYTES);
    let needed = rings.saturating_add(kept).saturating_add(segments).saturating_add(recorders);
    (needed > budget).then(|| {
        let path = match config.media.memory_bytes {
            Some(_) => Path::root().field("media").field("memory_bytes"),
            None => Path::root().field("mountpoints"),
        };
        let (what, remedy) = match kept {
            0 => (String::new(), ""),
            kept => (format!(" and KMP pushes without a spool {kept}"), ", memory of some pushes"),
        };
        let what = match segments {
            0 => what,
            segments => format!("{what} and segments for viewers {segments}"),
        };
        let what = match recorders {
            0 => what,
            recorders => format!("{what} and recorders {recorders}"),
        };
        Problem::new(
            &path,
            format!("the rings of all mountpoints need {rings} bytes{what}, the budget is {budget}"),
        )
        .remedy(format!("lower ring.bytes of some mountpoints{remedy} or raise media.memory_bytes"))
    })
}

#[cfg(test)]
mod tests;
