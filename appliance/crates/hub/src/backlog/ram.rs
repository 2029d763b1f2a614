//! A backlog in memory alone: survives a lost connection, not a stop of the gateway.

use super::{
    Backlog, BacklogError, Batch, Budget, Held, Keeping, LossCause, Lost, PacketQueue, Reading, Stored,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Packets in memory within a budget.
pub struct RamBacklog {
    queue: Mutex<PacketQueue>,
}

impl RamBacklog {
    /// An empty backlog.
    pub fn new(budget: Budget) -> Self {
        RamBacklog { queue: Mutex::new(PacketQueue::new(budget, 0)) }
    }

    fn lock(&self) -> MutexGuard<'_, PacketQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backlog for RamBacklog {
    fn append(&self, packet: Stored) -> Result<(), BacklogError> {
        self.lock().push(packet, LossCause::Bytes)
    }

    fn release(&self, before_id: u64) {
        self.lock().release(before_id);
    }

    fn read(&self, from_id: u64, max_bytes: usize) -> Reading {
        Box::pin(std::future::ready(Ok(self.lock().read(from_id, max_bytes))))
    }

    fn read_memory(&self, from_id: u64, max_bytes: usize) -> Option<Batch> {
        Some(self.lock().read(from_id, max_bytes))
    }

    fn held(&self) -> Held {
        self.lock().held()
    }

    fn take_losses(&self) -> Vec<Lost> {
        self.lock().losses().take()
    }

    fn keeping(&self) -> Keeping {
        Keeping::Memory
    }
}
