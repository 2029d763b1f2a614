//! Values of the controller's side as those of the sender's side, and back.

use super::calls::Controller;
use fieldgate_compat::kmp_control::{
    Client, MediaInfo, MediaKind, Publication, Reason, ResumeFrom, Upstream,
};
use fieldgate_hub::{RtmpClient, RtmpEnd, RtmpSession};
use fieldgate_media::TrackKind;
use fieldgate_model::config::KmpApplication;
use fieldgate_net::{DialOptions, KmpDialer, KmpTrackSettings, TrackCommand};
use fieldgate_proto::kmp::sender::{self, Keep, Memory, Reconnect, Settings, UpstreamSpec};
use fieldgate_proto::kmp::{MapSettings, Media, MediaInfo as Described, Name};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub(super) fn client(client: &RtmpClient) -> Client {
    Client {
        app: client.app.clone(),
        flashver: client.flash_ver.clone(),
        swf_url: client.swf_url.clone(),
        tc_url: client.tc_url.clone(),
        page_url: client.page_url.clone(),
        addr: client.peer,
        connection: client.connection,
    }
}

pub(super) fn publication(session: &RtmpSession) -> Arc<Publication> {
    Arc::new(Publication {
        client: client(&session.client),
        name: session.name.clone(),
        kind: session.kind.clone(),
        args: session.args.clone(),
    })
}

/// The reason of tracks whose publication ended like this.
pub(super) fn reason_of(end: Option<RtmpEnd>) -> Reason {
    match end {
        Some(RtmpEnd::Closed) => Reason::RtmpClose,
        Some(RtmpEnd::BadData) => Reason::RtmpBadData,
        Some(RtmpEnd::Disconnected) | None => Reason::RtmpDisconnect,
    }
}

pub(super) fn reason(reason: sender::Reason) -> Reason {
    Reason::from_name(reason.as_str()).unwrap_or(Reason::Unexpected)
}

/// What a sender is told when its track has ended. Why, the controller hears from our side.
pub(super) fn end(reason: Reason) -> TrackCommand {
    match reason {
        // The queue has no room for an end.
        Reason::AllocFailed | Reason::AppendFailed => TrackCommand::Fail(sender::Reason::NoMemory),
        _ => TrackCommand::End(sender::Reason::Close),
    }
}

pub(super) fn kind(kind: MediaKind) -> TrackKind {
    match kind {
        MediaKind::Video => TrackKind::Video,
        MediaKind::Audio => TrackKind::Audio,
    }
}

/// `None` for subtitles, which no RTMP publisher sends.
pub(super) fn media_info(info: &Described) -> Option<MediaInfo> {
    let (bitrate, codec_id, extra_data) = (info.bitrate, info.codec_id, info.extra_data.clone());
    match info.media {
        Media::Video(video) => Some(MediaInfo::Video {
            bitrate,
            codec_id,
            extra_data,
            width: video.width,
            height: video.height,
            frame_rate: (video.frame_rate.num, video.frame_rate.denom),
            cea_captions: video.cea_captions,
        }),
        Media::Audio(audio) => Some(MediaInfo::Audio {
            bitrate,
            codec_id,
            extra_data,
            channels: audio.channels,
            channel_layout: audio.channel_layout,
            bits_per_sample: audio.bits_per_sample,
            sample_rate: audio.sample_rate,
        }),
        Media::Subtitle => None,
    }
}

/// An upstream as its sender takes it.
pub(super) fn upstream(upstream: &Upstream) -> UpstreamSpec {
    UpstreamSpec {
        id: upstream.id.clone(),
        required: upstream.required,
        resume_from: match upstream.resume_from {
            ResumeFrom::LastAcked => sender::ResumeFrom::LastAcked,
            ResumeFrom::LastSent => sender::ResumeFrom::LastSent,
            ResumeFrom::LastWritten => sender::ResumeFrom::LastWritten,
        },
        connect_data: upstream.connect_data.clone().unwrap_or_default(),
        ..UpstreamSpec::new(upstream.url.to_string())
    }
}

/// As [`upstream`] has it, back.
pub(super) fn resume_from(resume_from: sender::ResumeFrom) -> ResumeFrom {
    match resume_from {
        sender::ResumeFrom::LastAcked => ResumeFrom::LastAcked,
        sender::ResumeFrom::LastSent => ResumeFrom::LastSent,
        sender::ResumeFrom::LastWritten => ResumeFrom::LastWritten,
    }
}

/// A name that a controller gave, whose length was checked when its reply was read.
pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_default()
}

/// Bytes that frames of one kind may take.
pub(super) fn mem_limit(application: &KmpApplication, of: MediaKind) -> u64 {
    match of {
        MediaKind::Video => application.video_mem_limit,
        MediaKind::Audio => application.audio_mem_limit,
    }
}

/// How tracks of one kind are sent.
pub(super) fn track_settings(application: &KmpApplication, of: MediaKind) -> KmpTrackSettings {
    let block_bytes = match of {
        MediaKind::Video => application.video_buffer_bytes,
        MediaKind::Audio => application.audio_buffer_bytes,
    };
    let limit_bytes = mem_limit(application, of);
    let base = if application.strict { Settings::strict() } else { Settings::new() };
    let memory = Memory {
        limit_bytes,
        high_percent: application.mem_high_watermark,
        low_percent: application.mem_low_watermark,
    };
    let reconnect = match application.republish_url {
        Some(_) => Reconnect::Ask {
            interval: application.republish_interval.get(),
            max: application.max_republishes,
        },
        None => Reconnect::Never,
    };
    KmpTrackSettings {
        kind: kind(of),
        map: MapSettings {
            strict: application.strict,
            timescale: application.timescale,
            audio_sync_margin: application.audio_sync_margin.get(),
        },
        sender: Settings {
            flush_timeout: application.flush_timeout.get(),
            block_bytes: u64::from(block_bytes),
            timeout: application.write_timeout.get(),
            keep: Keep::Memory(memory),
            reconnect,
            ..base
        },
    }
}

/// How connections to upstreams are made.
pub(super) fn dialer(
    application: &KmpApplication,
    controller: &Controller,
    serial: &Arc<AtomicU64>,
) -> KmpDialer {
    let timeout = application.write_timeout.get();
    KmpDialer {
        options: DialOptions { timeout, user_timeout: timeout, ..DialOptions::default() },
        tls: Some(controller.tls.clone()),
        serial: serial.clone(),
    }
}
