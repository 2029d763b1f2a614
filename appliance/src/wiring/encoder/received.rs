//! A source by WebSocket: the bytes of a container, as its publisher sends them, taken apart by a worker.
//!
//! ```text
//!  streaming server --WebSocket--> here --pieces--> worker --units--> mountpoint encoder/N
//! ```
//! The worker is started with the first bytes, and gets the next piece when it has taken the last: a server that sends what
//! it has kept all at once waits.

mod server;

use super::Shop;
use super::task::Task;
use crate::steward::chain;
use crate::wiring::Board;
use bytes::Bytes;
use fieldgate_hub::link::Limits;
use fieldgate_hub::{LocalShard, Mountpoint, Publisher, PublisherInfo};
use fieldgate_media::{Draft, Tracks};
use fieldgate_model::job::{AudioTreatment, Job, Received, Sandbox, VideoTreatment, Work};
use fieldgate_model::masks::Masks;
use fieldgate_worker::{Deadlines, Deliver, Program, Report, WorkerSource, WorkerSpec};
use server::{SILENT, Server};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Longest message, in bytes: some seconds of a stream.
const MESSAGE_BYTES: usize = 8 << 20;
/// Longest piece for the worker.
const PIECE_BYTES: usize = 64 << 10;
/// A worker that does not take a piece in this time is given up; so is one that does not end when its source has.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// What was kept comes faster than life.
const LIMITS: Limits =
    Limits { units_per_second: 20_000, unit_bytes_per_second: 64 << 20, control_per_second: 5_000 };

impl Task {
    /// Receives the source from its server, until that ends.
    pub(super) async fn receive(&self, source: &Arc<Mountpoint>) -> Result<(), String> {
        let receiving = async {
            let (uri, tls) = (self.assignment.source.reveal(), self.shop.tls.clone());
            let (mut server, first) = Server::open(uri, tls, MESSAGE_BYTES).await?;
            take_apart(&self.shop, source, &self.stop, &mut server, first).await
        };
        let ended = tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            ended = receiving => ended,
        };
        self.shop.wiring.board.remove_worker(source.name());
        ended
    }
}

/// Hands all bytes to a worker, until the server or the worker ends.
async fn take_apart(
    shop: &Shop,
    source: &Arc<Mountpoint>,
    stop: &CancellationToken,
    server: &mut Server,
    first: Bytes,
) -> Result<(), String> {
    let wiring = &shop.wiring;
    let unmasked = Masks::none().unmasked().ok_or("its pictures may not pass")?;
    let received = Received { video: VideoTreatment::Pass(unmasked), audio: AudioTreatment::Pass };
    let spec = WorkerSpec {
        program: Program::this_binary(),
        job: Job {
            name: source.name().to_owned(),
            sandbox: Sandbox::default(),
            work: Work::Received(received),
        },
        limits: LIMITS,
        // Whether it is silent is judged by its server.
        deadlines: Deadlines { first_unit: None, between_units: SILENT, ..Deadlines::default() },
    };
    let (asks, inbox) = mpsc::channel(1);
    let (taken, mut answers) = mpsc::channel(1);
    let (_commands, commands) = mpsc::channel(1);
    let stop = stop.child_token();
    let _stops = stop.clone().drop_guard();
    let worker = WorkerSource::new(spec, wiring.spawner.clone(), commands, stop.clone()).with_asks(inbox);
    let info = PublisherInfo {
        kind: "websocket",
        from: server.name().to_owned(),
        since_unix_micros: wiring.context.clock.unix_micros(),
        rtmp: None,
    };
    let (epoch, to, board) = (source.epoch(), source.clone(), wiring.board.clone());
    let shard = wiring.shard_of(source).map_err(|error| error.to_string())?;
    let running = shard.run(move |local| async move {
        worker.run(&mut Delivery { to, epoch, info, local, publisher: None, taken, board, stop }).await
    });
    let handing = async {
        let mut message = Some(first);
        while let Some(mut rest) = message {
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(PIECE_BYTES));
                asks.send(piece).await.ok();
                let taken = timeout(TAKEN_WITHIN, answers.recv()).await;
                taken.map_err(|_| format!("its worker took nothing for {TAKEN_WITHIN:?}"))?;
            }
            message = server.next().await?;
        }
        // An empty piece is the end: the worker ends when all of it has come out.
        asks.send(Bytes::new()).await.ok();
        tokio::time::sleep(TAKEN_WITHIN).await;
        Err(format!("its worker did not end within {TAKEN_WITHIN:?}"))
    };
    tokio::select! {
        ended = running => match ended {
            Ok(ended) => ended.map_err(|error| chain(&error)),
            Err(error) => Err(error.to_string()),
        },
        why = handing => why,
    }
}

/// Hands a worker's units to the mountpoint.
struct Delivery {
    to: Arc<Mountpoint>,
    epoch: u64,
    info: PublisherInfo,
    local: Rc<LocalShard>,
    publisher: Option<Publisher>,
    /// Told of each piece that the worker has taken.
    taken: mpsc::Sender<()>,
    board: Arc<Board>,
    stop: CancellationToken,
}

impl Deliver for Delivery {
    fn tracks(&mut self, tracks: Tracks, _same: bool) {
        if self.publisher.is_none() {
            match self.to.claim_in(self.epoch, &self.local, self.info.clone()) {
                Ok(publisher) => self.publisher = Some(publisher),
                Err(error) => {
                    warn!(mountpoint = self.to.name(), %error, "a source by WebSocket cannot feed its mountpoint");
                    return self.stop.cancel();
                }
            }
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.announce(tracks);
        }
    }

    fn unit(&mut self, unit: Draft) {
        if let Some(publisher) = &mut self.publisher {
            publisher.publish(unit);
        }
    }

    fn flush(&mut self) {
        if let Some(publisher) = &mut self.publisher {
            publisher.flush();
        }
    }

    fn report(&mut self, report: &Report) {
        self.board.set_worker(self.to.name(), report.clone(), Instant::now());
    }

    fn answer(&mut self, _answer: Bytes) {
        self.taken.try_send(()).ok();
    }
}
