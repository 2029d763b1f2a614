//! `fieldgate bundle`: what a fleet manager needs to write to gateways.

use super::{complain, qr, read};
use crate::fleet::built_in;
use clap::{Args, Subcommand};
use fieldgate_fleet::{Audience, Bundle as Opened, Draft, KeyRing, PublicKey, SigningKey, Target, judge};
use fieldgate_model::Timestamp;
use fieldgate_model::config::{Span, parse_strict};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Subcommand, Debug)]
pub(super) enum Bundle {
    /// Make a key: the private half into a file, the public half to standard output
    Keygen {
        /// Where the private key goes; must not exist
        file: PathBuf,
    },
    /// Sign a config or patch; the bundle, one line of text, goes to standard output
    Sign(Sign),
    /// Say whether a gateway would take a bundle; exit code 1 if not
    Verify(Verify),
    /// Show what a bundle says, whoever signed it
    Show {
        /// The bundle, or - for standard input
        bundle: PathBuf,
    },
    /// Show a bundle as a QR code, or as several: a phone that reads them opens the gateway's page, which hands it in
    Qr(Codes),
}

#[derive(Args, Debug)]
pub(super) struct Codes {
    /// The bundle, or - for standard input
    bundle: PathBuf,
    /// Where the gateway's page is, such as `https://fieldgate-7f3a.local:8443/`; else the codes hold the bare text, to be
    /// pasted into the page
    #[arg(long, value_name = "URL")]
    at: Option<String>,
    /// What would be in the codes, one a line, for other programs that draw them
    #[arg(long)]
    text: bool,
}

#[derive(Args, Debug)]
pub(super) struct Sign {
    /// The private key: a file of keygen, or of openssl genpkey -algorithm ed25519
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The name that the key has in the gateways' key rings
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Must be higher than that of every bundle before
    #[arg(long, value_name = "N")]
    number: u64,
    /// For this gateway; may be repeated
    #[arg(long, value_name = "ID", required_unless_present = "group")]
    device: Vec<String>,
    /// For all gateways of this group; every gateway is in the group all; may be repeated
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Time until it expires; at most 366 days
    #[arg(long, value_name = "TIME", default_value = "30d")]
    valid: Span,
    /// The whole config, JSON, or - for standard input
    #[arg(long, value_name = "FILE", required_unless_present = "patch", conflicts_with = "patch")]
    config: Option<PathBuf>,
    /// A JSON merge patch of the config, or - for standard input
    #[arg(long, value_name = "FILE")]
    patch: Option<PathBuf>,
    /// What {{name}} stands for: {"GATEWAY": {"name": "value"}}
    #[arg(long, value_name = "FILE")]
    variables: Option<PathBuf>,
    /// A remark for the record
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Verify {
    /// The bundle, or - for standard input
    bundle: PathBuf,
    /// A key that is believed: NAME=PUBLIC; may be repeated
    #[arg(long, value_name = "NAME=PUBLIC", required_unless_present = "keys", value_parser = named_key)]
    key: Vec<(String, PublicKey)>,
    /// The keys that are believed: {"NAME": "PUBLIC"}, as GET /api/v1/fleet/keys answers
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// As the gateway with this id: target, expiry and variables are checked too
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// A group that this gateway is in; may be repeated
    #[arg(long, value_name = "GROUP", requires = "device")]
    group: Vec<String>,
}

/// Does it; `now` is when bundles are made.
pub(super) fn run(wish: &Bundle, now: Timestamp, out: &mut dyn Write) -> io::Result<ExitCode> {
    match wish {
        Bundle::Keygen { file } => keygen(file, out),
        Bundle::Sign(wish) => sign(wish, now, out),
        Bundle::Verify(wish) => verify(wish, now, out),
        Bundle::Show { bundle } => show(bundle, out),
        Bundle::Qr(wish) => codes(wish, out),
    }
}

fn keygen(file: &Path, out: &mut dyn Write) -> io::Result<ExitCode> {
    let (pem, public) =
        match SigningKey::generate().and_then(|pem| Ok((SigningKey::parse(&pem)?.public(), pem))) {
            Ok((public, pem)) => (pem, public),
            Err(error) => return Ok(complain(&error.to_string())),
        };
    let mut options = std::fs::OpenOptions::new();
    // A key that is overwritten leaves a fleet without its master.
    let written = options.write(true).create_new(true).mode(0o600).open(file).and_then(|mut file| {
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    });
    written
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write {}: {error}", file.display())))?;
    writeln!(out, "{public}")?;
    Ok(ExitCode::SUCCESS)
}

fn sign(wish: &Sign, now: Timestamp, out: &mut dyn Write) -> io::Result<ExitCode> {
    let key = match SigningKey::parse(&read(&wish.key)?) {
        Ok(key) => key,
        Err(error) => return Ok(complain(&format!("{}: {error}", wish.key.display()))),
    };
    let draft = Draft {
        number: wish.number,
        issued: now,
        expires: now.plus(wish.valid.get()),
        to: Audience { devices: wish.device.clone(), groups: wish.group.clone() },
        note: wish.note.clone(),
        config: wish.config.as_deref().map(json_of).transpose()?,
        patch: wish.patch.as_deref().map(json_of).transpose()?,
        variables: match &wish.variables {
            Some(file) => shaped(file)?,
            None => BTreeMap::new(),
        },
    };
    match draft.sign(&wish.name, &key) {
        Ok(text) => {
            writeln!(out, "{text}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => Ok(complain(&refusal.to_string())),
    }
}

fn verify(wish: &Verify, now: Timestamp, out: &mut dyn Write) -> io::Result<ExitCode> {
    let mut keys: BTreeMap<String, PublicKey> = match &wish.keys {
        Some(file) => shaped(file)?,
        None => BTreeMap::new(),
    };
    keys.extend(wish.key.iter().cloned());
    let ring = match KeyRing::try_from(keys) {
        Ok(ring) => ring,
        Err(error) => return Ok(complain(&error.to_string())),
    };
    let checked = Opened::open(&read(&wish.bundle)?, &ring).and_then(|bundle| {
        if let Some(device) = &wish.device {
            judge(&bundle, &Target { device, groups: &wish.group, now, taken: None })?;
            bundle.content_for(device, &built_in(device, "host"))?;
        }
        Ok(bundle)
    });
    match checked {
        Ok(Opened { key, draft, .. }) => {
            writeln!(out, "signed with {key}, number {}, expires {}", draft.number, draft.expires)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => Ok(complain(&refusal.to_string())),
    }
}

fn show(file: &Path, out: &mut dyn Write) -> io::Result<ExitCode> {
    match Opened::show(&read(file)?) {
        Ok(Opened { key, digest, draft }) => {
            let shown = json!({"key": key, "digest": digest, "signature": "not checked", "says": draft});
            serde_json::to_writer_pretty(&mut *out, &shown)?;
            writeln!(out)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => Ok(complain(&refusal.to_string())),
    }
}

fn codes(wish: &Codes, out: &mut dyn Write) -> io::Result<ExitCode> {
    let text = read(&wish.bundle)?;
    let text = text.trim();
    let digest = match Opened::show(text) {
        Ok(Opened { digest, .. }) => digest.to_string(),
        Err(refusal) => return Ok(complain(&refusal.to_string())),
    };
    let page = match wish.at.as_deref().map(qr::page).transpose() {
        Ok(page) => page,
        Err(error) => return Ok(complain(&error.to_string())),
    };
    let parts = match qr::bundle(text, &digest, page.as_deref()) {
        Ok(parts) => parts,
        Err(error) => return Ok(complain(&error.to_string())),
    };
    for (part, number) in parts.iter().zip(1..) {
        if wish.text {
            writeln!(out, "{part}")?;
            continue;
        }
        match qr::drawn(part) {
            Ok(drawn) => write!(out, "{number} of {}\n{drawn}", parts.len())?,
            Err(error) => return Ok(complain(&error.to_string())),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn named_key(text: &str) -> Result<(String, PublicKey), String> {
    let (name, key) = text.split_once('=').ok_or("must be NAME=PUBLIC")?;
    Ok((name.to_owned(), PublicKey::parse(key).map_err(|error| error.to_string())?))
}

fn json_of(file: &Path) -> io::Result<Value> {
    parse_strict(&read(file)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", file.display())))
}

fn shaped<T: DeserializeOwned>(file: &Path) -> io::Result<T> {
    serde_json::from_value(json_of(file)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests;
