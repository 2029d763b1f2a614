use super::*;
use crate::rtmp::ChunkWriter;

fn head0(csid: u8, time: u32, len: u32, kind: u8, stream_id: u32) -> Vec<u8> {
    let mut out = vec![csid];
    out.extend(&time.min(0xFF_FFFF).to_be_bytes()[1..]);
    out.extend(&len.to_be_bytes()[1..]);
    out.push(kind);
    out.extend(stream_id.to_le_bytes());
    if time >= 0xFF_FFFF {
        out.extend(time.to_be_bytes());
    }
    out
}

fn media_reader() -> ChunkReader {
    let mut reader = ChunkReader::new(Limits::default());
    reader.allow_media(true);
    reader
}

fn read_all(reader: &mut ChunkReader, mut input: &[u8]) -> Result<Vec<Message>, ChunkError> {
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut input)? {
        messages.push(message);
    }
    assert!(input.is_empty());
    Ok(messages)
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn what_the_writer_writes_the_reader_reads_cut_anywhere() {
    for (len, time) in [(0, 0), (1, 5), (128, 0xFF_FFFE), (129, 0xFF_FFFF), (1000, 0xFFFF_FFFF), (70_000, 7)]
    {
        let body = payload(len);
        let mut wire = BytesMut::new();
        let mut writer = ChunkWriter::new();
        for csid in [2, 63, 64, 319, 320, 65_599] {
            writer.write(&mut wire, csid, time, kind::VIDEO, 1, &body);
        }
        writer.set_chunk_len(&mut wire, 4096);
        writer.write(&mut wire, 6, time, kind::AUDIO, 3, &body);
        for step in [1, 2, 3, 7, 11, 12, 13, 127, 4096, usize::MAX] {
            let mut reader = media_reader();
            let mut messages = Vec::new();
            for piece in wire.chunks(step.min(wire.len())) {
                messages.extend(read_all(&mut reader, piece).unwrap());
            }
            assert_eq!(messages.len(), 7, "len {len} step {step}");
            for message in &messages {
                assert_eq!((message.body(), message.timestamp), (&body[..], time));
            }
            let csids: Vec<u32> = messages.iter().map(|message| message.csid).collect();
            assert_eq!(csids, [2, 63, 64, 319, 320, 65_599, 6]);
            assert_eq!((messages[6].kind, messages[6].stream_id), (kind::AUDIO, 3));
            assert_eq!(reader.chunk_len(), 4096);
        }
    }
}

#[test]
fn the_body_stands_behind_the_headroom_with_one_copy() {
    let mut wire = BytesMut::new();
    ChunkWriter::with_chunk_len(1000).write(&mut wire, 6, 1, kind::VIDEO, 1, &payload(500));
    let mut reader = media_reader();
    reader.chunk_len = 1000;
    let message = read_all(&mut reader, &wire).unwrap().remove(0);
    assert_eq!(message.buf.len(), HEADROOM + 500);
    assert_eq!(message.body(), payload(500));
}

#[test]
fn r03_chunk_streams_interleave_in_the_middle_of_messages() {
    let (video, audio) = (payload(300), payload(200));
    let mut wire = head0(6, 10, 300, kind::VIDEO, 1);
    wire.extend(&video[..128]);
    wire.extend(head0(4, 11, 200, kind::AUDIO, 1));
    wire.extend(&audio[..128]);
    wire.push(0xC6);
    wire.extend(&video[128..256]);
    wire.push(0xC4);
    wire.extend(&audio[128..]);
    wire.push(0xC6);
    wire.extend(&video[256..]);
    let messages = read_all(&mut media_reader(), &wire).unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!((messages[0].kind, messages[0].body()), (kind::AUDIO, &audio[..]));
    assert_eq!((messages[1].kind, messages[1].body()), (kind::VIDEO, &video[..]));
}

#[test]
fn r03_a_new_header_inside_an_unfinished_message_starts_over() {
    let mut wire = head0(6, 10, 300, kind::VIDEO, 1);
    wire.extend(payload(128));
    wire.extend(head0(6, 20, 5, kind::VIDEO, 1));
    wire.extend(b"fresh");
    let mut reader = media_reader();
    let messages = read_all(&mut reader, &wire).unwrap();
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].timestamp, messages[0].body()), (20, &b"fresh"[..]));
    assert_eq!(reader.unfinished, 0);
}

#[test]
fn r03_messages_given_up_half_way_are_bounded() {
    let max = Limits::default().discards;
    let mut wire = Vec::new();
    for _ in 0..=max {
        wire.extend(head0(6, 10, 300, kind::VIDEO, 1));
        wire.extend(payload(128));
    }
    assert!(read_all(&mut media_reader(), &wire).unwrap().is_empty());
    wire.extend(head0(6, 10, 300, kind::VIDEO, 1));
    assert_eq!(read_all(&mut media_reader(), &wire).unwrap_err(), ChunkError::TooManyDiscards { max });
}

#[test]
fn r04_an_extended_timestamp_of_a_small_value_is_taken_on_every_header_type() {
    let mut wire = head0(6, 100, 1, kind::VIDEO, 1);
    wire.push(1);
    // Type 1 with an extended delta of 5, then type 2 with an extended delta of 0x0100_0000.
    wire.extend([0x46, 0xFF, 0xFF, 0xFF, 0, 0, 1, kind::VIDEO, 0, 0, 0, 5, 2]);
    wire.extend([0x86, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 3]);
    // Type 0 with an extended time under 0xFFFFFF.
    wire.extend([6, 0xFF, 0xFF, 0xFF, 0, 0, 1, kind::VIDEO, 1, 0, 0, 0, 0, 0, 0, 9, 4]);
    let messages = read_all(&mut media_reader(), &wire).unwrap();
    let seen: Vec<(u32, u8)> = messages.iter().map(|m| (m.timestamp, m.body()[0])).collect();
    assert_eq!(seen, [(100, 1), (105, 2), (105 + 0x0100_0000, 3), (9, 4)]);
}

#[test]
fn r05_continuations_with_and_without_the_extended_timestamp_are_both_taken() {
    let body = payload(300);
    let time = 0x0123_4567u32;
    for repeated in [true, false] {
        let mut wire = head0(6, time, 300, kind::VIDEO, 1);
        for (index, chunk) in body.chunks(128).enumerate() {
            if index > 0 {
                wire.push(0xC6);
                if repeated {
                    wire.extend(time.to_be_bytes());
                }
            }
            wire.extend(chunk);
        }
        wire.extend(head0(4, 1, 1, kind::AUDIO, 1));
        wire.push(7);
        for step in [1, 5, wire.len()] {
            let mut reader = media_reader();
            let mut messages = Vec::new();
            for piece in wire.chunks(step) {
                messages.extend(read_all(&mut reader, piece).unwrap());
            }
            assert_eq!(messages.len(), 2, "repeated {repeated} step {step}");
            assert_eq!((messages[0].timestamp, messages[0].body()), (time, &body[..]));
            assert_eq!(reader.repeats_extended_timestamps(), Some(repeated));
        }
    }
}

#[test]
fn r05_a_short_last_chunk_without_extended_timestamp_is_not_held_back() {
    let mut wire = head0(6, 0x0123_4567, 129, kind::VIDEO, 1);
    wire.extend(payload(128));
    wire.extend([0xC6, 99]);
    let messages = read_all(&mut media_reader(), &wire).unwrap();
    assert_eq!(messages[0].body()[128], 99);
}

#[test]
fn r06_lengths_are_limited_by_type_and_state() {
    let Limits { message_bytes, media_bytes, .. } = Limits::default();
    for (kind, media, max) in [
        (kind::COMMAND, false, message_bytes),
        (kind::COMMAND, true, message_bytes),
        (kind::DATA, true, message_bytes),
        (kind::VIDEO, false, message_bytes),
        (kind::VIDEO, true, media_bytes),
        (kind::AUDIO, true, media_bytes),
        (kind::AGGREGATE, true, media_bytes),
    ] {
        let mut reader = ChunkReader::new(Limits::default());
        reader.allow_media(media);
        assert!(read_all(&mut reader, &head0(3, 0, max, kind, 0)).unwrap().is_empty());
        let mut reader = ChunkReader::new(Limits::default());
        reader.allow_media(media);
        let error = read_all(&mut reader, &head0(3, 0, max + 1, kind, 0)).unwrap_err();
        assert_eq!(error, ChunkError::MessageTooLong { csid: 3, kind, len: max + 1, max });
    }
}

#[test]
fn r06_eight_chunk_streams_and_not_one_more() {
    let max = Limits::default().chunk_streams;
    let mut wire = Vec::new();
    for csid in 3..3 + max as u8 {
        wire.extend(head0(csid, 0, 0, kind::AUDIO, 1));
    }
    assert_eq!(read_all(&mut media_reader(), &wire).unwrap().len(), max);
    wire.extend(head0(60, 0, 0, kind::AUDIO, 1));
    let error = ChunkError::TooManyChunkStreams { csid: 60, count: max + 1, max };
    assert_eq!(read_all(&mut media_reader(), &wire).unwrap_err(), error);
}

#[test]
fn r06_a_declared_length_alone_reserves_little() {
    let mut reader = media_reader();
    read_all(&mut reader, &head0(6, 0, 4 << 20, kind::VIDEO, 1)).unwrap();
    assert!(reader.streams[0].buf.as_ref().unwrap().capacity() <= AHEAD + HEADROOM);
}

#[test]
fn r06_unfinished_messages_together_are_bounded() {
    let max = Limits::default().unfinished_bytes;
    let mut reader = media_reader();
    reader.chunk_len = 1 << 24;
    let body = payload(3 << 20);
    let mut result = Ok(Vec::new());
    for csid in 3..6 {
        let mut wire = head0(csid, 0, 4 << 20, kind::VIDEO, 1);
        wire.extend(&body);
        // The reader waits inside a chunk; the next header can only come at its end.
        reader.at = At::Head;
        result = read_all(&mut reader, &wire);
    }
    assert!(
        matches!(result, Err(ChunkError::TooMuchUnfinished { bytes, max: m }) if bytes > max && m == max)
    );
}

#[test]
fn r11_chunk_size_zero_is_refused() {
    for (len, ok) in [(0u32, false), (1, true), (0x7FFF_FFFF, true), (0x8000_0000, false)] {
        let mut wire = head0(2, 0, 4, kind::SET_CHUNK_SIZE, 0);
        wire.extend(len.to_be_bytes());
        let mut reader = media_reader();
        match read_all(&mut reader, &wire) {
            Ok(messages) => assert!(ok && messages.is_empty() && reader.chunk_len() == len.min(0xFF_FFFF)),
            Err(error) => assert!(!ok && error == ChunkError::ChunkLen { len }),
        }
    }
}

#[test]
fn endless_chunk_size_changes_are_refused_unless_media_comes_between() {
    let max = Limits::default().chunk_len_changes;
    let mut change = head0(2, 0, 4, kind::SET_CHUNK_SIZE, 0);
    change.extend(128u32.to_be_bytes());
    let mut reader = media_reader();
    for round in 0..3 {
        for _ in 0..max {
            read_all(&mut reader, &change).unwrap();
        }
        if round < 2 {
            read_all(&mut reader, &head0(4, 0, 0, kind::AUDIO, 1)).unwrap();
        }
    }
    assert_eq!(read_all(&mut reader, &change).unwrap_err(), ChunkError::TooManyChunkLenChanges { max });
}

#[test]
fn an_aborted_message_is_forgotten() {
    let mut wire = head0(6, 10, 300, kind::VIDEO, 1);
    wire.extend(payload(128));
    wire.extend(head0(2, 0, 4, kind::ABORT, 0));
    wire.extend(6u32.to_be_bytes());
    wire.extend(head0(6, 20, 1, kind::VIDEO, 1));
    wire.push(9);
    let mut reader = media_reader();
    let messages = read_all(&mut reader, &wire).unwrap();
    assert_eq!((messages.len(), messages[0].body()[0], reader.unfinished), (1, 9, 0));
    let mut short = head0(2, 0, 3, kind::ABORT, 0);
    short.extend([0, 0, 6]);
    let error = ChunkError::ControlLen { kind: kind::ABORT, len: 3 };
    assert_eq!(read_all(&mut reader, &short).unwrap_err(), error);
}

#[test]
fn compressed_headers_take_over_what_they_leave_out() {
    let mut wire = head0(6, 1000, 1, kind::VIDEO, 7);
    wire.push(1);
    wire.extend([0x46, 0, 0, 40, 0, 0, 2, kind::AUDIO, 2, 2]);
    wire.extend([0x86, 0, 0, 20, 3, 3]);
    wire.extend([0xC6, 4, 4]);
    let messages = read_all(&mut media_reader(), &wire).unwrap();
    let seen: Vec<_> = messages.iter().map(|m| (m.timestamp, m.kind, m.stream_id, m.body().len())).collect();
    let (video, audio) = (kind::VIDEO, kind::AUDIO);
    assert_eq!(seen, [(1000, video, 7, 1), (1040, audio, 7, 2), (1060, audio, 7, 2), (1080, audio, 7, 2)]);
}

#[test]
fn a_type_3_header_after_a_type_0_repeats_its_time_as_the_delta() {
    let mut wire = head0(6, 30, 1, kind::VIDEO, 1);
    wire.extend([1, 0xC6, 2]);
    let times: Vec<u32> = read_all(&mut media_reader(), &wire).unwrap().iter().map(|m| m.timestamp).collect();
    assert_eq!(times, [30, 60]);
}

#[test]
fn headers_that_refer_to_nothing_are_refused_but_type_1_is_a_known_habit() {
    for format in [2u8, 3] {
        let error = read_all(&mut media_reader(), &[format << 6 | 5, 0, 0, 0]).unwrap_err();
        assert_eq!(error, ChunkError::NoHeaderBefore { csid: 5, format });
    }
    let wire = [0x42, 0, 0, 9, 0, 0, 1, kind::USER_CONTROL, 7];
    let messages = read_all(&mut media_reader(), &wire).unwrap();
    assert_eq!((messages[0].timestamp, messages[0].stream_id), (9, 0));
}

#[test]
fn r09_an_empty_message_is_a_message() {
    let mut wire = BytesMut::new();
    ChunkWriter::new().write(&mut wire, 4, 5, kind::AUDIO, 1, &[]);
    assert_eq!(wire.len(), 12);
    let messages = read_all(&mut media_reader(), &wire).unwrap();
    assert!(messages.len() == 1 && messages[0].body().is_empty());
}

#[test]
fn r12_continuations_are_type_3_and_carry_the_extended_timestamp() {
    for (time, continuation) in [(5u32, 1), (0xFF_FFFF, 5)] {
        let mut wire = BytesMut::new();
        let mut writer = ChunkWriter::new();
        assert_eq!(writer.chunk_len(), 128);
        writer.write(&mut wire, 6, time, kind::VIDEO, 1, &payload(300));
        let head = if time >= 0xFF_FFFF { 16 } else { 12 };
        assert_eq!(wire.len(), head + 300 + 2 * continuation);
        assert_eq!(wire[head + 128], 0xC6);
        writer.set_chunk_len(&mut wire, 0);
        assert_eq!(writer.chunk_len(), 1);
    }
}

#[test]
fn r14_times_that_step_back_are_written_in_full() {
    let mut wire = BytesMut::new();
    let writer = ChunkWriter::new();
    for time in [5000, 4000, 0xFFFF_FFFF, 0] {
        writer.write(&mut wire, 6, time, kind::VIDEO, 1, b"x");
    }
    let times: Vec<u32> = read_all(&mut media_reader(), &wire).unwrap().iter().map(|m| m.timestamp).collect();
    assert_eq!(times, [5000, 4000, 0xFFFF_FFFF, 0]);
}
