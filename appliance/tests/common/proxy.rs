//! A TCP relay that stands for an uplink, and can fail like one.

use rustix::net::sockopt::set_socket_linger;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the uplink is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All bytes go through.
    Pass,
    /// Nothing goes through and nothing is lost: a radio link in a tunnel.
    Stall,
    /// Connections are reset, new ones too: a router that rejects.
    Reset,
    /// Bytes vanish: a router that lost its state. Connections that lost some are reset when the link is back.
    Blackhole,
    /// So many bytes a second.
    Limited(u64),
}

struct Shared {
    mode: Mutex<Mode>,
    target: Mutex<SocketAddr>,
    stopping: AtomicBool,
}

/// The relay; connections end when it is dropped.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Relays to `target`.
    pub(crate) fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Pass),
            target: Mutex::new(target),
            stopping: AtomicBool::new(false),
        });
        let for_accept = shared.clone();
        std::thread::spawn(move || accept(&listener, &for_accept));
        Proxy { address, shared }
    }

    /// New connections lead elsewhere.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = target;
    }

    /// Changes how the uplink is.
    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
        let Ok(near) = socket else { continue };
        let shared = shared.clone();
        std::thread::spawn(move || relay(near, &shared));
    }
}

fn relay(near: TcpStream, shared: &Arc<Shared>) {
    // What connects while the link is down meets nobody until it is back.
    loop {
        match *shared.mode.lock().unwrap() {
            _ if shared.stopping.load(Ordering::Relaxed) => return,
            Mode::Reset => return reset(&near),
            Mode::Pass | Mode::Limited(_) => break,
            Mode::Stall | Mode::Blackhole => {}
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let Ok(far) = TcpStream::connect(*shared.target.lock().unwrap()) else { return reset(&near) };
    for socket in [&near, &far] {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    }
    let lost = Arc::new(AtomicBool::new(false));
    let (near_again, far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let (shared_again, lost_again) = (shared.clone(), lost.clone());
    let back = std::thread::spawn(move || copy(&far_again, &near_again, &shared_again, &lost_again));
    copy(&near, &far, shared, &lost);
    drop(back.join());
}

/// Copies until one side ends or the mode ends it; then both sides are closed.
fn copy(from: &TcpStream, to: &TcpStream, shared: &Shared, lost: &AtomicBool) {
    let mut bytes = vec![0; 16_384];
    loop {
        let mode = *shared.mode.lock().unwrap();
        if shared.stopping.load(Ordering::Relaxed) {
            break;
        }
        let len = match mode {
            Mode::Stall => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            Mode::Reset => break,
            Mode::Pass | Mode::Limited(_) if lost.load(Ordering::Relaxed) => break,
            Mode::Limited(rate) => (rate / 20).clamp(1, 16_384) as usize,
            Mode::Pass | Mode::Blackhole => 16_384,
        };
        let read = match (&mut &*from).read(&mut bytes[..len]) {
            Ok(0) => {
                drop(to.shutdown(std::net::Shutdown::Write));
                return;
            }
            Ok(read) => read,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        if mode == Mode::Blackhole {
            lost.store(true, Ordering::Relaxed);
            continue;
        }
        if (&mut &*to).write_all(&bytes[..read]).is_err() {
            break;
        }
        if matches!(mode, Mode::Limited(_)) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    reset(from);
    reset(to);
}

fn reset(socket: &TcpStream) {
    set_socket_linger(socket, Some(Duration::ZERO)).ok();
    // Without this the other thread's clone would keep the connection open.
    drop(socket.shutdown(std::net::Shutdown::Both));
}
