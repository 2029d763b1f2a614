//! The fleet manager's side of the gateway: bundles are judged, carried out through the steward, and what became of them
//! is told.
//!
//! ```text
//!  POST /api/v1/bundle --+                       +--> steward --> confirmed, or undone with its causes
//!  MQTT -----------------+--> inbox --> desk ----+                        |
//!  HTTPS pull -----------+             |  (number on flash first)         v
//!  folder (USB) ---------+             +<----- report: shown, reported, kept
//! ```
//!
//! One bundle at a time. Key ring and number are in a file of their own, outside of the config's revisions.

mod book;
mod desk;
mod folder;
mod mqtt;
mod provision;
mod pull;
mod report;

pub use book::{BookError, Last, Outcome};
pub(crate) use desk::built_in;
pub use desk::{Desk, Pushed};
pub use folder::watch_folder;
pub use mqtt::run_mqtt;
pub use provision::{Claim, Provision, ProvisionError, read_provision};
pub use pull::run_pull;
pub use report::{FleetView, LinkView, Refused};

use crate::clock::timestamp;
use crate::steward::{ChangeError, Proof, StewardHandle};
use crate::store::{DirFs, StoreError, StoreFs};
use book::Book;
use fieldgate_fleet::{Digest, KeyRing, Refusal};
use fieldgate_hub::Clock;
use fieldgate_model::Timestamp;
use fieldgate_model::config::Problem;
use fieldgate_model::status::Notice;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

/// Bundles that may wait; more are told that the gateway is busy.
const INBOX: usize = 8;

/// How a bundle came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "BundleWay")]
pub enum Way {
    /// It was sent to the gateway's API.
    Http,
    /// By the MQTT broker.
    Mqtt,
    /// The gateway asked for it.
    Pull,
    /// From the watched folder.
    Folder,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Http => "HTTP",
            Way::Mqtt => "MQTT",
            Way::Pull => "pull",
            Way::Folder => "folder",
        }
    }
}

/// Why a bundle was not carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TakeError {
    /// It is not for this gateway, or not to be believed; nothing was touched.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is authentic, its number is used up, and it cannot be applied.
    #[error("{}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Config(Vec<Problem>),
    /// The steward says no; its number is used up.
    #[error(transparent)]
    Change(ChangeError),
    /// Another change waits for its confirmation; the bundle may come again.
    #[error("another change awaits its confirmation; send the bundle again after it")]
    Pending,
    /// Too many bundles at once.
    #[error("the gateway is busy with other bundles; try again in a moment")]
    Busy,
    /// The number could not be stored, so nothing was changed.
    #[error("the bundle's number cannot be stored, so nothing was changed: {0}")]
    Store(String),
    /// The program ends.
    #[error("the gateway is stopping")]
    Stopping,
}

impl TakeError {
    /// One word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            TakeError::Refused(refusal) => refusal.code(),
            TakeError::Config(_) | TakeError::Change(_) => "config",
            TakeError::Pending => "pending",
            TakeError::Busy | TakeError::Stopping => "busy",
            TakeError::Store(_) => "store",
        }
    }
}

struct Asked {
    text: String,
    way: Way,
    by: String,
    reply: oneshot::Sender<Result<Pushed, TakeError>>,
}

/// Reaches the fleet's desk; cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Asked>,
}

struct Shared {
    files: Mutex<Box<dyn StoreFs>>,
    book: Mutex<Book>,
    clock: Clock,
    hostname: String,
    steward: StewardHandle,
    shown: watch::Sender<FleetView>,
    /// Somebody must come over the way that a change touched, by that way.
    proof: watch::Sender<Option<(Way, Instant)>>,
    /// The key ring has changed: what was refused for want of a key may be asked for again.
    keys_changed: Notify,
}

impl Shared {
    fn now(&self) -> Timestamp {
        timestamp(&self.clock)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the book: on flash first, then in force, then shown.
    fn change<T>(&self, edit: impl FnOnce(&mut Book) -> Result<T, BookError>) -> Result<T, BookError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut book = self.book().clone();
        let outcome = edit(&mut book)?;
        book.write(files.as_mut())?;
        *self.book() = book;
        drop(files);
        self.show();
        Ok(outcome)
    }

    fn show(&self) {
        let (groups, book) = (self.groups(), self.book().clone());
        self.shown.send_modify(|view| view.follow(&book, groups));
    }

    fn groups(&self) -> Vec<String> {
        self.steward.view().confirmed.config.fleet.groups.clone()
    }

    fn refused(&self, digest: &Digest, error: &TakeError, way: Way) {
        let refused = Refused {
            code: error.code().to_owned(),
            reason: error.to_string(),
            digest: digest.to_string(),
            way,
            at: self.now(),
        };
        self.shown.send_modify(|view| view.refused = Some(refused));
    }
}

/// The fleet's file, opened before there is a steward.
pub struct Opened {
    files: Box<dyn StoreFs>,
    book: Book,
}

impl Opened {
    /// Opens the folder `fleet` of the state folder. Blocks on the disk.
    pub fn open(state: &Path) -> Result<(Self, Vec<Notice>), StoreError> {
        let files: Box<dyn StoreFs> = Box::new(DirFs::open(&state.join("fleet"))?);
        Self::open_in(files, &book::hardware_id()).map_err(|source| StoreError::Io {
            action: "open",
            file: "fleet".to_owned(),
            source,
        })
    }

    fn open_in(
        mut files: Box<dyn StoreFs>,
        hardware: &Option<String>,
    ) -> std::io::Result<(Self, Vec<Notice>)> {
        let (book, notices) = Book::open(files.as_mut(), hardware)?;
        Ok((Opened { files, book }, notices))
    }

    /// The gateway's id.
    pub fn device(&self) -> &str {
        &self.book.device
    }

    /// Believes these keys, if it believes none yet. Blocks on the disk.
    pub fn provision(&mut self, keys: KeyRing) -> Result<(), BookError> {
        if self.book.keys.is_empty() {
            let mut book = self.book.clone();
            book.set_keys(keys, None)?;
            book.write(self.files.as_mut())?;
            self.book = book;
        }
        Ok(())
    }

    /// Puts it to work: the handle is how others reach it, the desk what is to be run.
    pub fn start(self, steward: StewardHandle, clock: Clock, hostname: String) -> (Fleet, Desk) {
        let (inbox, asked) = mpsc::channel(INBOX);
        let mut view = FleetView::default();
        view.follow(&self.book, steward.view().confirmed.config.fleet.groups.clone());
        let shared = Arc::new(Shared {
            files: Mutex::new(self.files),
            book: Mutex::new(self.book),
            clock,
            hostname,
            steward,
            shown: watch::Sender::new(view),
            proof: watch::Sender::new(None),
            keys_changed: Notify::new(),
        });
        let fleet = Fleet { shared: shared.clone(), inbox };
        (fleet, Desk::new(shared, asked))
    }
}

impl Fleet {
    /// Hands a bundle in; answered as soon as the steward has begun with it, or as it is refused.
    pub async fn take(&self, text: String, way: Way, by: &str) -> Result<Pushed, TakeError> {
        if way == Way::Http && self.shared.steward.view().status.pending.is_some() {
            return Err(TakeError::Pending);
        }
        let (reply, answer) = oneshot::channel();
        let asked = Asked { text, way, by: by.to_owned(), reply };
        match self.inbox.try_send(asked) {
            Ok(()) => answer.await.unwrap_or(Err(TakeError::Stopping)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(TakeError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(TakeError::Stopping),
        }
    }

    /// A bundle that is too long to be looked at came.
    pub fn refuse_long(&self, len: usize, way: Way) {
        let error = TakeError::Refused(Refusal::TooLarge { len, max: fieldgate_fleet::TEXT_MAX });
        self.shared.refused(&Digest::of(""), &error, way);
    }

    /// What is shown of it.
    pub fn view(&self) -> FleetView {
        self.shared.shown.borrow().clone()
    }

    /// Follows what is shown.
    pub fn watch(&self) -> watch::Receiver<FleetView> {
        self.shared.shown.subscribe()
    }

    /// The key ring and its revision.
    pub fn keys(&self) -> (u64, KeyRing) {
        let book = self.shared.book();
        (book.keys_revision, book.keys.clone())
    }

    /// Replaces the key ring; it counts from the next bundle on. Blocks on the disk.
    pub fn set_keys(&self, keys: KeyRing, over: Option<u64>) -> Result<u64, BookError> {
        let revision = self.shared.change(|book| book.set_keys(keys, over))?;
        self.shared.keys_changed.notify_waiters();
        Ok(revision)
    }

    /// Somebody has come over this way on a connection that was opened then: confirms what came this way and waits.
    async fn prove(&self, way: Way, opened: Instant) {
        let waits = *self.shared.proof.borrow();
        if waits.is_some_and(|(wanted, since)| wanted == way && opened > since)
            && let Ok(answer) = self.shared.steward.confirm(Proof::Opened(opened))
        {
            answer.wait().await.ok();
        }
    }

    fn link(&self, way: Way, link: Option<LinkView>) {
        self.shared.shown.send_if_modified(|view| {
            let shown = match way {
                Way::Mqtt => &mut view.mqtt,
                _ => &mut view.pull,
            };
            let differs = *shown != link;
            *shown = link;
            differs
        });
    }
}
