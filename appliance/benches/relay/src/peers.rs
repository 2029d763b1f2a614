//! The servers under load: how each is started, found ready, and ended.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::engine::now_ns;
use crate::error::{Attempt, BenchError};
use crate::meter;

const START_SECONDS: u64 = 15;
const STOP_SECONDS: u64 = 8;
const NGINX_MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_rtmp_module.so", "/usr/share/nginx/modules/ngx_rtmp_module.so"];

/// Who relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// The raw TCP fan-out that ratios refer to.
    Floor,
    /// The same on a single-threaded tokio runtime.
    FloorTokio,
    /// The gateway.
    Fieldgate,
    /// Debian's nginx with libnginx-mod-rtmp, one worker.
    Nginx,
}

impl Peer {
    /// Each once.
    pub(crate) const ALL: [Self; 4] = [Self::Floor, Self::FloorTokio, Self::Fieldgate, Self::Nginx];
    /// Those that are compared unless told otherwise.
    pub(crate) const USUAL: [Self; 3] = [Self::Floor, Self::Fieldgate, Self::Nginx];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::FloorTokio => "floor-tokio",
            Self::Fieldgate => "fieldgate",
            Self::Nginx => "nginx",
        }
    }

    /// It hands on bytes and knows no messages.
    pub(crate) fn is_floor(self) -> bool {
        matches!(self, Self::Floor | Self::FloorTokio)
    }
}

/// What a run wants of its server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Where each stream is pushed to.
    pub sinks: Vec<SocketAddr>,
    /// They take KMP in.
    pub kmp: bool,
    /// fieldgate's spool settings for what goes there.
    pub spool: Option<serde_json::Value>,
    /// nginx serves this folder by HTTP, and no RTMP.
    pub files: Option<PathBuf>,
    /// fieldgate's opt-in gathering of each output.
    pub gather: bool,
    /// Clients that may be connected at once.
    pub connections: usize,
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// fieldgate's binary.
    pub fieldgate: PathBuf,
    /// nginx's binary.
    pub nginx: PathBuf,
    /// Bytes that the floor reads at once.
    pub floor_read: u32,
    /// nginx's chunk size towards players.
    pub nginx_chunk: u32,
    /// More of fieldgate's config, merged over the generated one.
    pub fieldgate_config: Option<serde_json::Value>,
}

/// A running server; ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    peer: Peer,
    child: Child,
    folder: TempFolder,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts the server and waits until it accepts connections.
    pub(crate) fn start(peer: Peer, programs: &Programs, settings: &Settings) -> Result<Self, BenchError> {
        let folder = TempFolder::new()?;
        let log = fs::File::create(folder.0.join("log")).attempt("create a log file")?;
        let mut address = free_address()?;
        let mut command = match peer {
            Peer::Floor | Peer::FloorTokio => {
                let mut command = Command::new(std::env::current_exe().attempt("find this program")?);
                command
                    .arg("floor")
                    .arg("--floor-read")
                    .arg(programs.floor_read.to_string())
                    .stdout(Stdio::piped());
                if peer == Peer::FloorTokio {
                    command.arg("--tokio");
                }
                command
            }
            Peer::Fieldgate => fieldgate(programs, settings, &folder.0, address)?,
            Peer::Nginx => nginx(programs, settings, &folder.0, address)?,
        };
        if !peer.is_floor() {
            command.stdout(log.try_clone().attempt("share a log file")?);
        }
        // The floor ends with its standard input, so also when this program is killed.
        let child = command.stdin(Stdio::piped()).stderr(log).spawn().attempt("start a server")?;
        let mut server = Self { peer, child, folder, address };
        if let Some(stdout) = server.child.stdout.take() {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).attempt("read the floor's port")?;
            let port = line.trim().parse().map_err(|_| BenchError::Protocol("the floor told no port"))?;
            address.set_port(port);
            server.address = address;
        }
        let end = now_ns() + START_SECONDS * 1_000_000_000;
        while TcpStream::connect(address).is_err() {
            server.check()?;
            if now_ns() > end {
                let what = format!("the start of {}; its log ends: {}", peer.name(), server.log_tail());
                return Err(BenchError::Timeout { what, seconds: START_SECONDS });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(300));
        server.check()?;
        Ok(server)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait().attempt("look after a server")? {
            None => Ok(()),
            Some(status) => Err(BenchError::ServerEnded {
                peer: self.peer.name(),
                status: status.to_string(),
                log: self.log_tail(),
            }),
        }
    }

    /// Bytes of the files that it keeps.
    pub(crate) fn state_bytes(&self) -> u64 {
        meter::folder_bytes(&self.folder.0.join("state"))
    }

    /// The last of what it wrote.
    pub(crate) fn log_tail(&self) -> String {
        let mut text = String::new();
        for name in ["log", "error.log"] {
            if let Ok(mut file) = fs::File::open(self.folder.0.join(name)) {
                // A log that is not UTF-8 is cut where it stops to be.
                let _ = file.read_to_string(&mut text);
            }
        }
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(6)..].join(" | ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let tree = meter::tree(self.child.id());
        signal(self.child.id(), Signal::TERM);
        drop(self.child.stdin.take());
        let end = now_ns() + STOP_SECONDS * 1_000_000_000;
        while matches!(self.child.try_wait(), Ok(None)) {
            if now_ns() > end {
                for &pid in &tree {
                    signal(pid, Signal::KILL);
                }
                // Killed processes can always be waited for.
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // It may have ended by itself: then there is nobody to tell.
        let _ = kill_process(pid, signal);
    }
}

/// A port that was free a moment ago, on loopback.
pub(crate) fn free_address() -> Result<SocketAddr, BenchError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).attempt("find a free port")?;
    listener.local_addr().attempt("ask for a free port")
}

fn fieldgate(
    programs: &Programs,
    settings: &Settings,
    folder: &Path,
    address: SocketAddr,
) -> Result<Command, BenchError> {
    require(&programs.fieldgate)?;
    let mut template = json!({ "source": { "kind": "publish" }, "max": 64 });
    if !settings.sinks.is_empty() {
        if settings.kmp {
            // A track is ended with its stream, not with the publisher's connection.
            template["grace"] = json!("1s");
        }
        template["push"] = settings.sinks.iter().map(|sink| push(sink, settings)).collect();
    }
    if settings.gather {
        template["play"] = json!({ "gather": "50ms" });
    }
    let mut config = json!({
        // All of the load comes from one address.
        "rtmp": { "listen": [address.to_string()], "max_connections": 4096, "max_connections_per_address": 2048 },
        "admin": { "listen": [free_address()?.to_string()] },
        "mountpoints": { "s*": template },
    });
    if let Some(more) = &programs.fieldgate_config {
        merge(&mut config, more);
    }
    let file = folder.join("config.json");
    fs::write(&file, config.to_string()).attempt("write fieldgate's config")?;
    let state = folder.join("state");
    fs::create_dir(&state).attempt("create fieldgate's state folder")?;
    let mut command = Command::new(&programs.fieldgate);
    command.arg("run").arg("--state").arg(state).arg("--config").arg(file).envs(unit_environment());
    Ok(command)
}

/// The variables that the gateway's unit sets.
fn unit_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    let unit = include_str!("../../../../systemd/fieldgate.service");
    let lines = unit.lines().filter_map(|line| line.strip_prefix("Environment="));
    lines.flat_map(str::split_whitespace).filter_map(|variable| variable.split_once('='))
}

fn push(sink: &SocketAddr, settings: &Settings) -> serde_json::Value {
    if !settings.kmp {
        return json!({ "url": format!("rtmp://{sink}/live/{{name}}") });
    }
    let tracks = json!({ "video": "v1", "audio": "a1" });
    let mut push = json!({ "url": format!("kmp://{sink}"), "channel_id": "{name}", "track_ids": tracks });
    if let Some(spool) = &settings.spool {
        push["spool"] = spool.clone();
    }
    push
}

/// Merges as RFC 7396 does, without removal.
fn merge(base: &mut serde_json::Value, patch: &serde_json::Value) {
    match (base, patch) {
        (serde_json::Value::Object(base), serde_json::Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (base, patch) => *base = patch.clone(),
    }
}

fn nginx(
    programs: &Programs,
    settings: &Settings,
    folder: &Path,
    address: SocketAddr,
) -> Result<Command, BenchError> {
    require(&programs.nginx)?;
    if let Some(files) = &settings.files {
        return file_server(programs, settings, folder, address, files);
    }
    let module = NGINX_MODULES.iter().find(|path| Path::new(path).exists());
    let module = module.ok_or_else(|| BenchError::Missing(NGINX_MODULES[0].into()))?;
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let push: String = settings.sinks.iter().map(|sink| format!("push rtmp://{sink}/live;\n")).collect();
    let config = format!(
        "load_module {module};\n{user}\nworker_processes 1;\ndaemon off;\n\
         pid {folder}/pid;\nerror_log {folder}/error.log error;\n\
         events {{ worker_connections {}; }}\n\
         rtmp {{ access_log off; server {{ listen {address}; chunk_size {chunk};\n\
         application live {{ live on;\n{push} }} }} }}\n",
        settings.connections * 2 + 64,
        folder = folder.display(),
        chunk = programs.nginx_chunk,
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).attempt("write nginx's config")?;
    let mut command = Command::new(&programs.nginx);
    command.arg("-p").arg(folder).arg("-c").arg(file);
    Ok(command)
}

/// nginx as Debian sets it up for files, with one worker and connections that stay open.
fn file_server(
    programs: &Programs,
    settings: &Settings,
    folder: &Path,
    address: SocketAddr,
    files: &Path,
) -> Result<Command, BenchError> {
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let config = format!(
        "{user}\nworker_processes 1;\ndaemon off;\npid {folder}/pid;\nerror_log {folder}/error.log error;\n\
         events {{ worker_connections {connections}; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; gzip on; keepalive_requests 1000000;\n\
         types {{ application/vnd.apple.mpegurl m3u8; video/mp4 m4s mp4; }}\n\
         server {{ listen {address}; root {files}; }} }}\n",
        connections = settings.connections * 2 + 64,
        folder = folder.display(),
        files = files.display(),
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).attempt("write nginx's config")?;
    let mut command = Command::new(&programs.nginx);
    command.arg("-p").arg(folder).arg("-c").arg(file);
    Ok(command)
}

fn require(program: &Path) -> Result<(), BenchError> {
    if program.is_file() { Ok(()) } else { Err(BenchError::Missing(program.to_owned())) }
}

#[derive(Debug)]
struct TempFolder(PathBuf);

impl TempFolder {
    fn new() -> Result<Self, BenchError> {
        let name = format!("fieldgate-bench-{}-{}", std::process::id(), now_ns());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).attempt("create a temporary folder")?;
        Ok(Self(path))
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // What cannot be removed stays for the system's own cleaning.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_config_is_merged_over_the_generated_one() {
        let mut base = json!({ "rtmp": { "listen": ["a"] } });
        merge(&mut base, &json!({ "rtmp": { "max_connections": 9 }, "x": 1 }));
        assert_eq!(base, json!({ "rtmp": { "listen": ["a"], "max_connections": 9 }, "x": 1 }));
    }

    #[test]
    fn a_spool_is_asked_for_only_where_it_is_measured() {
        let sink = "127.0.0.1:9".parse().unwrap();
        let rtmp = push(&sink, &Settings::default());
        assert_eq!(rtmp, json!({ "url": "rtmp://127.0.0.1:9/live/{name}" }));
        let kmp = push(&sink, &Settings { kmp: true, ..Settings::default() });
        assert_eq!((&kmp["url"], kmp.get("spool")), (&json!("kmp://127.0.0.1:9"), None));
        let spool = Settings { kmp: true, spool: Some(json!({ "sync": "2s" })), ..Settings::default() };
        assert_eq!(push(&sink, &spool)["spool"], json!({ "sync": "2s" }));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = require(Path::new("/nowhere/fieldgate")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/fieldgate"));
    }
}
