//! Losses that nobody has asked for yet.

use super::{LossCause, Lost};

/// A bounded list of losses; neighbours of the same cause are one.
#[derive(Debug, Default)]
pub struct Losses {
    list: Vec<Lost>,
}

impl Losses {
    /// Most entries; beyond, the newest grows over what lies between.
    pub const MAX: usize = 1_024;

    /// Notes one frame.
    pub fn frame(&mut self, id: u64, captured_unix_micros: i64, cause: LossCause) {
        self.add(Lost {
            ids: id..id.saturating_add(1),
            frames: Some(1),
            from_unix_micros: captured_unix_micros,
            to_unix_micros: captured_unix_micros,
            cause,
        });
    }

    /// Notes a range.
    pub fn add(&mut self, lost: Lost) {
        let full = self.list.len() >= Self::MAX;
        match self.list.last_mut() {
            Some(last) if full || (last.cause == lost.cause && last.ids.end == lost.ids.start) => {
                last.ids.end = last.ids.end.max(lost.ids.end);
                last.frames = last.frames.zip(lost.frames).map(|(before, more)| before + more);
                last.from_unix_micros = last.from_unix_micros.min(lost.from_unix_micros);
                last.to_unix_micros = last.to_unix_micros.max(lost.to_unix_micros);
            }
            _ => self.list.push(lost),
        }
    }

    /// Hands out all of them.
    pub fn take(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.list)
    }
}
