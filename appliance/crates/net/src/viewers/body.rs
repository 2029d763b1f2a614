//! What is sent: a text, or the pieces of a file, none of them copied.

use super::sessions::Session;
use super::watched::{Totals, Watched};
use bytes::{Buf, Bytes};
use fieldgate_proto::segment::{Part, Segment};
use hyper::body::{Body, Frame, SizeHint};
use std::cell::Cell;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bytes that are handed to a connection at once: a viewer who may not watch any more gets no more than these.
const SPAN_BYTES: u64 = 256 << 10;

/// A file of a package.
#[derive(Clone, Debug)]
pub(super) enum File {
    Whole(Bytes),
    Segment(Arc<Segment>),
    Part(Arc<Part>),
    /// From disk; holds its place among those who may read there.
    Read {
        bytes: Bytes,
        _turn: Arc<OwnedSemaphorePermit>,
    },
}

impl File {
    pub(super) fn len(&self) -> u64 {
        match self {
            File::Whole(bytes) | File::Read { bytes, .. } => bytes.len() as u64,
            File::Segment(segment) => segment.bytes,
            File::Part(part) => part.bytes,
        }
    }

    /// The piece at a place, and the place after it.
    fn piece(&self, (part, piece): (usize, usize)) -> Option<(&Bytes, (usize, usize))> {
        match self {
            File::Whole(bytes) | File::Read { bytes, .. } => (piece == 0).then_some((bytes, (0, 1))),
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
    pub(super) source: Source,
}

/// Where the body is from.
pub(super) enum Source {
    /// A live stream.
    Watched(Arc<Watched>),
    /// A recording, which may be shown until this is cancelled.
    Recorded(CancellationToken),
}

impl Owner {
    fn may_go_on(&self) -> bool {
        let is_valid = match &self.source {
            Source::Watched(watched) => watched.is_valid(),
            Source::Recorded(until) => !until.is_cancelled(),
        };
        is_valid && !self.session.revoked.is_cancelled()
    }

    fn totals(&self) -> Option<&Totals> {
        match &self.source {
            Source::Watched(watched) => Some(&watched.totals),
            Source::Recorded(_) => None,
        }
    }
}

/// A part of a file on its way.
pub(super) struct FileBody {
    rest: Span,
    owner: Option<Owner>,
    sending: Sending,
}

/// Bytes of a file, wherever its pieces lie: handed to the socket many at a time, none copied.
#[derive(Clone)]
pub(super) struct Span {
    file: File,
    place: (usize, usize),
    /// Bytes of the piece at `place` that are not in it any more.
    skip: usize,
    left: u64,
}

impl Buf for Span {
    fn remaining(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX)
    }

    fn chunk(&self) -> &[u8] {
        // Pieces are never empty but where the file is: a head has boxes, a sample has bytes or is passed over.
        let mut at = self.place;
        let mut skip = self.skip;
        while let Some((piece, next)) = self.file.piece(at).filter(|_| self.left > 0) {
            if let Some(rest) = piece.get(skip..).filter(|rest| !rest.is_empty()) {
                return rest.get(..self.remaining()).unwrap_or(rest);
            }
            (at, skip) = (next, 0);
        }
        &[]
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let (mut at, mut skip, mut left) = (self.place, self.skip, self.remaining());
        let mut count = 0;
        while let (Some(slot), 1..) = (out.get_mut(count), left) {
            let Some((piece, next)) = self.file.piece(at) else { break };
            let rest = piece.get(skip..).unwrap_or_default();
            let rest = rest.get(..left).unwrap_or(rest);
            if !rest.is_empty() {
                *slot = IoSlice::new(rest);
                count += 1;
                left -= rest.len();
            }
            (at, skip) = (next, 0);
        }
        count
    }

    fn advance(&mut self, count: usize) {
        let mut count = count.min(self.remaining());
        while let (Some((piece, next)), 1..) = (self.file.piece(self.place), count) {
            let rest = piece.len().saturating_sub(self.skip);
            let step = count.min(rest);
            count -= step;
            self.left -= step as u64;
            (self.place, self.skip) = if step < rest { (self.place, self.skip + step) } else { (next, 0) };
        }
    }
}

/// The viewer was sent away while he was being served.
#[derive(Debug, thiserror::Error)]
#[error("the viewer may not watch any more")]
pub(super) struct SentAway;

impl FileBody {
    /// `len` bytes of a file from `from` on, which lie in it.
    pub(super) fn new(file: File, from: u64, len: u64, owner: Option<Owner>, sending: Sending) -> Self {
        if let Some(totals) = owner.as_ref().and_then(Owner::totals) {
            Totals::add(&totals.answers, 1);
        }
        sending.set(Some(Instant::now()));
        let mut rest = Span { file, place: (0, 0), skip: 0, left: from };
        rest.advance(usize::try_from(from).unwrap_or(usize::MAX));
        rest.left = len;
        FileBody { rest, owner, sending }
    }
}

impl Body for FileBody {
    type Data = Span;
    type Error = SentAway;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Span>, SentAway>>> {
        let this = &mut *self;
        if this.owner.as_ref().is_some_and(|owner| !owner.may_go_on()) {
            return Poll::Ready(Some(Err(SentAway)));
        }
        if this.rest.left == 0 {
            return Poll::Ready(None);
        }
        let span = Span { left: this.rest.left.min(SPAN_BYTES), ..this.rest.clone() };
        this.rest.advance(span.remaining());
        if let Some(totals) = this.owner.as_ref().and_then(Owner::totals) {
            Totals::add(&totals.bytes, span.left);
        }
        Poll::Ready(Some(Ok(Frame::data(span))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.left)
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

    #[test]
    fn a_span_names_its_pieces_where_they_lie() {
        let first = part(b"head-", &[b"one", b"", b"two"]);
        let whole = b"head-onetwo";
        let file = File::Part(first.clone());
        let mut span = Span { file: file.clone(), place: (0, 0), skip: 0, left: whole.len() as u64 };
        let joined = |span: &Span| {
            let mut slices = [IoSlice::new(&[]); 8];
            let count = span.chunks_vectored(&mut slices);
            slices[..count].iter().map(|slice| slice.to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(
            joined(&span),
            [b"head-".to_vec(), b"one".to_vec(), b"two".to_vec()],
            "none of them empty"
        );
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(span.chunks_vectored(&mut slices), 2);
        assert_eq!(slices[1].as_ptr(), first.samples[0].payload.as_ptr(), "not copied");
        for done in 0..whole.len() {
            assert_eq!(span.chunk().first(), whole.get(done));
            assert_eq!(
                (span.remaining(), joined(&span).concat()),
                (whole.len() - done, whole[done..].to_vec())
            );
            span.advance(1);
        }
        assert_eq!((span.remaining(), span.chunk().len()), (0, 0));
        let mut cut = Span { file, place: (0, 0), skip: 2, left: 5 };
        assert_eq!(joined(&cut), [b"ad-".to_vec(), b"on".to_vec()]);
        cut.advance(usize::MAX);
        assert_eq!(cut.remaining(), 0);
    }
}
