//! An encoder of a coordinator elsewhere.
//!
//! ```text
//!  ENCODE-START --> running --first files--> available --+--ended--> over (STREAM-CLOSED, once)
//!                     |                         |        |
//!                     |                    ENCODE-STOP   |
//!                     |                         v        |
//!                     |                     draining ----+
//!                     |                         | 10 s
//!                     +------ENCODE-STOP--------+--> stopping --> over (STREAM-CLOSED, once)
//! ```
//! [`Encoder`] knows neither sockets nor media nor time: it says when to connect, what to send, what to encode and what
//! to end. A coordinator that is lost takes its tasks with it. Not for how pictures are made, which is the binary's.

mod assignment;
mod files;
pub mod fuzz;
mod note;
mod renditions;
#[cfg(test)]
mod tests;
mod variables;

pub use assignment::{Assignment, Previews, SourceKind, Unfit};
pub use files::{Files, ListSettings, Listed, Lists, Vod, preview_index};
pub use note::Note;
pub use renditions::{Rendition, Resolutions, Shape};
pub use variables::take_variables;

use crate::control_socket::{self, Due, Heard, Link, complaint};
use crate::coordinator::{Message, MessageError, WORDS_MAX};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Tasks at once, whatever was told.
pub const TASKS_MAX: usize = 256;
/// A stream that shall stop may come to its end for so long.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

fn after(now: Instant, span: Duration) -> Instant {
    now.checked_add(span).unwrap_or(now)
}

/// What an encoder goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Streams at once; none: no limit is told.
    pub capacity: Option<u32>,
    /// Whether the capacity that is left is told after each stream: old coordinators never count down.
    pub reregister: bool,
    /// Longest channel or id of a stream, in bytes.
    pub id_max: usize,
    /// A coordinator that says nothing for so long is lost.
    pub silence: Duration,
    /// For waits that differ between gateways.
    pub seed: u64,
}

/// One task, never two with one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// A set of files that can be watched now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// What kind.
    pub kind: FilesKind,
    /// As [`Rendition`] or [`Previews::name`] writes it.
    pub resolution: String,
    /// The list, relative to where all files are.
    pub index_file: String,
    /// When what it names begins, if that is not where the stream begins.
    pub start: Duration,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesKind {
    /// A playlist that grows.
    Live,
    /// A playlist of what was recorded.
    Vod,
    /// Pictures.
    Previews,
}

impl FilesKind {
    fn name(self) -> &'static str {
        match self {
            FilesKind::Live => "HLS-LIVE",
            FilesKind::Vod => "HLS-VOD",
            FilesKind::Previews => "IMG-PREVIEW",
        }
    }
}

/// What an encoder wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect, then call [`Encoder::handle_connected`] or [`Encoder::handle_lost`].
    Connect,
    /// Send a message; if it cannot be sent, close the socket and call [`Encoder::handle_lost`].
    Send(Message),
    /// Close the socket.
    Close,
    /// Encode this; its end is told by [`Encoder::handle_ended`].
    Start(TaskId, Box<Assignment>),
    /// End a task now; its end is told as ever.
    Stop(TaskId),
    /// For the log.
    Note(Note),
}

#[derive(Debug)]
struct Task {
    channel: String,
    stream_id: String,
    is_available: bool,
    /// It is told to end when this comes.
    stop_at: Option<Instant>,
    is_stopping: bool,
}

/// An encoder.
///
/// After every call the owner takes actions until there are none, then sleeps until [`Encoder::next_timeout`] or the next
/// input.
#[derive(Debug)]
pub struct Encoder {
    settings: Settings,
    link: Link,
    /// Those that the present coordinator knows of.
    tasks: BTreeMap<TaskId, Task>,
    next_task: u64,
    actions: VecDeque<Action>,
}

impl Encoder {
    /// One that begins now.
    pub fn new(settings: Settings, now: Instant) -> Encoder {
        Encoder {
            link: Link::new(settings.silence, settings.seed, now),
            settings,
            tasks: BTreeMap::new(),
            next_task: 1,
            actions: VecDeque::new(),
        }
    }

    /// The socket is open.
    pub fn handle_connected(&mut self, now: Instant) {
        self.link.connected(now);
        self.register();
        self.note(control_socket::Note::Connected);
    }

    /// The socket is gone, or could not be opened.
    pub fn handle_lost(&mut self, why: &str, now: Instant) {
        let wait = self.link.lost(now);
        self.note(control_socket::Note::Lost { why: why.to_owned(), wait });
        // Whoever comes next knows nothing of them.
        for (id, task) in std::mem::take(&mut self.tasks) {
            if !task.is_stopping {
                self.actions.push_back(Action::Stop(id));
            }
        }
    }

    /// A text message has come.
    pub fn handle_text(&mut self, text: &str, now: Instant) {
        let message = match self.link.hear(text, now) {
            Heard::Message(message) => message,
            Heard::Nothing => return,
            Heard::Reported(words) => return self.note(control_socket::Note::Reported(words)),
            Heard::Broken(why) => return self.handle_broken(why, now),
        };
        match message.kind() {
            "ENCODE-START" => self.on_start(&message),
            "ENCODE-STOP" => self.on_stop(message.get("Stream-Channel"), message.get("Stream-ID"), now),
            _ => {}
        }
    }

    /// A binary message has come: nothing is in it, but the coordinator lives.
    pub fn handle_binary(&mut self, now: Instant) {
        self.link.heard(now);
    }

    /// What has come is no message: the coordinator is told so, and the socket closed.
    pub fn handle_broken(&mut self, why: MessageError, now: Instant) {
        if !self.link.is_up() {
            return;
        }
        self.send(complaint(why));
        self.note(control_socket::Note::Broken(why));
        self.hang_up("it breaks the protocol", now);
    }

    /// Files of a task can be watched. To be told once of each set.
    pub fn handle_available(&mut self, id: TaskId, available: &Available) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.is_available = true;
        let mut message = about("STREAM-AVAILABLE", &task.channel, &task.stream_id)
            .with("Stream-Type", available.kind.name())
            .with("Resolution", &available.resolution)
            .with("Index-file", &available.index_file);
        if !available.start.is_zero() {
            message = message.with("Start-Time", &seconds(available.start));
        }
        self.send(message);
    }

    /// A task is over; `failed` says why, if it is not that the stream ended.
    pub fn handle_ended(&mut self, id: TaskId, failed: Option<&str>) {
        let Some(task) = self.tasks.remove(&id) else { return };
        let mut message = about("STREAM-CLOSED", &task.channel, &task.stream_id);
        if let Some(why) = failed {
            let why: String = why.chars().take(WORDS_MAX).collect();
            message = message.with("Error-Code", "ENCODE_FAILED").with("Error-Message", &why);
        }
        self.send(message);
        self.register_again();
    }

    /// [`Encoder::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.link.poll(now) {
            match due {
                Due::Connect => self.actions.push_back(Action::Connect),
                Due::Beat => self.send(Message::new("HEARTBEAT")),
                Due::Silent => {
                    let why = format!("it has been silent for {:?}", self.settings.silence);
                    self.hang_up(&why, now);
                }
            }
        }
        for (id, task) in &mut self.tasks {
            if !task.is_stopping && task.stop_at.is_some_and(|at| at <= now) {
                task.is_stopping = true;
                self.actions.push_back(Action::Stop(*id));
            }
        }
    }

    /// When [`Encoder::handle_timeout`] shall be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        let draining = self.tasks.values().filter(|task| !task.is_stopping);
        draining.filter_map(|task| task.stop_at).chain(self.link.due()).min()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn on_start(&mut self, message: &Message) {
        let (channel, stream_id) = (message.get("Stream-Channel"), message.get("Stream-ID"));
        let is_known = |task: &Task| task.channel == channel && task.stream_id == stream_id;
        if self.tasks.values().any(is_known) {
            return;
        }
        let most =
            self.settings.capacity.map_or(TASKS_MAX, |most| usize::try_from(most).unwrap_or(TASKS_MAX));
        let assignment = match Assignment::read(message, self.settings.id_max) {
            Ok(_) if self.tasks.len() >= most.min(TASKS_MAX) => Err(Unfit::Full),
            read => read,
        };
        let assignment = match assignment {
            Ok(assignment) => assignment,
            Err(why) => {
                self.note(Note::Declined(why));
                let closed = about("STREAM-CLOSED", channel, stream_id)
                    .with("Error-Code", why.code())
                    .with("Error-Message", &why.to_string());
                self.send(closed);
                return self.register_again();
            }
        };
        let id = TaskId(self.next_task);
        self.next_task = self.next_task.saturating_add(1);
        let task = Task {
            channel: assignment.channel.clone(),
            stream_id: assignment.stream_id.clone(),
            is_available: false,
            stop_at: None,
            is_stopping: false,
        };
        self.note(Note::Assigned { channel: task.channel.clone(), stream_id: task.stream_id.clone() });
        self.tasks.insert(id, task);
        self.actions.push_back(Action::Start(id, Box::new(assignment)));
    }

    /// An empty id means all streams of the channel.
    fn on_stop(&mut self, channel: &str, stream_id: &str, now: Instant) {
        for (id, task) in &mut self.tasks {
            let is_meant = task.channel == channel && (stream_id.is_empty() || task.stream_id == stream_id);
            if !is_meant || task.is_stopping {
                continue;
            }
            if task.is_available {
                task.stop_at.get_or_insert_with(|| after(now, DRAIN_WITHIN));
            } else {
                task.is_stopping = true;
                self.actions.push_back(Action::Stop(*id));
            }
        }
    }

    fn register(&mut self) {
        let running = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        let capacity = self.settings.capacity.map(|most| most.saturating_sub(running));
        let capacity = capacity.map_or_else(|| "-1".to_owned(), |left| left.to_string());
        self.send(Message::new("REGISTER").with("Capacity", &capacity));
    }

    fn register_again(&mut self) {
        if self.settings.reregister && self.settings.capacity.is_some() {
            self.register();
        }
    }

    fn send(&mut self, message: Message) {
        if self.link.is_up() {
            self.actions.push_back(Action::Send(message));
        }
    }

    fn hang_up(&mut self, why: &str, now: Instant) {
        self.actions.push_back(Action::Close);
        self.handle_lost(why, now);
    }

    fn note(&mut self, note: impl Into<Note>) {
        self.actions.push_back(Action::Note(note.into()));
    }
}

fn about(kind: &str, channel: &str, stream_id: &str) -> Message {
    Message::new(kind).with("Stream-Channel", channel).with("Stream-ID", stream_id)
}

/// Decimal, without what says nothing.
fn seconds(span: Duration) -> String {
    let text = format!("{:.3}", span.as_secs_f64());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
