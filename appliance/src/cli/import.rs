//! `fieldgate import-env`: an older system's settings as a config of ours, for somebody to look at and to take.

use super::{Import, in_file, read};
use crate::boot::machine_memory_bytes;
use fieldgate_compat::aggregator::StateFile;
use fieldgate_compat::env::{Imported, Variables, import as import_variables};
use fieldgate_model::Config;
use fieldgate_model::config::validate_on;
use std::io::{self, Write};
use std::process::ExitCode;

/// The config goes to `out`, all that should be known to `notes`; exit code 1 if it cannot be run as it is.
pub(super) fn import(wish: &Import, out: &mut dyn Write, notes: &mut dyn Write) -> io::Result<ExitCode> {
    let base = match &wish.config {
        Some(file) => match Config::parse(&read(file)?) {
            Ok(config) => config,
            Err(problems) => {
                problems.iter().try_for_each(|problem| writeln!(notes, "{}", in_file(problem)))?;
                return Ok(ExitCode::FAILURE);
            }
        },
        None => Config::default(),
    };
    let named = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let variables = Variables::parse(&read(&wish.file)?)
        .map_err(|error| named(format!("{}: {error}", wish.file.display())))?;
    let mut base = base;
    base.compat.aggregator.publish_allow.extend(&wish.publish_allow);
    let Imported { mut config, notes: mut told } = import_variables(variables, base);
    if let Some(file) = &wish.state_file {
        let state =
            StateFile::parse(&read(file)?).map_err(|error| named(format!("{}: {error}", file.display())))?;
        told.extend(state.skipped);
        for command in &state.commands {
            match command.apply(&config) {
                Ok(with) => config = with,
                Err(error) => told.push(format!("{}: {error}; left out", file.display())),
            }
        }
    }
    let problems = validate_on(&config, machine_memory_bytes());
    told.iter().try_for_each(|note| writeln!(notes, "{note}"))?;
    problems.iter().try_for_each(|problem| writeln!(notes, "{}", in_file(problem)))?;
    // With its secrets: they came out of files of the caller's own, and the config shall run as it is.
    let config = config.stored().map_err(|error| named(error.to_string()))?;
    serde_json::to_writer_pretty(&mut *out, &config)?;
    writeln!(out)?;
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
