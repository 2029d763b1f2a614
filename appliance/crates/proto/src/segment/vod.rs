//! HLS playlists of what was recorded. Source: RFC 8216.

use super::SECOND;
use super::hls::Seconds;
use fieldgate_media::civil;
use std::fmt::Write;

/// One recorded segment of one track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its file.
    pub name: String,
    /// The file with what a player needs before it.
    pub init: String,
    /// Ticks.
    pub duration: i64,
    /// When its beginning was captured, microseconds since 1970 UTC.
    pub unix_micros: i64,
    /// It does not follow the one before it.
    pub is_discontinuity: bool,
}

/// One track in the list of tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Its playlist.
    pub name: String,
    /// The codec string of RFC 6381.
    pub codecs: String,
    /// Most bits per second of any of its segments.
    pub peak: u64,
    /// Pixels; of pictures, where they are known.
    pub size: Option<(u32, u32)>,
}

/// A playlist of one track; `is_whole`: nothing comes after it.
pub fn media(pieces: &[Piece], is_whole: bool) -> String {
    let mut text = String::with_capacity(pieces.len().saturating_mul(128).saturating_add(256));
    // Writing to a String cannot fail.
    let _ = write_media(&mut text, pieces, is_whole);
    text
}

fn write_media(out: &mut String, pieces: &[Piece], is_whole: bool) -> std::fmt::Result {
    let round = |piece: &Piece| piece.duration.saturating_add(SECOND / 2) / SECOND;
    let target = pieces.iter().map(round).max().unwrap_or(1).max(1);
    let kind = if is_whole { "VOD" } else { "EVENT" };
    writeln!(out, "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:{target}")?;
    writeln!(out, "#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:{kind}\n#EXT-X-INDEPENDENT-SEGMENTS")?;
    let mut init: Option<&str> = None;
    for piece in pieces {
        if piece.is_discontinuity && init.is_some() {
            writeln!(out, "#EXT-X-DISCONTINUITY")?;
            init = None;
        }
        if init != Some(&piece.init) {
            writeln!(out, "#EXT-X-MAP:URI=\"{}\"", piece.init)?;
            init = Some(&piece.init);
        }
        let date = civil::timestamp(piece.unix_micros.div_euclid(1000));
        writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{date}")?;
        writeln!(out, "#EXTINF:{},\n{}", Seconds(piece.duration), piece.name)?;
    }
    if is_whole { writeln!(out, "#EXT-X-ENDLIST") } else { Ok(()) }
}

/// The list of tracks. Pictures with sound beside them, or one of them alone; empty lists have no master playlist.
pub fn master(video: Option<&Lane>, audio: Option<&Lane>) -> Option<String> {
    let main = video.or(audio)?;
    let beside = audio.filter(|_| video.is_some());
    let mut text = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-INDEPENDENT-SEGMENTS\n".to_owned();
    let mut group = "";
    let mut codecs = main.codecs.clone();
    let mut peak = main.peak;
    if let Some(audio) = beside {
        group = ",AUDIO=\"audio\"";
        codecs = format!("{codecs},{}", audio.codecs);
        peak = peak.saturating_add(audio.peak);
        let tag = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"main\",DEFAULT=YES,AUTOSELECT=YES";
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{tag},URI=\"{}\"", audio.name);
    }
    let size = main.size.map(|(width, height)| format!(",RESOLUTION={width}x{height}")).unwrap_or_default();
    let _ =
        writeln!(text, "#EXT-X-STREAM-INF:BANDWIDTH={peak},CODECS=\"{codecs}\"{size}{group}\n{}", main.name);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(name: &str, init: &str, is_discontinuity: bool) -> Piece {
        Piece {
            name: name.to_owned(),
            init: init.to_owned(),
            duration: 180_000,
            unix_micros: 1_700_000_000_000_000,
            is_discontinuity,
        }
    }

    #[test]
    fn a_list_names_what_a_player_needs_before_each_segment() {
        let pieces =
            [piece("1", "x", true), piece("2", "x", false), piece("3", "x", true), piece("4", "y", false)];
        let text = media(&pieces, true);
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("DATE-TIME")).collect();
        assert_eq!(
            lines[5..],
            [
                "#EXT-X-INDEPENDENT-SEGMENTS",
                "#EXT-X-MAP:URI=\"x\"",
                "#EXTINF:2.000000,",
                "1",
                "#EXTINF:2.000000,",
                "2",
                "#EXT-X-DISCONTINUITY",
                "#EXT-X-MAP:URI=\"x\"",
                "#EXTINF:2.000000,",
                "3",
                "#EXT-X-MAP:URI=\"y\"",
                "#EXTINF:2.000000,",
                "4",
                "#EXT-X-ENDLIST",
            ]
        );
        assert!(text.contains("#EXT-X-TARGETDURATION:2\n") && text.contains("PLAYLIST-TYPE:VOD"));
        let open = media(&pieces[..1], false);
        assert!(open.contains("PLAYLIST-TYPE:EVENT") && !open.contains("ENDLIST"));
    }

    #[test]
    fn sound_stands_beside_pictures_or_alone() {
        let lane = |name: &str, codecs: &str, size| Lane {
            name: name.into(),
            codecs: codecs.into(),
            peak: 1_000,
            size,
        };
        let (video, audio) = (lane("v", "avc1.64001f", Some((640, 360))), lane("a", "mp4a.40.2", None));
        let both = master(Some(&video), Some(&audio)).unwrap();
        assert!(both.contains("URI=\"a\"\n"), "{both}");
        assert!(both.ends_with(
            "BANDWIDTH=2000,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=640x360,AUDIO=\"audio\"\nv\n"
        ));
        let alone = master(None, Some(&audio)).unwrap();
        assert!(alone.ends_with("BANDWIDTH=1000,CODECS=\"mp4a.40.2\"\na\n") && !alone.contains("MEDIA:"));
        assert_eq!(master(None, None), None);
    }
}
