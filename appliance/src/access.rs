//! Who may use the gateway: the claim, users, sessions, tokens, and the log of what they did.
//!
//! ```text
//!              claim code typed                       reset file on the boot partition
//!  unclaimed -------------------> claimed (an admin) ----------------------------------> unclaimed, a new code
//! ```
//!
//! Kept beside the config and outside its revisions: nothing here is ever rolled back. The rules are pure modules below;
//! this one holds what they act on, and asks for time and chance. No address is an identity, loopback neither: programs
//! on the machine itself show the secret of a file that only their user can read ([`LOCAL_FILE`]).

mod audit;
mod book;
mod gate;
mod lockout;
mod password;
mod reset;
mod role;
mod secret;
mod sessions;
#[cfg(test)]
pub(crate) mod tests;

pub use audit::{Entry, Note, Page};
pub use book::BookError;
pub use gate::{Asked, Credential, Refusal, csrf};
pub use lockout::Wait;
pub use password::PasswordError;
pub use role::{Area, Identity, Need, Principal, Role, Streams};

use crate::clock::timestamp;
use crate::store::{DirFs, StoreError, StoreFs, write_whole};
use audit::Audit;
use book::{Book, Token};
use fieldgate_hub::Clock;
use fieldgate_model::Timestamp;
use fieldgate_model::status::Notice;
use lockout::Lockout;
use password::{Cost, Hasher};
use schemars::JsonSchema;
use secret::Digest;
use serde::Serialize;
use sessions::Sessions;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;
use tracing::{error, info, warn};

/// Users, tokens and the claim code, in the folder `access` of the state folder.
const BOOK: &str = "access.json";
/// What a book is called that cannot be read.
const BROKEN: &str = "access.broken.json";
/// The secret by which programs on the machine itself are known, made anew at each start; in the folder `access`.
pub const LOCAL_FILE: &str = "local.token";
/// What the secret in [`LOCAL_FILE`] begins with.
const LOCAL_PREFIX: &str = "fgl_";
/// What a token begins with.
const TOKEN_PREFIX: &str = "fgt_";

/// Why access cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file, or the system's random numbers.
    #[error("the access files in {folder:?}: {source}")]
    Io {
        /// Where.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a person or token was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The rules say no.
    #[error(transparent)]
    Refused(#[from] BookError),
    /// Nothing was changed.
    #[error("this cannot be stored, so nothing was changed: {0}")]
    Io(#[from] io::Error),
}

/// Why nobody was let in.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Wrong user, password or code. Which of them is not told.
    #[error("{0}")]
    Wrong(&'static str),
    /// Too many wrong ones before.
    #[error(transparent)]
    Wait(#[from] Wait),
    /// There is nothing to claim.
    #[error("this gateway is claimed already; who has lost access resets it by a file on the boot partition")]
    Claimed,
    /// There is nobody to be yet.
    #[error("this gateway is not claimed yet: claim it with the code that `fieldgate claim-code` shows")]
    Unclaimed,
    /// The claimer's name or password.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// A user, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UserView {
    /// The name.
    pub name: String,
    /// The role.
    pub role: Role,
    /// For viewers: what they see.
    pub mountpoints: Streams,
    /// Since when.
    pub created: Timestamp,
}

/// A token, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenView {
    /// Its id, part of its text.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it may at most.
    pub role: Role,
    /// For viewers: what it sees.
    pub mountpoints: Streams,
    /// Parts of the API; none named means all.
    pub areas: Vec<Area>,
    /// Since when.
    pub created: Timestamp,
    /// Whose it is.
    pub created_by: String,
    /// Until when; absent means until it is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// A token that is wanted.
#[derive(Clone, Debug)]
pub struct TokenWish {
    /// What it is for, as a name.
    pub name: String,
    /// What it may at most.
    pub role: Role,
    /// For viewers: what it sees.
    pub streams: Streams,
    /// Parts of the API; none named means all.
    pub areas: Vec<Area>,
    /// Until when.
    pub expires: Option<Timestamp>,
}

/// A session that was just opened.
pub struct Opened {
    /// The cookie's value, told once.
    pub secret: String,
    /// Whose it is.
    pub principal: Principal,
}

/// All of it. Asked from any thread; what hashes a password or changes the file takes its time, all else none.
pub struct Access {
    folder: PathBuf,
    /// Also the turn of whoever changes the book.
    files: Mutex<Box<dyn StoreFs>>,
    state: Mutex<State>,
    audit: Mutex<Audit>,
    hasher: Hasher,
    local: Digest,
    clock: Clock,
}

struct State {
    book: Book,
    sessions: Sessions,
    lockout: Lockout,
}

impl Access {
    /// Opens the folders `access` and `audit` of the state folder. A gateway without a book is unclaimed; so is one with a
    /// reset file at `reset`, once. Blocks on the disk.
    pub fn open(state: &Path, reset: &Path, clock: Clock) -> Result<(Self, Vec<Notice>), AccessError> {
        let folder = state.join("access");
        let files: Box<dyn StoreFs> = Box::new(DirFs::open(&folder)?);
        let log: Box<dyn StoreFs> = Box::new(DirFs::open(&state.join("audit"))?);
        let failed = |source| AccessError::Io { folder: folder.clone(), source };
        let (mut access, mut notices, local) =
            Self::set_up(folder.clone(), files, log, Cost::NORMAL, clock).map_err(failed)?;
        let written = write_whole(access.lock_files().as_mut(), LOCAL_FILE, local.as_bytes());
        if let Err(error) = written {
            // Cameras are to be delivered on a disk that is full, too.
            notices.push(access.keep_local(&error));
        }
        notices.extend(access.reset_if_wanted(reset).map_err(failed)?);
        if !access.is_claimed() {
            warn!("this gateway is not claimed: `fieldgate claim-code` shows the code that claims it");
        }
        Ok((access, notices))
    }

    fn set_up(
        folder: PathBuf,
        mut files: Box<dyn StoreFs>,
        log: Box<dyn StoreFs>,
        cost: Cost,
        clock: Clock,
    ) -> io::Result<(Self, Vec<Notice>, String)> {
        let mut notices = Vec::new();
        let (audit, unreadable) = Audit::open(log)?;
        if let Some(name) = unreadable {
            let text = format!("a part of the audit log, {name}, cannot be read and is missing from it");
            notices.push(Notice { code: "audit_unreadable".to_owned(), text });
        }
        let book = match files.read(BOOK)? {
            Some(bytes) => match Book::read(&bytes) {
                Ok(book) => book,
                Err(cause) => {
                    // Never an older copy: it would bring back who was removed.
                    error!(cause, "users and tokens cannot be read: the gateway must be claimed again");
                    write_whole(files.as_mut(), BROKEN, &bytes)?;
                    let text = format!("users and tokens were lost ({cause}); claim the gateway again");
                    notices.push(Notice { code: "access_unreadable".to_owned(), text });
                    begin_anew(files.as_mut(), None)?
                }
            },
            None => begin_anew(files.as_mut(), None)?,
        };
        let local = format!("{LOCAL_PREFIX}{}", secret::fresh()?);
        let state = State { book, sessions: Sessions::default(), lockout: Lockout::default() };
        let access = Access {
            folder,
            files: Mutex::new(files),
            state: Mutex::new(state),
            audit: Mutex::new(audit),
            hasher: Hasher::new(cost)?,
            local: Digest::of(&local),
            clock,
        };
        Ok((access, notices, local))
    }

    /// Programs on this machine go on with this local token, of an earlier start.
    pub fn go_on_with_local(&mut self, token: &str) {
        if token.strip_prefix(LOCAL_PREFIX).is_some_and(|rest| !rest.is_empty()) {
            self.local = Digest::of(token);
        }
    }

    /// The last start's local token goes on, as a new one cannot be written.
    fn keep_local(&mut self, error: &io::Error) -> Notice {
        let last = self.lock_files().read(LOCAL_FILE).ok().flatten().unwrap_or_default();
        let last = str::from_utf8(&last).unwrap_or_default();
        let outcome = if last.strip_prefix(LOCAL_PREFIX).is_some_and(|rest| !rest.is_empty()) {
            self.local = Digest::of(last);
            "that of the last start goes on"
        } else {
            "programs on this machine have none until it can be written at a start"
        };
        let text =
            format!("the token for programs on this machine could not be written ({error}): {outcome}");
        warn!("{text}");
        Notice { code: "local_token_not_written".to_owned(), text }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn reset_if_wanted(&self, path: &Path) -> io::Result<Option<Notice>> {
        let found = match reset::look(path) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => {
                // Perhaps somebody wants in; but what cannot be read is not known to be heeded once.
                let text =
                    format!("the reset file {} cannot be read and was not heeded: {error}", path.display());
                return Ok(Some(Notice { code: "reset_unreadable".to_owned(), text }));
            }
        };
        if self.lock_state().book.reset.as_ref() == Some(&found.mark) {
            return Ok(None);
        }
        // In the log first: a cut in between writes it twice, never not at all.
        self.note("gateway", "", &format!("reset by {}", path.display()), "done");
        {
            let mut files = self.lock_files();
            let book = begin_anew(files.as_mut(), Some(found.mark))?;
            let mut state = self.lock_state();
            state.book = book;
            state.sessions.end_all();
        }
        warn!(file = %path.display(), "users and tokens were removed by the reset file");
        let mut text = "users and tokens were removed by the file on the boot partition".to_owned();
        if let Err(error) = std::fs::remove_file(path) {
            text.push_str(&format!("; it is not heeded again, but could not be removed: {error}"));
        }
        Ok(Some(Notice { code: "access_reset".to_owned(), text }))
    }

    /// Whether somebody has claimed it.
    pub fn is_claimed(&self) -> bool {
        self.lock_state().book.is_claimed()
    }

    /// What whoever reads the status shall know of it now.
    pub fn notice(&self) -> Option<Notice> {
        if self.is_claimed() {
            return None;
        }
        let text = "nobody has claimed this gateway yet; `fieldgate claim-code` on it shows the code";
        Some(Notice { code: "unclaimed".to_owned(), text: text.to_owned() })
    }

    /// Makes whoever has the code the first admin, and opens his session.
    pub fn claim(
        &self,
        code: &str,
        name: &str,
        password: &str,
        from: IpAddr,
        now: Instant,
    ) -> Result<Opened, EntryError> {
        {
            let mut state = self.lock_state();
            if state.book.is_claimed() {
                return Err(EntryError::Claimed);
            }
            state.lockout.begin(from, now)?;
            if !state.book.is_code(code) {
                drop(state);
                self.note_refusal("stranger", from, "claim", "refused: wrong code", now);
                return Err(EntryError::Wrong(
                    "this is not the claim code; `fieldgate claim-code` on the gateway shows it",
                ));
            }
            state.lockout.was_right(from);
            state.book.check_new_user(name, &Streams::all()).map_err(ChangeError::from)?;
        }
        password::check(name, password).map_err(|error| ChangeError::from(BookError::from(error)))?;
        let hashed = self.hasher.hash(password).map_err(ChangeError::from)?;
        let at = timestamp(&self.clock);
        // The code is looked at again: of two who have it, one claims.
        let is_code = std::cell::Cell::new(true);
        let claimed = self.change(None, |book| {
            is_code.set(book.is_code(code));
            if is_code.get() { book.claim(name, hashed, at) } else { Ok(()) }
        });
        if !is_code.get() {
            return Err(EntryError::Claimed);
        }
        claimed?;
        info!(name, "the gateway was claimed");
        self.note(name, &from.to_string(), "claim", "done");
        Ok(self.open_session(name, now)?)
    }

    /// Leaves an unclaimed gateway to its fleet: nobody claims it by the code. The reset file makes a new code.
    pub fn close_claim(&self) -> io::Result<()> {
        if self.is_claimed() {
            return Ok(());
        }
        let closed = self.change(None, |book| {
            book.leave_to_fleet();
            Ok(())
        });
        self.note("gateway", "", "left to its fleet by the provisioning file", "done");
        match closed {
            Err(ChangeError::Io(error)) => Err(error),
            Ok(_) | Err(ChangeError::Refused(_)) => Ok(()),
        }
    }

    /// Opens a session for who knows the password.
    pub fn log_in(
        &self,
        name: &str,
        password: &str,
        from: IpAddr,
        now: Instant,
    ) -> Result<Opened, EntryError> {
        let kept = {
            let mut state = self.lock_state();
            if !state.book.is_claimed() {
                return Err(EntryError::Unclaimed);
            }
            state.lockout.begin(from, now)?;
            state.book.users.get(name).map(|user| user.password.clone())
        };
        if !self.hasher.fits(kept.as_ref(), password) {
            self.note_refusal(name, from, "log_in", "refused: wrong user or password", now);
            return Err(EntryError::Wrong("wrong user or password"));
        }
        self.lock_state().lockout.was_right(from);
        let opened = self.open_session(name, now)?;
        self.note(name, &from.to_string(), "log_in", "done");
        Ok(opened)
    }

    fn open_session(&self, name: &str, now: Instant) -> Result<Opened, ChangeError> {
        let secret = secret::fresh()?;
        let mut state = self.lock_state();
        let principal = state.principal(name).ok_or_else(|| BookError::Unknown(name.to_owned()))?;
        state.sessions.open(Digest::of(&secret), name, now);
        Ok(Opened { secret, principal })
    }

    /// Ends the session of this cookie.
    pub fn log_out(&self, secret: &str) {
        self.lock_state().sessions.end(Digest::of(secret));
    }

    /// The users, and the revision of people and tokens.
    pub fn users(&self) -> (u64, Vec<UserView>) {
        let state = self.lock_state();
        let view = |(name, user): (&String, &book::User)| UserView {
            name: name.clone(),
            role: user.role,
            mountpoints: user.streams.clone(),
            created: user.created,
        };
        (state.book.revision, state.book.users.iter().map(view).collect())
    }

    /// Adds a user.
    pub fn add_user(
        &self,
        name: &str,
        role: Role,
        streams: Streams,
        password: &str,
    ) -> Result<u64, ChangeError> {
        // Before the work of hashing.
        self.lock_state().book.check_new_user(name, &streams)?;
        password::check(name, password).map_err(BookError::from)?;
        let (hashed, at) = (self.hasher.hash(password)?, timestamp(&self.clock));
        self.change(None, |book| book.add_user(name, role, streams, hashed, at))
    }

    /// Gives a user another role; it counts from the next request on.
    pub fn set_user(
        &self,
        name: &str,
        role: Role,
        streams: Streams,
        over: Option<u64>,
    ) -> Result<u64, ChangeError> {
        self.change(over, |book| book.set_user(name, role, streams))
    }

    /// Removes a user and ends his sessions.
    pub fn remove_user(&self, name: &str, over: Option<u64>) -> Result<u64, ChangeError> {
        let revision = self.change(over, |book| book.remove_user(name))?;
        self.lock_state().sessions.end_others(name, None);
        Ok(revision)
    }

    /// Whether this is the user's password; counted as [`Access::log_in`] counts.
    pub fn check_password(
        &self,
        name: &str,
        password: &str,
        from: IpAddr,
        now: Instant,
    ) -> Result<(), EntryError> {
        let kept = {
            let mut state = self.lock_state();
            state.lockout.begin(from, now)?;
            state.book.users.get(name).map(|user| user.password.clone())
        };
        if !self.hasher.fits(kept.as_ref(), password) {
            return Err(EntryError::Wrong("the present password is wrong"));
        }
        self.lock_state().lockout.was_right(from);
        Ok(())
    }

    /// Sets a user's password and ends his sessions, but for the one of this cookie.
    pub fn set_password(&self, name: &str, password: &str, but: Option<&str>) -> Result<u64, ChangeError> {
        if !self.lock_state().book.users.contains_key(name) {
            return Err(BookError::Unknown(name.to_owned()).into());
        }
        password::check(name, password).map_err(BookError::from)?;
        let hashed = self.hasher.hash(password)?;
        let revision = self.change(None, |book| book.set_password(name, hashed))?;
        self.lock_state().sessions.end_others(name, but.map(Digest::of));
        Ok(revision)
    }

    /// The tokens, without their secrets.
    pub fn tokens(&self) -> (u64, Vec<TokenView>) {
        let state = self.lock_state();
        let view = |(id, token): (&String, &Token)| TokenView {
            id: id.clone(),
            name: token.name.clone(),
            role: token.role,
            mountpoints: token.streams.clone(),
            areas: token.areas.clone(),
            created: token.created,
            created_by: token.created_by.clone(),
            expires: token.expires,
        };
        (state.book.revision, state.book.tokens.iter().map(view).collect())
    }

    /// Makes a token; its text is told this once. The id stands in it.
    pub fn add_token(&self, wish: TokenWish, by: &str) -> Result<(String, String), ChangeError> {
        let (id, now) = (secret::hex(&secret::random::<4>()?), timestamp(&self.clock));
        let text = format!("{TOKEN_PREFIX}{id}_{}", secret::fresh()?);
        let token = Token {
            name: wish.name,
            role: wish.role,
            streams: wish.streams,
            areas: wish.areas,
            digest: Digest::of(&text),
            created: now,
            created_by: by.to_owned(),
            expires: wish.expires,
        };
        self.change(None, |book| book.add_token(&id, token, now))?;
        Ok((id, text))
    }

    /// Revokes a token; it counts from the next request on.
    pub fn remove_token(&self, id: &str) -> Result<u64, ChangeError> {
        self.change(None, |book| book.remove_token(id))
    }

    /// Up to `limit` entries of the audit log older than `before`, newest first.
    pub fn audit(&self, before: Option<u64>, limit: usize) -> Page {
        lock(&self.audit).page(before, limit)
    }

    /// Writes into the audit log.
    pub fn note(&self, who: &str, from: &str, what: &str, result: &str) {
        let written = lock(&self.audit).add(noted(who, from, what, result), timestamp(&self.clock));
        complain(written);
    }

    /// Writes into the audit log that somebody sees a mountpoint, once an hour.
    pub fn note_watch(&self, who: &str, from: &str, mountpoint: &str, now: Instant) {
        let note = noted(who, from, &format!("watch {mountpoint}"), "done");
        let written = lock(&self.audit).add_watch(note, timestamp(&self.clock), now);
        complain(written);
    }

    /// Writes a refusal into the audit log, within a budget an hour.
    pub fn note_refusal(&self, who: &str, from: IpAddr, what: &str, result: &str, now: Instant) {
        let note = noted(who, &from.to_string(), what, result);
        let written = lock(&self.audit).add_refusal(note, timestamp(&self.clock), now);
        complain(written);
    }

    /// Changes the book: on flash first, then in force.
    fn change(
        &self,
        over: Option<u64>,
        edit: impl FnOnce(&mut Book) -> Result<(), BookError>,
    ) -> Result<u64, ChangeError> {
        let mut files = self.lock_files();
        let mut book = self.lock_state().book.clone();
        if let Some(over) = over
            && over != book.revision
        {
            return Err(BookError::Stale { current: book.revision }.into());
        }
        edit(&mut book)?;
        book.revision += 1;
        write_whole(files.as_mut(), BOOK, &serde_json::to_vec(&book).map_err(io::Error::from)?)?;
        let revision = book.revision;
        self.lock_state().book = book;
        Ok(revision)
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn lock_files(&self) -> MutexGuard<'_, Box<dyn StoreFs>> {
        lock(&self.files)
    }
}

/// The code that claims the gateway with this state folder, read without it; none once it is claimed.
pub fn read_claim_code(state: &Path) -> io::Result<Option<String>> {
    let bytes = std::fs::read(state.join("access").join(BOOK))?;
    let book = Book::read(&bytes).map_err(io::Error::other)?;
    Ok(book.claim_code().map(ToOwned::to_owned))
}

/// What programs on this machine show to the gateway with this state folder.
pub fn read_local_token(state: &Path) -> io::Result<String> {
    std::fs::read_to_string(state.join("access").join(LOCAL_FILE))
}

fn begin_anew(files: &mut dyn StoreFs, reset: Option<String>) -> io::Result<Book> {
    let mut book = Book::unclaimed(secret::claim_code()?);
    book.reset = reset;
    write_whole(files, BOOK, &serde_json::to_vec(&book)?)?;
    Ok(book)
}

fn noted(who: &str, from: &str, what: &str, result: &str) -> Note {
    let text = |text: &str| text.to_owned();
    Note { who: text(who), from: text(from), what: text(what), result: text(result) }
}

fn complain(written: io::Result<()>) {
    if let Err(error) = written {
        error!(%error, "the audit log cannot be written");
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
