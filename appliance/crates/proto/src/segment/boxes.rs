//! Writing the boxes of ISO base media files (ISO/IEC 14496-12, 4.2).

/// Bytes of boxes in the making.
#[derive(Debug, Default)]
pub(super) struct Boxes(Vec<u8>);

impl Boxes {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Boxes(Vec::with_capacity(bytes))
    }

    /// A box of this kind; `body` writes what it holds.
    pub(super) fn boxed(&mut self, kind: &[u8; 4], body: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.u32(0);
        self.bytes(kind);
        body(self);
        let len = u32::try_from(self.0.len().saturating_sub(at)).unwrap_or(u32::MAX);
        self.set_u32(at, len);
    }

    /// A box with version and flags.
    pub(super) fn full(&mut self, kind: &[u8; 4], version: u8, flags: u32, body: impl FnOnce(&mut Self)) {
        self.boxed(kind, |b| {
            b.u32(u32::from(version) << 24 | flags & 0xFF_FFFF);
            body(b);
        });
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len().saturating_add(count), 0);
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Overwrites four bytes that were written before.
    pub(super) fn set_u32(&mut self, at: usize, value: u32) {
        if let Some(place) = self.0.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = value.to_be_bytes();
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}
