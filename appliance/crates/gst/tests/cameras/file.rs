//! Files that are played as if they were cameras.

use crate::common::{Taken, run, spec};
use fieldgate_media::TrackId;
use fieldgate_model::job::{AudioTreatment, FileCamera, Sandbox, VideoTreatment, Work};
use fieldgate_model::masks::Masks;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Two seconds of picture (B-frames) and sound.
fn file(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fieldgate-{}-{name}", std::process::id()));
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=2"])
        .args(["-f", "lavfi", "-i", "sine=duration=2:sample_rate=48000"])
        .args(["-c:v", "libx264", "-bf", "2", "-g", "25", "-c:a", "aac", "-ac", "1"])
        .arg(&path)
        .status();
    assert!(status.unwrap().success(), "{name}");
    path
}

fn play(path: &Path, repeat: bool, enough: impl Fn(&Taken) -> bool + 'static) -> Taken {
    let camera = FileCamera {
        path: path.to_owned(),
        repeat,
        video: VideoTreatment::Pass(Masks::none().unmasked().unwrap()),
        audio: AudioTreatment::Pass,
    };
    let sandbox = Sandbox { read: vec![path.to_owned()], ..Sandbox::default() };
    run(spec(Work::File(camera), sandbox), enough).0
}

pub(crate) fn every_container_is_played_at_the_speed_of_life() {
    for name in ["a.mp4", "b.mkv", "c.flv", "d.ts"] {
        let path = file(name);
        let taken = play(&path, false, |_| false);
        let _ = std::fs::remove_file(&path);
        let (pictures, sounds) = (taken.of(TrackId::VIDEO).count(), taken.of(TrackId::AUDIO).count());
        assert_eq!(pictures, 50, "{name}: {:?}", taken.report.status);
        assert!(sounds >= 90, "{name}: {sounds}");
    }
}

pub(crate) fn a_file_that_repeats_is_one_stream() {
    std::thread::scope(|scope| {
        for name in ["again.mp4", "again.mkv", "again.flv", "again.ts"] {
            scope.spawn(move || repeats(name));
        }
    });
}

fn repeats(name: &str) {
    let path = file(name);
    let began = crate::common::now();
    let taken = play(&path, true, |taken| taken.of(TrackId::VIDEO).count() >= 170);
    // Once it was read as fast as the disk is, after its first end.
    assert!(
        began.elapsed().as_secs() >= 6,
        "{name}: 170 pictures of 25 a second after {:?}",
        began.elapsed()
    );
    let _ = std::fs::remove_file(&path);
    for track in [TrackId::VIDEO, TrackId::AUDIO] {
        let times: Vec<i64> = taken.of(track).map(|(head, _)| head.source_dts.as_millis()).collect();
        assert!(times.len() > 120, "{name} {track:?}: {}", times.len());
        // Packets of sound in MPEG-TS do not say how long they are.
        let steady = times.windows(2).all(|pair| (1..400).contains(&(pair[1] - pair[0])));
        assert!(steady, "{name} {track:?}: {times:?}");
    }
}
