//! The root side: one wish on standard input, which is a socket, carried out or refused.

use super::files::{self, File, IWD_MARK, MARK, PREFIX, TIMESYNCD};
use super::firmware::{self, Call};
use super::{MAX_REQUEST, Said, Wish};
use fieldgate_model::config::{MachineNetwork, MachineTime, Problem};
use rustix::fs::{FlockOperation, flock};
use rustix::net::RecvFlags;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// How long a wish may take to come, and an answer to be taken.
const TALK_WITHIN: Duration = Duration::from_secs(5);
/// How often what is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Looks at a tool that runs before it is ended: six seconds; RAUC may have to be started first, and reads a whole bundle.
const TOOL_LOOKS: u32 = 120;
const RAUC_LOOKS: u32 = 280;
/// Most that is taken of what a tool says, in bytes.
const MAX_SAID: u64 = 64 << 10;
/// Looks at the wish before this one: three seconds.
const TURN_LOOKS: u32 = 60;
/// Looks at an interface that is to leave its Wi-Fi network: three seconds.
const LEAVE_LOOKS: u32 = 60;

/// Why a wish was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Not who may ask.
    #[error("user {uid} may not ask; root and {allowed} may")]
    Stranger {
        /// Who asked.
        uid: u32,
        /// Who may.
        allowed: String,
    },
    /// Longer than anything that there is to ask.
    #[error("a request has at most {MAX_REQUEST} bytes and ends with its line")]
    TooLong,
    /// No wish that there is.
    #[error("not understood: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A wish for what cannot be.
    #[error("{0}")]
    Wrong(Problem),
    /// Another wish takes very long.
    #[error("another change of the machine is under way")]
    Busy,
    /// Whoever asked has gone; he has another wish by now.
    #[error("whoever asked has gone")]
    Gone,
    /// Nothing there that could join a Wi-Fi network.
    #[error("Wi-Fi needs iwd, whose folder {} is not there", .0.display())]
    NoIwd(PathBuf),
    /// No such zone on this machine.
    #[error("this machine does not know the time zone {0}")]
    NoZone(String),
    /// A file.
    #[error("cannot {action} {}: {source}", .file.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A tool of systemd.
    #[error("{tool}: {said}")]
    Tool {
        /// Which.
        tool: &'static str,
        /// What it said, shortened.
        said: String,
    },
    /// Nobody there who could tell or change the firmware.
    #[error("this machine has no RAUC: its firmware is updated in another way")]
    NoRauc,
    /// RAUC says no more than that.
    #[error("RAUC takes no such bundle: it is cut short, changed, or not signed with a key of this image")]
    NoBundle,
    /// The talk with whoever asked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where the machine keeps what is written and asked.
#[derive(Clone, Debug)]
pub struct Places {
    /// networkd's files that do not outlive the machine's start.
    pub networkd: PathBuf,
    /// timesyncd's.
    pub timesyncd: PathBuf,
    /// iwd's networks.
    pub iwd: PathBuf,
    /// The kernel's folder of network interfaces.
    pub interfaces: PathBuf,
    /// The kernel's host name.
    pub hostname: PathBuf,
    /// The time zones that there are.
    pub zoneinfo: PathBuf,
    /// A link to the one that counts.
    pub localtime: PathBuf,
    /// Users.
    pub passwd: PathBuf,
    /// What image this is.
    pub os_release: PathBuf,
    /// The bundle that waits to be installed.
    pub bundle: PathBuf,
    /// The helper's own folder, which does not outlive the machine's start.
    pub own: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Places {
            networkd: "/run/systemd/network".into(),
            timesyncd: "/run/systemd/timesyncd.conf.d".into(),
            iwd: "/var/lib/iwd".into(),
            interfaces: "/sys/class/net".into(),
            hostname: "/proc/sys/kernel/hostname".into(),
            zoneinfo: "/usr/share/zoneinfo".into(),
            localtime: "/etc/localtime".into(),
            passwd: "/etc/passwd".into(),
            os_release: "/etc/os-release".into(),
            bundle: "/var/lib/fieldgate/update/bundle.raucb".into(),
            own: "/run/fieldgate-helper".into(),
        }
    }
}

/// systemd's tools, as far as they are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Reload,
    Zone(String),
    Rauc(Call),
}

impl Tool {
    fn command(&self) -> (&'static str, Vec<&str>) {
        match self {
            Tool::Reload => ("networkctl", vec!["reload"]),
            Tool::Zone(zone) => ("timedatectl", vec!["--no-ask-password", "set-timezone", zone]),
            Tool::Rauc(call) => ("busctl", call.arguments()),
        }
    }
}

/// What `fieldgate system-helper` does: standard input is the connection of whoever asks, as a socket unit with
/// `Accept=yes` hands it over. `user` and root may ask.
pub fn main(user: &str) -> Result<(), HelperError> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    serve(&socket, user, &Places::default(), &mut run)
}

/// Answers one wish. What was refused is told to whoever asked, and is the outcome, too.
fn serve(
    socket: &UnixStream,
    user: &str,
    places: &Places,
    tool: &mut dyn FnMut(&Tool) -> Result<String, HelperError>,
) -> Result<(), HelperError> {
    socket.set_read_timeout(Some(TALK_WITHIN))?;
    socket.set_write_timeout(Some(TALK_WITHIN))?;
    let outcome = attend(socket, user, places, tool);
    let said = match &outcome {
        Ok(said) => serde_json::to_vec(said)?,
        Err(error) => serde_json::to_vec(&Said::Refused(error.to_string()))?,
    };
    let mut line = said;
    line.push(b'\n');
    let mut socket = socket;
    // He may have gone; what was done is done.
    socket.write_all(&line).ok();
    outcome.map(drop)
}

fn attend(
    socket: &UnixStream,
    user: &str,
    places: &Places,
    tool: &mut dyn FnMut(&Tool) -> Result<String, HelperError>,
) -> Result<Said, HelperError> {
    let uid = rustix::net::sockopt::socket_peercred(socket).map_err(io::Error::from)?.uid.as_raw();
    if uid != 0 && uid_of(user, &places.passwd) != Some(uid) {
        return Err(HelperError::Stranger { uid, allowed: user.to_owned() });
    }
    let mut line = Vec::new();
    BufReader::new(socket.take(MAX_REQUEST)).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(HelperError::TooLong);
    }
    let wish: Wish = serde_json::from_slice(&line)?;
    // The gateway has checked it; whoever took the gateway over has not.
    let problems = match &wish {
        Wish::SetNetwork { network } => network.problems(),
        Wish::SetTime { time } => time.problems(),
        _ => Vec::new(),
    };
    if let Some(problem) = problems.into_iter().next() {
        return Err(HelperError::Wrong(problem));
    }
    fs::create_dir_all(&places.own).map_err(failed("make", &places.own))?;
    let lock = places.own.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&lock)
        .map_err(failed("open", &lock))?;
    wait_for_turn(&lock, socket)?;
    match wish {
        Wish::SetNetwork { network } => set_network(&network, places, tool)?,
        Wish::SetTime { time } => set_time(&time, places, tool)?,
        Wish::ShowFirmware => return firmware::show(places, tool).map(Said::Firmware),
        Wish::InspectBundle => return firmware::inspect(places, tool).map(Said::Bundle),
        Wish::InstallBundle => firmware::install(places, tool)?,
        Wish::MarkSlot { good } => firmware::mark(good, tool)?,
        // A path unit sees that. Nothing of it is left after the start.
        Wish::RestartMachine => write(&places.own.join("restart"), b"", 0o600)?,
    }
    Ok(Said::Done(true))
}

/// One wish after the other; one whose asker has gone is none any more, as a newer one may have been carried out.
fn wait_for_turn(lock: &impl AsFd, socket: &UnixStream) -> Result<(), HelperError> {
    let mut looks = 0;
    while flock(lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        looks += 1;
        if looks > TURN_LOOKS {
            return Err(HelperError::Busy);
        }
        sleep(LOOK_EVERY);
    }
    let mut byte = [0];
    match rustix::net::recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Err(HelperError::Gone),
        _ => Ok(()),
    }
}

fn set_network(
    network: &MachineNetwork,
    places: &Places,
    tool: &mut dyn FnMut(&Tool) -> Result<String, HelperError>,
) -> Result<(), HelperError> {
    // Before the interface looks for it.
    set_wifi(network, places)?;
    let is_ours = |name: &str| name.starts_with(PREFIX) && name.ends_with(".network");
    let changed = replace(&places.networkd, &files::networkd(network), 0o644, is_ours)?;
    set_hostname(network.hostname.as_deref(), places)?;
    // Also when nothing differs, if the last time was cut off between the files and this.
    let unread = places.own.join("unread");
    if changed || unread.exists() {
        write(&unread, b"", 0o600)?;
        tool(&Tool::Reload)?;
        fs::remove_file(&unread).map_err(failed("remove", &unread))?;
    }
    Ok(())
}

fn set_wifi(network: &MachineNetwork, places: &Places) -> Result<(), HelperError> {
    let wifi = files::iwd(network);
    if !wifi.is_empty() && !places.iwd.is_dir() {
        return Err(HelperError::NoIwd(places.iwd.clone()));
    }
    for (interface, (name, text)) in &wifi {
        let file = places.iwd.join(name);
        match fs::read_to_string(&file) {
            Ok(there) if files::iwd_says(&there, text) => continue,
            // iwd stays in a network that it has joined, whatever its password is now: a wrong one would show days
            // later, when nobody is there to take it back. It leaves one that it no longer knows.
            Ok(_) => {
                fs::remove_file(&file).map_err(failed("remove", &file))?;
                wait_until_left(&places.interfaces.join(interface).join("operstate"));
            }
            Err(_) => {}
        }
        write(&file, text.as_bytes(), 0o600)?;
    }
    let wanted: Vec<&str> = wifi.iter().map(|(_, (name, _))| name.as_str()).collect();
    let is_ours = |name: &str| name.ends_with(".psk") || name.ends_with(".open");
    clear(&places.iwd, &wanted, is_ours).map(drop)
}

/// An iwd that does not run leaves nothing, and nothing depends on it then.
fn wait_until_left(state: &Path) {
    let is_up = || fs::read_to_string(state).is_ok_and(|state| state.trim() == "up");
    for _ in 0..LEAVE_LOOKS {
        if !is_up() {
            return;
        }
        sleep(LOOK_EVERY);
    }
}

/// Makes these the files of ours in a folder; whether any differs from what was there.
fn replace(
    folder: &Path,
    wanted: &[File],
    mode: u32,
    may_be_ours: impl Fn(&str) -> bool,
) -> Result<bool, HelperError> {
    let mut changed = false;
    if !wanted.is_empty() {
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
    }
    for (name, text) in wanted {
        let file = folder.join(name);
        if fs::read(&file).is_ok_and(|there| there == text.as_bytes()) {
            continue;
        }
        write(&file, text.as_bytes(), mode)?;
        changed = true;
    }
    let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    Ok(clear(folder, &names, may_be_ours)? || changed)
}

/// Removes our files that are wanted no more; whether there were any.
fn clear(folder: &Path, wanted: &[&str], may_be_ours: impl Fn(&str) -> bool) -> Result<bool, HelperError> {
    let mut changed = false;
    let there = match fs::read_dir(folder) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("list", folder)(error)),
    };
    for entry in there {
        let file = entry.map_err(failed("list", folder))?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !wanted.contains(&name) && may_be_ours(name) && is_marked(&file) {
            fs::remove_file(&file).map_err(failed("remove", &file))?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Somebody else's files are left alone.
fn is_marked(file: &Path) -> bool {
    let mut begin = Vec::new();
    let opened = fs::File::open(file).and_then(|file| file.take(MARK.len() as u64).read_to_end(&mut begin));
    opened.is_ok() && (begin == MARK.as_bytes() || begin.starts_with(IWD_MARK.as_bytes()))
}

/// Whole or not at all, and never readable by others for a moment.
fn write(file: &Path, text: &[u8], mode: u32) -> Result<(), HelperError> {
    let temporary = file.with_extension("fieldgate-new");
    fs::remove_file(&temporary).ok();
    let written = (|| {
        let mut new = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // Whatever the mask of this process is.
        new.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        new.write_all(text)?;
        new.sync_all()?;
        fs::rename(&temporary, file)
    })();
    written.map_err(failed("write", file))
}

/// The kernel's alone, which is gone at the machine's next start. What it was is kept for the way back.
fn set_hostname(wanted: Option<&str>, places: &Places) -> Result<(), HelperError> {
    let kept = places.own.join("hostname");
    let now = fs::read_to_string(&places.hostname).map_err(failed("read", &places.hostname))?;
    let first = fs::read_to_string(&kept).ok();
    let Some(wanted) = wanted.or(first.as_deref()).map(str::trim) else { return Ok(()) };
    if first.is_none() {
        write(&kept, now.trim().as_bytes(), 0o600)?;
    }
    if now.trim() != wanted {
        fs::write(&places.hostname, wanted).map_err(failed("write", &places.hostname))?;
    }
    Ok(())
}

fn set_time(
    time: &MachineTime,
    places: &Places,
    tool: &mut dyn FnMut(&Tool) -> Result<String, HelperError>,
) -> Result<(), HelperError> {
    let servers: Vec<File> =
        files::timesyncd(time).map(|text| (TIMESYNCD.to_owned(), text)).into_iter().collect();
    // A path unit sees that, and starts timesyncd anew, which reads it then.
    replace(&places.timesyncd, &servers, 0o644, |name| name == TIMESYNCD)?;
    let kept = places.own.join("zone");
    let now = fs::read_link(&places.localtime).ok();
    let now = now.as_ref().and_then(|link| link.to_str()?.split_once("zoneinfo/").map(|(_, zone)| zone));
    let now = now.unwrap_or("UTC").to_owned();
    let first = fs::read_to_string(&kept).ok();
    let Some(wanted) = time.zone.clone().or_else(|| first.clone()) else { return Ok(()) };
    if wanted == now {
        return Ok(());
    }
    if !places.zoneinfo.join(&wanted).is_file() {
        return Err(HelperError::NoZone(wanted));
    }
    if first.is_none() {
        write(&kept, now.as_bytes(), 0o600)?;
    }
    tool(&Tool::Zone(wanted)).map(drop)
}

fn run(tool: &Tool) -> Result<String, HelperError> {
    let (name, arguments) = tool.command();
    let told = |said: String| HelperError::Tool { tool: name, said };
    let mut command = Command::new(Path::new("/usr/bin").join(name));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| told(error.to_string()))?;
    let most = if matches!(tool, Tool::Rauc(_)) { RAUC_LOOKS } else { TOOL_LOOKS };
    let mut looks = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        looks += 1;
        if looks > most {
            child.kill().ok();
            child.wait()?;
            break None;
        }
        sleep(LOOK_EVERY);
    };
    // What a tool says fits into its pipe, or it does not end in time.
    let mut said = String::new();
    if status.is_some_and(|status| status.success()) {
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_SAID).read_to_string(&mut said).ok();
        }
        return Ok(said);
    }
    if let Some(stderr) = child.stderr.take() {
        stderr.take(1_000).read_to_string(&mut said).ok();
    }
    Err(told(match status {
        Some(status) => format!("{} ({status})", said.trim()),
        None => "did not end in time".to_owned(),
    }))
}

fn uid_of(user: &str, passwd: &Path) -> Option<u32> {
    let users = fs::read_to_string(passwd).ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(2)?.parse().ok()
}

fn failed(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> HelperError {
    move |source| HelperError::File { action, file: file.to_owned(), source }
}

#[cfg(test)]
mod tests;
