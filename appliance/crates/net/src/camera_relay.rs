//! TLS for a camera's worker, which has none of its own: a relay on loopback that a worker connects to, and that
//! speaks TLS to the camera.
//!
//! ```text
//!  open: camera dialled, certificate checked, port bound --run--> one connection at a time, bytes both ways
//! ```
//! Whoever connects reaches a camera that still asks for its password; nothing is added to what passes.

use crate::dial::{DialError, DialOptions, Stream, Target, dial};
use fieldgate_hub::Retry;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A worker may look at the camera first and connect anew for its media.
const CONNECTIONS: u32 = 2;
/// From one connection's end, or the start, to the next connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
const TO_CAMERA_BYTES: usize = 4 << 10;
const FROM_CAMERA_BYTES: usize = 64 << 10;

/// Why a camera cannot be reached by TLS.
#[derive(Debug, thiserror::Error)]
pub enum CameraRelayError {
    /// Not reached, or its certificate is not to be trusted.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Nothing to listen on.
    #[error("no port for the camera's relay")]
    Listen(#[source] io::Error),
}

impl CameraRelayError {
    /// What to do about it.
    pub fn retry(&self) -> Retry {
        match self {
            CameraRelayError::Dial(error) => error.retry(),
            CameraRelayError::Listen(_) => Retry::Backoff,
        }
    }
}

/// A relay to one camera.
#[derive(Debug)]
pub struct CameraRelay {
    listener: TcpListener,
    address: SocketAddr,
    target: Target,
    options: DialOptions,
    camera: Stream,
}

impl CameraRelay {
    /// Connects to the camera and takes a port of loopback that the kernel chooses.
    pub async fn open(target: Target, options: DialOptions) -> Result<CameraRelay, CameraRelayError> {
        let camera = dial(&target, &options).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(CameraRelayError::Listen)?;
        let address = listener.local_addr().map_err(CameraRelayError::Listen)?;
        Ok(CameraRelay { listener, address, target, options, camera })
    }

    /// Where the worker connects to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Relays until no connection comes any more. Ends early, with the camera's connection, when dropped.
    pub async fn run(self) -> Result<(), CameraRelayError> {
        let CameraRelay { listener, target, options, camera, .. } = self;
        let mut camera = Some(camera);
        for _ in 0..CONNECTIONS {
            let Ok(accepted) = timeout(CONNECT_WITHIN, listener.accept()).await else { return Ok(()) };
            let (worker, _) = accepted.map_err(CameraRelayError::Listen)?;
            let camera = match camera.take() {
                Some(camera) => camera,
                None => dial(&target, &options).await?,
            };
            relay(worker, camera).await;
        }
        Ok(())
    }
}

/// How it ends, each side sees by itself.
async fn relay(mut worker: TcpStream, mut camera: Stream) {
    let _ = worker.set_nodelay(true);
    let copied = copy_bidirectional_with_sizes(&mut worker, &mut camera, TO_CAMERA_BYTES, FROM_CAMERA_BYTES);
    let _ = copied.await;
}
