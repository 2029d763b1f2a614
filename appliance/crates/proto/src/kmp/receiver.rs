//! The receiving side of one track: what comes over its connections, one after the other, as units for a mountpoint.
//!
//! ```text
//!  Opening --cnct, the owner knows the track--> Receiver --eost, error, close--> (next connection, same memory)
//! ```
//! Frames have no id on the wire: the n-th of a connection has `initial_frame_id + n`. What was had before a reconnect
//! is counted and left out; a [`TrackMemory`] outlives the connections. An ack is given only for frames that came over
//! this very connection and that the owner has called safe. Source: the KMP contract, sections 10 and 13.

pub mod fuzz;
mod memory;
mod track;

use memory::Skip;
pub use memory::{FrameRef, TrackCounters, TrackMemory};

use super::packet::{Ack, Connect, MediaInfo, MediaKind};
use super::reader::{Direction, Frame, Limits, Packet, PacketReader, ReadError};
use fieldgate_media::{Captured, ClockSource, Draft, Ticks, Track, TrackId, TrackKind, UnitHead};

/// Frames that a reconnected sender may repeat; with more the track starts anew, as at the reference.
pub const MAX_REPEATED_FRAMES: u64 = 2_000;

/// How a receiver takes a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverSettings {
    /// What the sender may make us hold.
    pub limits: Limits,
    /// See [`MAX_REPEATED_FRAMES`].
    pub max_repeated_frames: u64,
    /// Like the reference: every media info makes video wait for a keyframe, also one that changes nothing.
    pub strict: bool,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        ReceiverSettings {
            limits: Limits { connect_data_len: 65_536, extra_data_len: 65_536, ..Limits::default() },
            max_repeated_frames: MAX_REPEATED_FRAMES,
            strict: false,
        }
    }
}

/// Why a connection must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// Bytes that are no packet.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something else came before `cnct`.
    #[error("the first packet must be 'cnct'")]
    NotConnect,
    /// `cnct` came again.
    #[error("'cnct' came again on the same connection")]
    ConnectAgain,
    /// The track is of another kind than its id is meant for.
    #[error("the media type is {got:?}, this track id is meant for {wanted:?}")]
    Kind {
        /// What `minf` says.
        got: MediaKind,
        /// What the settings say.
        wanted: TrackKind,
    },
    /// `minf` changed the media type.
    #[error("the media type changed from {from:?} to {to:?}")]
    KindChanged {
        /// Before.
        from: MediaKind,
        /// Now.
        to: MediaKind,
    },
    /// No output can carry it.
    #[error("codec {codec_id} cannot be carried")]
    Codec {
        /// As in `minf`.
        codec_id: u32,
    },
    /// The codec's header does not parse.
    #[error("the header of codec {codec_id} ({len} bytes) does not parse")]
    Header {
        /// As in `minf`.
        codec_id: u32,
        /// Its length.
        len: usize,
    },
    /// NAL units have lengths of other than four bytes.
    #[error("NAL units have length fields of {len} bytes; only 4 are taken")]
    NalLengths {
        /// Bytes of a length field.
        len: u8,
    },
    /// Ids would go beyond the last one.
    #[error("frame ids ran out")]
    FrameIds,
}

/// How a connection's frames lie to those that were had before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// There were none.
    First,
    /// They go on where the last connection ended, after this many that were had already.
    Resumed {
        /// Frames to be left out.
        repeated: u64,
    },
    /// They do not join: a new session of the sender, or frames that it gave up. Video waits for a keyframe.
    Anew,
}

/// A connection before its `cnct`.
#[derive(Debug)]
pub struct Opening {
    reader: PacketReader,
    settings: ReceiverSettings,
}

impl Opening {
    /// At the start of a connection.
    pub fn new(settings: ReceiverSettings) -> Self {
        Opening { reader: PacketReader::new(Direction::ToReceiver, settings.limits), settings }
    }

    /// Takes bytes off `input` up to the end of `cnct`; `None` once all are taken.
    ///
    /// Fails if anything else comes first. The owner then looks whether it knows channel and track.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Connect>, ReceiveError> {
        match self.reader.read(input)? {
            None => Ok(None),
            Some(Packet::Connect(connect)) => Ok(Some(connect)),
            Some(_) => Err(ReceiveError::NotConnect),
        }
    }

    /// The track is known: takes its frames from here on. `memory` is that of the track, whichever connection it had
    /// before; that one must not be read from any more.
    pub fn accept(self, connect: &Connect, kind: TrackKind, memory: &mut TrackMemory) -> (Receiver, Join) {
        let join = memory.join(connect, self.settings.max_repeated_frames);
        let receiver = Receiver {
            reader: self.reader,
            strict: self.settings.strict,
            kind,
            next_id: connect.initial_frame_id,
            acked_id: connect.initial_frame_id,
            info: None,
            info_due: false,
            resumes: matches!(join, Join::Resumed { .. }),
            held: None,
            ended: false,
        };
        (receiver, join)
    }
}

/// What came.
#[derive(Debug)]
pub enum Event {
    /// How the units after it are coded.
    Track {
        /// The track, with id 0 for video and 1 for audio.
        track: Track,
        /// The same as before the reconnect, sent only because the connection is new.
        resent: bool,
        /// Whether decoding can go on with it without a keyframe: nothing of the codec changed.
        same: bool,
    },
    /// One frame. Its times are the sender's, in ticks.
    Unit {
        /// For [`TrackMemory::safe_until`].
        frame: FrameRef,
        /// The unit, ready for a ring.
        draft: Draft,
    },
    /// The stream has ended; the receiver closes the connection.
    End,
}

/// One connection of a track, after its `cnct`.
#[derive(Debug)]
pub struct Receiver {
    reader: PacketReader,
    strict: bool,
    kind: TrackKind,
    /// Of the frame that comes next on this connection.
    next_id: u64,
    /// What this connection was told.
    acked_id: u64,
    /// The newest media info of this connection.
    info: Option<MediaInfo>,
    /// It stands before the next frame that is not left out.
    info_due: bool,
    /// Its first frames continue those of the connection before, and its first media info with them.
    resumes: bool,
    /// Waits behind its track's announcement.
    held: Option<(u64, Draft)>,
    ended: bool,
}

impl Receiver {
    /// Takes bytes off `input` up to the next thing of interest; `None` once all are taken. Call until `None`.
    ///
    /// After an error, or [`Event::End`], the connection is to be closed; what else stands in `input` is of no meaning.
    pub fn read(
        &mut self,
        memory: &mut TrackMemory,
        input: &mut &[u8],
    ) -> Result<Option<Event>, ReceiveError> {
        if let Some((id, draft)) = self.held.take() {
            return Ok(Some(hand_out(id, draft, memory)));
        }
        while !self.ended {
            match self.reader.read(input)? {
                None => break,
                Some(Packet::Null) => {}
                Some(Packet::Connect(_)) => return Err(ReceiveError::ConnectAgain),
                Some(Packet::Ack(_)) => return Err(ReadError::Kind { tag: *b"ackf" }.into()),
                Some(Packet::MediaInfo(info)) => self.take_info(info)?,
                Some(Packet::EndOfStream) => {
                    self.ended = true;
                    return Ok(Some(Event::End));
                }
                Some(Packet::Frame(frame)) => {
                    if let Some(event) = self.take_frame(frame, memory)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The ack that is due, if any: never beyond what came over this connection, never beyond what is safe.
    pub fn poll_ack(&mut self, memory: &TrackMemory) -> Option<Ack> {
        let frame_id = memory.settled_id().min(self.next_id);
        (frame_id > self.acked_id).then(|| {
            self.acked_id = frame_id;
            Ack { frame_id, upstream_frame_id: 0, offset: 0 }
        })
    }

    /// The last id that this connection was told, and the next that it brings.
    pub fn ids(&self) -> (u64, u64) {
        (self.acked_id, self.next_id)
    }

    /// Whether `eost` came.
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn take_info(&mut self, info: MediaInfo) -> Result<(), ReceiveError> {
        let (got, wanted) = (info.kind(), self.kind);
        if let Some(known) = self.info.as_ref().map(MediaInfo::kind).filter(|known| *known != got) {
            return Err(ReceiveError::KindChanged { from: known, to: got });
        }
        let fits = match got {
            MediaKind::Video => wanted == TrackKind::Video,
            MediaKind::Audio => wanted == TrackKind::Audio,
            MediaKind::Subtitle => false,
        };
        if !fits {
            return Err(ReceiveError::Kind { got, wanted });
        }
        // Also of one that another follows at once: a sender that cannot be understood is told so early.
        track::track_of(self.track_id(), &info)?;
        self.info = Some(info);
        self.info_due = true;
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame, memory: &mut TrackMemory) -> Result<Option<Event>, ReceiveError> {
        let id = self.next_id;
        self.next_id = id.checked_add(1).filter(|next| *next != u64::MAX).ok_or(ReceiveError::FrameIds)?;
        if id < memory.next_id() {
            memory.count_duplicate();
            return Ok(None);
        }
        memory.count(&frame);
        let Some(info) = &self.info else {
            memory.leave_out(id, Skip::NoMediaInfo);
            return Ok(None);
        };
        if frame.payload().is_empty() {
            memory.leave_out(id, Skip::Empty);
            return Ok(None);
        }
        let mut announced = None;
        if self.info_due {
            let same = memory.info().is_some_and(|known| decodes_alike(known, info));
            let resent = self.resumes && memory.info() == Some(info);
            let track = track::track_of(self.track_id(), info)?;
            memory.set_info(info.clone(), !same || (self.strict && !resent));
            (self.info_due, self.resumes) = (false, false);
            announced = Some(Event::Track { track, resent, same });
        }
        let is_video = self.kind == TrackKind::Video;
        if is_video && memory.waits_for_key() && !frame.head.keyframe {
            memory.leave_out(id, Skip::NoKey);
            return Ok(announced);
        }
        let head = unit_head(self.track_id(), &frame, info.timescale);
        let draft = frame.into_draft(head);
        if announced.is_some() {
            self.held = Some((id, draft));
            return Ok(announced);
        }
        Ok(Some(hand_out(id, draft, memory)))
    }

    fn track_id(&self) -> TrackId {
        match self.kind {
            TrackKind::Video => TrackId::VIDEO,
            TrackKind::Audio => TrackId::AUDIO,
        }
    }
}

/// Only now is it had: a connection that ends before does not lose it.
fn hand_out(id: u64, draft: Draft, memory: &mut TrackMemory) -> Event {
    Event::Unit { frame: memory.hand_out(id), draft }
}

/// A decoder needs no keyframe for what else differs: bit rate, declared size and rate, timescale.
fn decodes_alike(known: &MediaInfo, new: &MediaInfo) -> bool {
    known.codec_id == new.codec_id && known.extra_data == new.extra_data
}

fn unit_head(track: TrackId, frame: &Frame, timescale: u32) -> UnitHead {
    let head = &frame.head;
    let dts = ticks(i128::from(head.dts), timescale);
    let micros = scale(i128::from(head.created), 1_000_000, timescale);
    let pts = ticks(i128::from(head.dts).saturating_add(i128::from(head.pts_delay)), timescale);
    UnitHead {
        track,
        dts,
        pts,
        source_dts: dts,
        source_pts: pts,
        keyframe: head.keyframe || track == TrackId::AUDIO,
        // When the first gateway or server of the chain got it.
        captured: (head.created > 0).then_some(Captured { unix_micros: micros, by: ClockSource::Arrival }),
    }
}

fn ticks(value: i128, timescale: u32) -> Ticks {
    Ticks::new(scale(value, i128::from(Ticks::PER_SECOND), timescale))
}

/// Rounded to the nearest, so that a timescale of 1000 and back makes no difference.
fn scale(value: i128, per_second: i128, timescale: u32) -> i64 {
    let timescale = i128::from(timescale.max(1));
    let scaled = value.saturating_mul(per_second).saturating_add(timescale / 2).div_euclid(timescale);
    i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests;
