//! Fuzz target of the receiver: a plain function that takes any bytes and must return.

use super::{Event, Opening, Receiver, ReceiverSettings, TrackMemory};
use crate::kmp::Limits;
use fieldgate_media::TrackKind;

/// What one connection gave: ids and payloads, and whether it failed.
type Outcome = (Vec<(u64, Vec<u8>)>, bool);

/// Runs two connections of one track over `data`; the first byte says where the first ends, how long its pieces are,
/// and what kind of track is meant.
///
/// Promises: nothing panics; the same comes whatever pieces the bytes come in; no id is handed out twice within a
/// session; no ack goes beyond what came over the connection or back.
pub fn receiver(data: &[u8]) {
    let Some((&[cut, step], wire)) = data.split_first_chunk() else { return };
    let kind = if step & 1 == 0 { TrackKind::Video } else { TrackKind::Audio };
    let at = wire.len().saturating_mul(usize::from(cut)) / 256;
    let (first, second) = wire.split_at_checked(at).unwrap_or((wire, &[]));
    let mut whole = TrackMemory::default();
    let mut cut_up = TrackMemory::default();
    for bytes in [first, second, first] {
        let one = connection(kind, &mut whole, std::iter::once(bytes));
        let many = connection(kind, &mut cut_up, bytes.chunks(usize::from(step).max(1)));
        assert_eq!(one, many);
        let mut ids = one.0.iter().map(|(id, _)| *id);
        let mut last = ids.next();
        for id in ids {
            assert!(last.is_none_or(|last| last < id));
            last = Some(id);
        }
    }
}

fn connection<'a>(
    kind: TrackKind,
    memory: &mut TrackMemory,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Outcome {
    let limits = Limits { frame_len: 1 << 20, connect_data_len: 1024, ..Limits::default() };
    let settings = ReceiverSettings { limits, ..ReceiverSettings::default() };
    let mut opening = Some(Opening::new(settings));
    let mut receiver: Option<Receiver> = None;
    let mut units = Vec::new();
    for piece in pieces {
        let mut input = piece;
        if receiver.is_none() {
            let Some(waiting) = opening.as_mut() else { return (units, true) };
            match waiting.read(&mut input) {
                Ok(None) => continue,
                Err(_) => return (units, true),
                Ok(Some(connect)) => {
                    receiver = opening.take().map(|opening| opening.accept(&connect, kind, memory).0);
                }
            }
        }
        let Some(receiver) = receiver.as_mut() else { continue };
        loop {
            match receiver.read(memory, &mut input) {
                Ok(None) => break,
                Ok(Some(Event::Track { .. })) => {}
                Ok(Some(Event::End)) => return (units, false),
                Ok(Some(Event::Unit { frame, draft })) => {
                    units.push((frame.id(), draft.payload().to_vec()));
                    if frame.id() % 3 == 0 {
                        memory.safe_until(frame);
                    }
                }
                Err(_) => return (units, true),
            }
            let (before, received) = receiver.ids();
            if let Some(ack) = receiver.poll_ack(memory) {
                assert!(ack.frame_id > before && ack.frame_id <= received);
            }
        }
    }
    (units, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmp::Direction;
    use crate::kmp::golden;
    use crate::mutation::run;

    #[test]
    fn receivers_survive_mutated_senders() {
        let recordings = golden::recordings(Direction::ToReceiver);
        let seeds: Vec<Vec<u8>> = (0_u8..)
            .map(|n| n.wrapping_mul(37))
            .zip(&recordings)
            .map(|(cut, (_, wire))| [&[cut, cut / 2], &wire[..wire.len().min(4000)]].concat())
            .collect();
        run(receiver, &seeds, 40, 0x9E37_79B9_7F4A_7C15);
    }
}
