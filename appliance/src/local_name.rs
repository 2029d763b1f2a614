//! The gateway's name in the local networks: `fieldgate-7f3a`, and with `.local`. Announced by multicast DNS, held by the
//! certificate that the gateway makes, answered to by the admin plane.

use crate::certificate::machine_names;
use crate::supervisor::ChildKey;
use crate::wiring::Board;
use fieldgate_model::Config;
use fieldgate_net::{Announcer, AnnouncerSettings};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Where the addresses stand for programs on this machine, in the state folder.
const FILE: &str = "announced";
/// How often it is looked where the page listens, and what became of the name.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What every gateway's own name begins with.
const PREFIX: &str = "fieldgate-";
/// Characters of the device id behind it.
const TAIL: usize = 4;
/// Longest file that is read, in bytes.
const MAX_FILE: usize = 16 << 10;

/// The name. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct LocalName(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    by_device: String,
    by_config: Mutex<Option<String>>,
    announcer: Announcer,
}

impl LocalName {
    /// Of the device with this id, as long as no config names it otherwise.
    pub fn new(device: &str) -> Self {
        let plain: Vec<char> = device.chars().filter(char::is_ascii_alphanumeric).collect();
        let tail: String = plain.iter().skip(plain.len().saturating_sub(TAIL)).collect();
        let by_device = format!("{PREFIX}{}", tail.to_ascii_lowercase());
        LocalName(Arc::new(Inner { by_device, by_config: Mutex::default(), announcer: Announcer::default() }))
    }

    /// Takes the name that a config gives, if it gives one.
    pub fn follow(&self, config: &Config) {
        let named = config.network.hostname.as_ref().map(|name| name.to_ascii_lowercase());
        *self.0.by_config.lock().unwrap_or_else(PoisonError::into_inner) = named;
    }

    /// Without `.local`.
    pub fn label(&self) -> String {
        let named = self.0.by_config.lock().unwrap_or_else(PoisonError::into_inner);
        named.clone().unwrap_or_else(|| self.0.by_device.clone())
    }

    /// All names of this machine, for a certificate; its own one last.
    pub fn names(&self) -> Vec<String> {
        let label = self.label();
        let mut names = machine_names();
        names.retain(|name| name.strip_suffix(".local").unwrap_or(name) != label);
        names.extend([format!("{label}.local"), label]);
        names
    }

    /// Whether this is the name, or what it had to become because somebody else has it.
    pub fn is(&self, host: &str) -> bool {
        let label = self.label();
        let plain = host
            .get(..host.len().saturating_sub(".local".len()))
            .filter(|_| host.to_ascii_lowercase().ends_with(".local"));
        plain.unwrap_or(host).eq_ignore_ascii_case(&label)
            || self.0.announcer.told().iter().any(|told| told.name.eq_ignore_ascii_case(host))
    }

    /// Where the page is, as it is announced now: `https://fieldgate-7f3a.local:8443/`. Mostly one.
    pub fn announced(&self) -> Vec<String> {
        self.0
            .announcer
            .told()
            .into_iter()
            .map(|told| format!("https://{}:{}/", told.name, told.port))
            .collect()
    }

    /// Announces, as the config that runs says, until cancelled; the file in `state` says what.
    pub async fn run(
        &self,
        config: watch::Receiver<Arc<Config>>,
        board: Arc<Board>,
        state: PathBuf,
        cancel: CancellationToken,
    ) {
        let (feed, settings) = watch::channel(AnnouncerSettings::default());
        let following = async {
            let mut written = None;
            loop {
                let now = config.borrow().clone();
                self.follow(&now);
                let wanted = self.settings(&now, &board);
                feed.send_if_modified(|settings| {
                    let differs = *settings != wanted;
                    *settings = wanted;
                    differs
                });
                let announced = self.announced();
                if written.as_ref() != Some(&announced) {
                    write(&state, &announced).await;
                    written = Some(announced);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = self.0.announcer.run(settings, cancel) => {}
            () = following => {}
        }
        write(&state, &[]).await;
    }

    fn settings(&self, config: &Config, board: &Board) -> AnnouncerSettings {
        let is_on = config.discovery.announce && config.admin.tls.is_some();
        let addresses = board.addresses().remove(&ChildKey::Admin).unwrap_or_default();
        // Without TLS it listens on loopback alone.
        let pages = addresses.into_iter().filter(|address| !address.ip().is_loopback()).collect();
        AnnouncerSettings { label: is_on.then(|| self.label()), pages, ..AnnouncerSettings::default() }
    }
}

/// The addresses as the gateway of this state folder announces them, one a line. Empty: none. Blocks on the disk.
pub fn read_announced(state: &Path) -> io::Result<String> {
    let mut bytes = std::fs::read(state.join(FILE))?;
    bytes.truncate(MAX_FILE);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What is lost in a power cut is written anew at the next start.
async fn write(state: &Path, announced: &[String]) {
    let (file, text) =
        (state.join(FILE), announced.iter().map(|line| format!("{line}\n")).collect::<String>());
    let writing = tokio::task::spawn_blocking(move || std::fs::write(&file, text));
    if let Ok(Err(error)) = writing.await {
        warn!(%error, "where the gateway is announced cannot be written down");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_name_is_the_devices_unless_the_config_has_one() {
        let name = LocalName::new("fg-10000000ABCD");
        assert_eq!(name.label(), "fieldgate-abcd");
        assert_eq!(name.names().last().map(String::as_str), Some("fieldgate-abcd"));
        assert!(name.names().contains(&"fieldgate-abcd.local".to_owned()));
        for host in ["fieldgate-abcd", "FIELDGATE-ABCD.local", "fieldgate-abcd.LOCAL"] {
            assert!(name.is(host), "{host}");
        }
        for host in [
            "fieldgate-abc",
            "fieldgate-abcd-2.local",
            "fieldgate-abcd.local.evil.example",
            "\u{e4}.local",
            "",
        ] {
            assert!(!name.is(host), "{host}");
        }
        name.follow(&serde_json::from_value(json!({"network": {"hostname": "gate-7"}})).unwrap());
        assert!(name.label() == "gate-7" && name.is("gate-7.local") && !name.is("fieldgate-abcd.local"));
        name.follow(&Config::default());
        assert_eq!(name.label(), "fieldgate-abcd");
        assert_eq!(LocalName::new("7").label(), "fieldgate-7");
    }

    #[test]
    fn it_is_told_only_where_the_network_may_ask() {
        let (name, board) = (LocalName::new("fg-1234"), Board::default());
        let config = |value| serde_json::from_value::<Config>(value).unwrap();
        board.set_addresses(ChildKey::Admin, vec!["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(name.settings(&config(json!({})), &board).label, None);
        let tls = || json!({"listen": ["0.0.0.0:8443"]});
        let mut open = config(json!({"admin": {"tls": tls()}}));
        assert!(name.settings(&open, &board).pages.is_empty());
        board.set_addresses(
            ChildKey::Admin,
            vec!["127.0.0.1:80".parse().unwrap(), "0.0.0.0:8443".parse().unwrap()],
        );
        let settings = name.settings(&open, &board);
        assert_eq!(settings.label.as_deref(), Some("fieldgate-1234"));
        assert_eq!(settings.pages, ["0.0.0.0:8443".parse().unwrap()]);
        open.discovery.announce = false;
        assert_eq!(name.settings(&open, &board).label, None);
    }
}
