//! The managing HTTP plane: config API, status, metrics, the installers' page.
//!
//! ```text
//! client -> front (tokio, owns TCP: limits, deadlines, meaning, Host and Origin)
//!             -> private Unix socket -> tiny_http, four threads -> routes -> AdminApi
//!        <- whole answer, written by the front
//! keeper: asks through the front every few seconds; a server that is stuck or gone is built anew
//! ```
//!
//! It is managing only: peers and viewers have their own, asynchronous plane in `net`. Without TLS it listens on loopback
//! alone.

mod acceptance;
pub mod api;
mod backend;
mod certificate;
pub mod discovery;
mod events;
mod feed;
mod fleet;
mod front;
mod gate;
mod guard;
pub mod head;
mod history;
mod keeper;
mod ledger;
mod logs;
mod masks;
mod metrics;
mod openapi;
mod page;
mod people;
mod plan;
mod previews;
mod recordings;
mod relay;
mod reply;
mod restart;
mod routes;
mod seen;
mod slots;
mod snapshots;
mod support;
mod trials;
mod update;

use crate::access::Access;
use crate::local_name::LocalName;
use api::AdminApi;
use backend::Handlers;
use front::{Limits, Shared};
use guard::Guard;
use keeper::{Keeper, Rhythm};
pub use slots::Load;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Longest path that a Unix socket's address can hold, with room for the generation's number.
const MAX_FOLDER_LEN: usize = 80;

/// How long a request may go on whose listener is gone: longer than a change of the config takes, with the stops and starts
/// that it needs.
const FINISH_WITHIN: Duration = Duration::from_secs(20);

/// What private folders' names begin with.
const PRIVATE_PREFIX: &str = "admin-";

/// Where the admin plane listens.
pub struct Settings {
    /// Addresses with port; port 0 lets the kernel choose. Loopback only.
    pub listen: Vec<SocketAddr>,
    /// The same over TLS, on any address.
    pub secure: Option<Secure>,
    /// Further names under which it may be asked, such as the host's own.
    pub host_names: Vec<String>,
    /// Its name in the local networks, as it is at each request.
    pub local_name: LocalName,
    /// A folder of our own for the socket between front and server; best one that is emptied at boot.
    pub socket_folder: PathBuf,
}

/// TLS for the admin plane.
pub struct Secure {
    /// Addresses with port; port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// Does the handshakes.
    pub acceptor: TlsAcceptor,
}

/// Why the admin plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Anyone on the network could change the gateway.
    #[error(
        "admin.listen: {0} is not loopback; without TLS the admin plane listens on loopback only: \
         use admin.tls.listen"
    )]
    NotLoopback(SocketAddr),
    /// Taken, or not ours.
    #[error("admin.listen: cannot listen on {address}: {source}")]
    Listen {
        /// As it was configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It answers elsewhere, not here.
    #[error("the admin plane does not answer on {0}")]
    Deaf(SocketAddr),
    /// The private socket could not be made.
    #[error("the admin plane's private socket in {folder:?} failed: {source}")]
    Private {
        /// Where it should be.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The admin plane, bound to its addresses and ready to run.
pub struct Admin {
    listeners: Vec<(TcpListener, Option<TlsAcceptor>)>,
    /// Where it listens without TLS; the keeper asks there.
    plain: Vec<SocketAddr>,
    secure: Vec<SocketAddr>,
    keeper: Keeper,
    shared: Arc<Shared>,
    rhythm: Rhythm,
}

impl Admin {
    /// Binds all addresses and starts the server behind. To be called inside a tokio runtime.
    pub fn bind(
        settings: &Settings,
        api: Arc<dyn AdminApi>,
        access: Arc<Access>,
    ) -> Result<Self, AdminError> {
        Self::bind_with(settings, api, access, Limits::default(), Rhythm::default())
    }

    fn bind_with(
        settings: &Settings,
        api: Arc<dyn AdminApi>,
        access: Arc<Access>,
        limits: Limits,
        rhythm: Rhythm,
    ) -> Result<Self, AdminError> {
        let (mut listeners, mut plain, mut secure) = (Vec::new(), Vec::new(), Vec::new());
        let listen = |address| listen(address).map_err(|source| AdminError::Listen { address, source });
        for &address in &settings.listen {
            if !address.ip().to_canonical().is_loopback() {
                return Err(AdminError::NotLoopback(address));
            }
            let (listener, bound) = listen(address)?;
            listeners.push((listener, None));
            plain.push(bound);
        }
        if plain.is_empty() {
            // The keeper, and programs on the machine itself, need a way in.
            let (listener, bound) = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            listeners.push((listener, None));
            plain.push(bound);
        }
        if let Some(tls) = &settings.secure {
            for &address in &tls.listen {
                let (listener, bound) = listen(address)?;
                listeners.push((listener, Some(tls.acceptor.clone())));
                secure.push(bound);
            }
        }
        let private = |source| AdminError::Private { folder: settings.socket_folder.clone(), source };
        let front_token = random_name().map_err(private)?;
        let folder = private_folder(&settings.socket_folder).map_err(private)?;
        let broken = Arc::new(Notify::new());
        let epoch = Instant::now();
        let handlers = Handlers {
            api: api.clone(),
            access: access.clone(),
            front_token: front_token.clone(),
            epoch,
            broken: broken.clone(),
        };
        let (keeper, backend) = Keeper::start(folder, Arc::new(handlers)).map_err(private)?;
        let guard = Guard::new(&settings.host_names, settings.local_name.clone());
        let shared = Arc::new(Shared::new(guard, api, access, limits, front_token, epoch, backend, broken));
        Ok(Admin { listeners, plain, secure, keeper, shared, rhythm })
    }

    /// Where it listens, ports chosen by the kernel filled in: first without TLS, then with it.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        [self.plain.as_slice(), &self.secure].concat()
    }

    /// How busy it is, also while it runs.
    pub fn watch_load(&self) -> impl Fn() -> Load + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || shared.load()
    }

    /// Serves until cancelled, and returns when its addresses are free for another. What is under way then is answered
    /// by the future that it returns, within seconds: whoever changes the admin plane asks for that over it.
    /// Fails when it does not answer on one of its addresses any more: then it must be bound anew.
    pub async fn serve(
        mut self,
        cancel: CancellationToken,
    ) -> (Result<(), AdminError>, impl Future<Output = ()> + Send + 'static) {
        let mut tasks = JoinSet::new();
        let stop = cancel.child_token();
        info!(plain = ?self.plain, tls = ?self.secure, "admin plane listens");
        for (listener, tls) in self.listeners {
            tasks.spawn(front::accept(listener, tls, self.shared.clone(), stop.clone()));
        }
        let feeds = self.shared.closing().clone().drop_guard();
        let deaf = self.keeper.run(&self.plain, self.shared, self.rhythm, cancel).await;
        drop(feeds);
        stop.cancel();
        let under_way = tasks.join_all().await;
        let keeper = self.keeper;
        let finish = async move {
            let answers = async {
                for mut connections in under_way {
                    while connections.join_next().await.is_some() {}
                }
            };
            // Dropped, they end.
            tokio::time::timeout(FINISH_WITHIN, answers).await.ok();
            keeper.end().await;
        };
        (deaf.map_or(Ok(()), |address| Err(AdminError::Deaf(address))), finish)
    }
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, bound))
}

/// A new folder that only this user can enter.
fn private_folder(wanted: &Path) -> io::Result<PathBuf> {
    remove_left_over(wanted);
    let mut folder = wanted.join(format!("{PRIVATE_PREFIX}{}", random_name()?));
    if folder.as_os_str().len() > MAX_FOLDER_LEN {
        folder = std::env::temp_dir().join(format!("fieldgate-{}", random_name()?));
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    if let Some(parent) = folder.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    builder.create(&folder)?;
    Ok(folder)
}

/// Removes folders of gateways that were killed: those in which nobody listens.
fn remove_left_over(folder: &Path) {
    let is_ours = |name: &str| {
        let rest = name.strip_prefix(PRIVATE_PREFIX);
        rest.is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder || !entry.file_name().to_str().is_some_and(is_ours) {
            continue;
        }
        let mut sockets = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
        if !sockets.any(|socket| UnixStream::connect(socket.path()).is_ok())
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            warn!(%error, folder = %entry.path().display(), "a left-over socket folder cannot be removed");
        }
    }
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
pub(crate) mod tests;
