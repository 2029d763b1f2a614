//! The program under test.

use super::http::{self, Response};
use super::memory;
use super::process::Process;
use super::scratch::Scratch;
use super::wait::{self, secs};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

/// A running gateway.
pub(crate) struct Gateway {
    process: Process,
    /// Where it listens for RTMP.
    pub(crate) rtmp: SocketAddr,
    /// Where it listens for RTMP over TLS, if it does.
    pub(crate) rtmps: Option<SocketAddr>,
    /// Where its API is.
    pub(crate) admin: SocketAddr,
    /// Where its API is with TLS, if it is.
    pub(crate) admin_tls: Option<SocketAddr>,
    /// Where it listens for KMP, if it does.
    pub(crate) kmp: Option<SocketAddr>,
    /// Where its API for KMP controllers is, if it listens.
    pub(crate) kmp_api: Option<SocketAddr>,
    /// Where content managers call it, if it listens.
    pub(crate) aggregator: Option<SocketAddr>,
    /// Where content managers read its statistics, if it listens.
    pub(crate) aggregator_stat: Option<SocketAddr>,
    /// Where servers and encoders that it coordinates come, if it listens.
    pub(crate) coordinator: Option<SocketAddr>,
    /// The same over TLS, if both are on.
    pub(crate) coordinator_tls: Option<SocketAddr>,
    /// What its owner shows to its API: the secret that it writes at its start.
    credential: String,
    /// Lasts as long as the process that writes there.
    scratch: Arc<Scratch>,
}

impl Gateway {
    /// With fresh state and this config; `rtmp.listen` and `admin.listen` may be left to the kernel.
    pub(crate) fn start(config: Value) -> Gateway {
        Gateway::start_in(Arc::new(Scratch::new()), config, |_| {})
    }

    /// A gateway whose only interesting part are its mountpoints.
    pub(crate) fn with_mountpoints(mountpoints: Value) -> Gateway {
        Gateway::start(json!({ "mountpoints": mountpoints }))
    }

    /// As [`Gateway::start`], in a given folder and with a last word on the command.
    pub(crate) fn start_in(
        scratch: Arc<Scratch>,
        mut config: Value,
        adapt: impl FnOnce(&mut Command),
    ) -> Gateway {
        for plane in ["rtmp", "admin"] {
            let listen = &mut config[plane]["listen"];
            if listen.is_null() {
                *listen = json!(["127.0.0.1:0"]);
            }
        }
        let file = scratch.join("config.json");
        std::fs::write(&file, serde_json::to_vec_pretty(&config).unwrap()).unwrap();
        let state = scratch.join("state");
        std::fs::create_dir_all(&state).unwrap();
        let mut process = spawn(&state, &file, adapt);
        let listening = wait_for_listening(&mut process);
        let secret =
            std::fs::read_to_string(state.join("access/local.token")).expect("it wrote its own secret");
        Gateway {
            credential: format!("Bearer {secret}"),
            rtmp: first(&listening, "rtmp").expect("listens for RTMP"),
            rtmps: first(&listening, "rtmps"),
            admin: first(&listening, "admin").expect("has an API"),
            admin_tls: nth(&listening, "admin", 1),
            kmp: first(&listening, "kmp"),
            kmp_api: first(&listening, "kmp_api"),
            aggregator: first(&listening, "aggregator"),
            aggregator_stat: first(&listening, "aggregator_stat"),
            coordinator: first(&listening, "coordinator"),
            coordinator_tls: nth(&listening, "coordinator", 1),
            process,
            scratch,
        }
    }

    /// Where it keeps what it must not forget.
    pub(crate) fn state(&self) -> std::path::PathBuf {
        self.scratch.join("state")
    }

    /// Its process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Where one publishes and plays `name`.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("rtmp://{}/live/{name}", self.rtmp)
    }

    /// Its status.
    pub(crate) fn status(&self) -> Value {
        self.get("/api/v1/status").json()
    }

    /// `GET` on its API.
    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    /// One request to its API, as its owner.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let headers = [headers, &[("Authorization", self.credential.as_str())]].concat();
        http::request(self.admin, method, path, &headers, body)
    }

    /// The config with its revision's tag.
    pub(crate) fn config(&self) -> (Value, String) {
        let answer = self.get("/api/v1/config");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tag = answer.header("etag").expect("the config carries an ETag").to_owned();
        (answer.json(), tag)
    }

    /// Puts a config, on the condition that `tag` is current.
    pub(crate) fn put_config(&self, config: &Value, tag: Option<&str>) -> Response {
        let body = serde_json::to_vec(config).unwrap();
        let mut headers = vec![("Content-Type", "application/json")];
        if let Some(tag) = tag {
            headers.push(("If-Match", tag));
        }
        self.request("PUT", "/api/v1/config", &headers, &body)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Files and sockets that it holds open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.pid())).unwrap().count()
    }

    /// Memory of its own that it holds now, in bytes: without the pages of program and libraries, which the kernel maps
    /// as it likes.
    pub(crate) fn held_bytes(&self) -> u64 {
        memory::held_bytes(self.process.pid()).expect("it runs")
    }

    /// Waits until `count` subscribers (players, pushes) hold `name`.
    pub(crate) fn wait_for_players(&self, name: &str, count: u64) {
        wait::until_true(&format!("{count} players of {name}"), secs(20), || self.players(name) >= count);
    }

    /// Players of `name` now.
    pub(crate) fn players(&self, name: &str) -> u64 {
        let status = self.status();
        let mountpoint = &status["mountpoints"][name];
        mountpoint["players"].as_u64().unwrap_or(0)
    }

    /// Asks it to stop and waits for the end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.process.signal(rustix::process::Signal::TERM);
        self.process.end_within(secs(30))
    }

    /// Panics if it has ended.
    pub(crate) fn assert_running(&mut self) {
        self.process.assert_running();
    }
}

/// The program's path: the one that was just built, or another build of the same that is to be tested.
pub(crate) fn program() -> String {
    std::env::var("FIELDGATE_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_fieldgate").to_owned())
}

fn spawn(state: &Path, file: &Path, adapt: impl FnOnce(&mut Command)) -> Process {
    let args = ["run", "--state", state.to_str().unwrap(), "--config", file.to_str().unwrap()];
    Process::start_with(&program(), &args, |command| {
        command.env("RUST_BACKTRACE", "1").env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        adapt(command);
    })
}

/// The first line of standard output says where it listens.
fn wait_for_listening(process: &mut Process) -> Value {
    wait::until("the gateway to listen", secs(60), || {
        process.assert_running();
        let output = process.output();
        let first: Value = serde_json::from_str(output.lines().next()?).expect("the first line is JSON");
        Some(first["listening"].clone())
    })
}

fn first(listening: &Value, plane: &str) -> Option<SocketAddr> {
    nth(listening, plane, 0)
}

fn nth(listening: &Value, plane: &str, index: usize) -> Option<SocketAddr> {
    listening[plane].get(index)?.as_str()?.parse().ok()
}
