//! Log lines for systemd's journal with their fields apart, so that `journalctl FIELDGATE_MOUNTPOINT=gate-2` finds them.
//! Source: systemd's "Native Journal Protocol".

use super::{Tail, priority};
use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// What the names of our fields begin with.
const PREFIX: &str = "FIELDGATE_";
/// Longest value, in bytes.
const VALUE_MAX: usize = 4_000;

/// Sends to journald. A journald that does not keep up loses lines, and is told how many; nobody waits for it.
pub(super) struct Journal {
    socket: UnixDatagram,
    /// Takes secrets out.
    tail: Tail,
    lost: AtomicU64,
}

impl Journal {
    pub(super) fn connect(path: &Path, tail: Tail) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_nonblocking(true)?;
        Ok(Journal { socket, tail, lost: AtomicU64::new(0) })
    }

    fn entry(&self, level: Level, target: &str, words: &Words, lost: u64) -> Vec<u8> {
        let mut entry = Vec::new();
        let mut put = |name: &str, value: &str| put(&mut entry, name, &self.tail.without_secrets(value));
        put("PRIORITY", &priority(level).to_string());
        put("SYSLOG_IDENTIFIER", "fieldgate");
        put("MESSAGE", &format!("{}{}", words.message, words.fields));
        put(&format!("{PREFIX}MODULE"), target);
        for (name, value) in &words.named {
            put(&format!("{PREFIX}{name}"), value);
        }
        if lost > 0 {
            put(&format!("{PREFIX}LOST_LINES"), &lost.to_string());
        }
        entry
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let metadata = event.metadata();
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let entry = self.entry(*metadata.level(), metadata.target(), &words, lost);
        if self.socket.send(&entry).is_err() {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }
}

/// Appends a field. A value with line breaks has its length in front.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value.as_bytes()[..value.floor_char_boundary(VALUE_MAX)];
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

/// A line's message, its fields as ` name=value`, and the same under names that the journal takes.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
    named: Vec<(String, String)>,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => {
                // A text takes whatever is written.
                write!(self.fields, " {name}={value:?}").ok();
                self.named.push((journal_name(name), value.to_owned()));
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => {
                write!(self.message, "{value:?}").ok();
            }
            name => {
                let value = format!("{value:?}");
                write!(self.fields, " {name}={value}").ok();
                self.named.push((journal_name(name), value));
            }
        }
    }
}

fn journal_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    struct Journald {
        file: std::path::PathBuf,
        socket: UnixDatagram,
    }

    impl Journald {
        fn start(name: &str) -> Journald {
            let file = std::env::temp_dir().join(format!("fg-journal-{name}-{}", std::process::id()));
            std::fs::remove_file(&file).ok();
            Journald { socket: UnixDatagram::bind(&file).unwrap(), file }
        }

        fn next(&self) -> String {
            let mut bytes = vec![0; 64 << 10];
            let len = self.socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..len].to_vec()).unwrap()
        }
    }

    impl Drop for Journald {
        fn drop(&mut self) {
            std::fs::remove_file(&self.file).ok();
        }
    }

    #[test]
    fn a_line_has_its_fields_apart_and_no_secret() {
        let journald = Journald::start("fields");
        let tail = Tail::default();
        tail.set_secrets(vec!["s3cret-key".to_owned()]);
        let journal = Journal::connect(&journald.file, tail).unwrap();
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, || {
            let url = "rtsp://u:pa55@10.0.0.7/main";
            tracing::warn!(target: "t", mountpoint = "gate-2", attempt = 3, retry.after = ?url, %url, "failed with s3cret-key");
            tracing::info!(target: "t", said = "two\nlines", "fine");
            tracing::error!(target: "t", said = "\u{e4}".repeat(VALUE_MAX), "long");
        });
        let url = "rtsp://u:***@10.0.0.7/main";
        assert_eq!(
            journald.next(),
            format!(
                "PRIORITY=4\nSYSLOG_IDENTIFIER=fieldgate\nMESSAGE=failed with *** mountpoint=\"gate-2\" attempt=3 \
                 retry.after=\"{url}\" url={url}\nFIELDGATE_MODULE=t\nFIELDGATE_MOUNTPOINT=gate-2\n\
                 FIELDGATE_ATTEMPT=3\nFIELDGATE_RETRY_AFTER=\"{url}\"\nFIELDGATE_URL={url}\n"
            )
        );
        let two = journald.next();
        assert!(two.ends_with("FIELDGATE_SAID\n\u{9}\0\0\0\0\0\0\0two\nlines\n"), "{two:?}");
        let long = journald.next();
        assert!(long.contains("PRIORITY=3\n") && long.len() < 3 * VALUE_MAX, "{}", long.len());
    }

    #[test]
    fn a_journald_that_takes_nothing_holds_nobody_up_and_is_told_what_it_missed() {
        let journald = Journald::start("full");
        let journal = Journal::connect(&journald.file, Tail::default()).unwrap();
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, || {
            (0..5_000).for_each(|number| tracing::info!(number, "line"));
            let mut taken = 0;
            journald.socket.set_nonblocking(true).unwrap();
            while journald.socket.recv(&mut [0; 1]).is_ok() {
                taken += 1;
            }
            assert!(taken < 5_000);
            tracing::info!("at last");
            assert!(journald.next().ends_with(&format!("FIELDGATE_LOST_LINES={}\n", 5_000 - taken)));
        });
    }
}
