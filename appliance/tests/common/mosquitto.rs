//! Debian's mosquitto, an MQTT 5 broker, and its client programs.

use super::address::own_address;
use super::process::Process;
use super::scratch::Scratch;
use super::wait::{self, secs};
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

/// A running broker that keeps what is retained when it is restarted.
pub(crate) struct Mosquitto {
    process: Process,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    scratch: Arc<Scratch>,
}

impl Mosquitto {
    /// A broker on a port of its own: it cannot tell one that the kernel gave it.
    pub(crate) fn start() -> Mosquitto {
        Mosquitto::at(own_address(), Arc::new(Scratch::new()), "")
    }

    /// As [`Mosquitto::start`], with further lines of its config.
    pub(crate) fn at(address: SocketAddr, scratch: Arc<Scratch>, more: &str) -> Mosquitto {
        let (folder, port) = (scratch.path().display(), address.port());
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n\
             autosave_interval 1\nmax_queued_messages 1000\n{more}"
        );
        std::fs::write(scratch.join("mosquitto.conf"), config).unwrap();
        // It gives up root for a user of its own.
        rustix::fs::chmod(scratch.path(), rustix::fs::Mode::from_raw_mode(0o777)).unwrap();
        let mut process =
            Process::start("mosquitto", &["-c", scratch.join("mosquitto.conf").to_str().unwrap()]);
        wait::until_true("mosquitto to listen", secs(30), || {
            process.assert_running();
            TcpStream::connect(address).is_ok()
        });
        Mosquitto { process, address, scratch }
    }

    /// Stops it, as a restart of its machine does: what is retained is on disk.
    pub(crate) fn stop(&mut self) {
        self.process.signal(rustix::process::Signal::TERM);
        self.process.end_within(secs(20));
    }

    /// Starts it again on its port.
    pub(crate) fn restart(&mut self) {
        *self = Mosquitto::at(self.address, self.scratch.clone(), "");
    }

    /// Its URL for gateways.
    pub(crate) fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Publishes the content of a file, retained.
    pub(crate) fn publish(&self, topic: &str, file: &Path) {
        let port = self.address.port().to_string();
        let args = ["-V", "5", "-h", "127.0.0.1", "-p", &port, "-q", "1", "-r", "-t", topic, "-f"];
        let args = [&args[..], &[file.to_str().unwrap()]].concat();
        Process::run("mosquitto_pub", &args, secs(30));
    }

    /// Listens to all topics that fit.
    pub(crate) fn listen(&self, topic: &str) -> Listening {
        let port = self.address.port().to_string();
        let args = ["-V", "5", "-h", "127.0.0.1", "-p", &port, "-q", "1", "-v", "-t", topic];
        Listening { process: Process::start("mosquitto_sub", &args) }
    }
}

/// What is published.
pub(crate) struct Listening {
    process: Process,
}

impl Listening {
    /// All messages so far: topic and payload.
    pub(crate) fn messages(&self) -> Vec<(String, String)> {
        let output = self.process.output();
        let message =
            |line: &str| line.split_once(' ').map(|(topic, text)| (topic.to_owned(), text.to_owned()));
        output.lines().filter_map(message).collect()
    }

    /// Waits for a message with JSON that `wanted` accepts on a topic with this end.
    pub(crate) fn wait_for(&self, what: &str, end: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, secs(60), || {
            let fits = |(topic, text): (String, String)| {
                let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
                (topic.ends_with(end) && wanted(&value)).then_some(value)
            };
            self.messages().into_iter().find_map(fits)
        })
    }
}
