//! What is sent: a text, or the pieces of a file, none of them copied.

use super::sessions::Session;
use super::watched::{Totals, Watched};
use bytes::{Buf, Bytes};
use fieldgate_proto::segment::{Part, Segment};
use hyper::body::{Body, Frame, SizeHint};
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// A file of a package.
#[derive(Clone, Debug)]
pub(super) enum File {
    Whole(Bytes),
    Segment(Arc<Segment>),
    Part(Arc<Part>),
}

impl File {
    pub(super) fn len(&self) -> u64 {
        match self {
            File::Whole(bytes) => bytes.len() as u64,
            File::Segment(segment) => segment.bytes,
            File::Part(part) => part.bytes,
        }
    }

    /// The piece at a place, and the place after it.
    fn piece(&self, (part, piece): (usize, usize)) -> Option<(&Bytes, (usize, usize))> {
        match self {
            File::Whole(bytes) => (piece == 0).then_some((bytes, (0, 1))),
            File::Part(only) => only.piece(piece).map(|bytes| (bytes, (0, piece + 1))),
            File::Segment(segment) => match segment.parts.get(part)?.piece(piece) {
                Some(bytes) => Some((bytes, (part, piece + 1))),
                None => segment.parts.get(part + 1)?.piece(0).map(|bytes| (bytes, (part + 1, 1))),
            },
        }
    }
}

/// Since when an answer is being sent on a connection; none: nothing is.
pub(super) type Sending = Rc<Cell<Option<Instant>>>;

/// Whose the body is: it ends when the viewer may not watch any more.
pub(super) struct Owner {
    pub(super) session: Arc<Session>,
    pub(super) watched: Arc<Watched>,
}

/// A part of a file on its way.
pub(super) struct FileBody {
    file: File,
    place: (usize, usize),
    skip: u64,
    left: u64,
    owner: Option<Owner>,
    sending: Sending,
}

/// The viewer was sent away while he was being served.
#[derive(Debug, thiserror::Error)]
#[error("the viewer may not watch any more")]
pub(super) struct SentAway;

impl FileBody {
    /// `len` bytes of a file from `from` on, which lie in it.
    pub(super) fn new(file: File, from: u64, len: u64, owner: Option<Owner>, sending: Sending) -> Self {
        if let Some(owner) = &owner {
            Totals::add(&owner.watched.totals.answers, 1);
        }
        sending.set(Some(Instant::now()));
        FileBody { file, place: (0, 0), skip: from, left: len, owner, sending }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = SentAway;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SentAway>>> {
        let this = &mut *self;
        if let Some(owner) = &this.owner
            && (owner.session.revoked.is_cancelled() || !owner.watched.is_valid())
        {
            return Poll::Ready(Some(Err(SentAway)));
        }
        while this.left > 0 {
            let Some((piece, next)) = this.file.piece(this.place) else { break };
            let len = piece.len() as u64;
            if this.skip >= len {
                this.skip -= len;
                this.place = next;
                continue;
            }
            let mut piece = piece.clone();
            this.place = next;
            // Both are less than the piece's length.
            piece.advance(usize::try_from(this.skip).unwrap_or(0));
            this.skip = 0;
            piece.truncate(usize::try_from(this.left).unwrap_or(usize::MAX));
            this.left -= piece.len() as u64;
            if let Some(owner) = &this.owner {
                Totals::add(&owner.watched.totals.bytes, piece.len() as u64);
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for FileBody {
    fn drop(&mut self) {
        self.sending.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_proto::segment::Sample;
    use http_body_util::BodyExt;

    fn part(head: &'static [u8], payloads: &[&'static [u8]]) -> Arc<Part> {
        let samples = payloads.iter().map(|payload| Sample {
            payload: Bytes::from_static(payload),
            dts: 0,
            offset: 0,
            duration: 1,
            keyframe: true,
        });
        let bytes = head.len() + payloads.iter().map(|payload| payload.len()).sum::<usize>();
        Arc::new(Part {
            head: Bytes::from_static(head),
            samples: samples.collect(),
            duration: 1,
            bytes: bytes as u64,
            independent: true,
        })
    }

    #[tokio::test]
    async fn any_range_of_a_file_is_the_same_range_of_its_bytes() {
        let whole = b"head-onetwothree";
        let file = File::Part(part(b"head-", &[b"one", b"two", b"three"]));
        assert_eq!(file.len(), whole.len() as u64);
        for from in 0..whole.len() {
            for to in from..=whole.len() {
                let body =
                    FileBody::new(file.clone(), from as u64, (to - from) as u64, None, Sending::default());
                assert_eq!(body.size_hint().exact(), Some((to - from) as u64));
                let got = body.collect().await.unwrap().to_bytes();
                assert_eq!(got, whole[from..to]);
            }
        }
    }
}
