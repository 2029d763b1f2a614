//! An encoder's environment variables.

use crate::env::Variables;
use fieldgate_model::Config;
use fieldgate_model::config::{CoordinatorCall, Encoder, Secret, SecretUrl, Span, validate};
use std::path::PathBuf;

/// Those that only an encoder has, and that have a meaning here.
const OWN: [&str; 7] = [
    "SERVER_CAPACITY",
    "HLS_STORAGE_TYPE",
    "HLS_FILESYSTEM_PATH",
    "HLS_STORAGE_HTTP_URL",
    "HLS_TIME_SECONDS",
    "HLS_LIVE_PLAYLIST_SIZE",
    "HLS_VOD_MAX_SIZE",
];
/// Those that have none: what there is to say.
const WITHOUT: [(&str, &str); 8] = [
    (
        "HLS_VIDEO_CODEC",
        "H.264 by the best encoder that works here; what comes as H.264 in its own size passes",
    ),
    ("HLS_AUDIO_CODEC", "AAC"),
    ("HLS_H264_PRESET", "encoders go by their rate alone"),
    ("HLS_PIXEL_FORMAT", "4:2:0 with 8 bits"),
    ("FFMPEG_PATH", "no ffmpeg is used"),
    ("FFPROBE_PATH", "no ffprobe is used"),
    ("HLS_WS_CDN_ENABLED", "there is no push to a WebSocket CDN"),
    ("LOG_TASK_STATUS", "tasks are always logged"),
];

/// Takes what an encoder of a coordinator was started with. Nothing is turned on where nothing of it is there.
pub fn take_variables(variables: &mut Variables, config: &mut Config, notes: &mut Vec<String>) {
    // A streaming server has been taken before; a coordinator has no base address.
    let is_encoder = OWN.iter().any(|name| variables.get(name).is_some());
    if !is_encoder || variables.get("CONTROL_BASE_URL").is_none() {
        return;
    }
    let before = config.clone();
    let mut told = Vec::new();
    let encoder = std::mem::take(&mut config.compat.encoder);
    config.compat.encoder = take(variables, encoder, &mut told);
    if let Some(problem) = validate(config).into_iter().next()
        && validate(&before).is_empty()
    {
        *config = before;
        told.push(format!("the encoder's variables are left out: {problem}"));
    }
    notes.extend(told);
}

fn take(variables: &mut Variables, mut own: Encoder, notes: &mut Vec<String>) -> Encoder {
    own.enabled = true;
    own.url = variables.take("CONTROL_BASE_URL").or(own.url);
    own.secret = variables.take("CONTROL_SECRET").map(Secret::new).or(own.secret);
    // What is no number meant the default.
    own.capacity = variables.take("SERVER_CAPACITY").and_then(|text| text.parse::<i32>().ok()).unwrap_or(-1);
    if !(-1..=256).contains(&own.capacity) {
        let most = own.capacity.clamp(-1, 256);
        notes.push(format!("SERVER_CAPACITY: {} becomes {most}", own.capacity));
        own.capacity = most;
    }
    let mut number = |name: &str, least: u32, most: u32, default: u32| {
        let told = variables.take(name).and_then(|text| text.parse::<u32>().ok()).filter(|told| *told > 0);
        let told = told.unwrap_or(default);
        if !(least..=most).contains(&told) {
            notes.push(format!("{name}: {told} becomes {}", told.clamp(least, most)));
        }
        told.clamp(least, most)
    };
    own.segment = Span::from_secs(number("HLS_TIME_SECONDS", 1, 60, 3).into());
    own.live_segments = number("HLS_LIVE_PLAYLIST_SIZE", 3, 1_000, 10);
    own.vod_segments = number("HLS_VOD_MAX_SIZE", 1, 86_400, 86_400);
    own.max_segments = number("HLS_FRAGMENT_COUNT_LIMIT", 1, 16_777_216, 16_777_216);
    take_storage(variables, &mut own, notes);
    for (name, instead) in WITHOUT {
        if variables.take(name).is_some() {
            notes.push(format!("{name}: has no setting here: {instead}"));
        }
    }
    own
}

fn take_storage(variables: &mut Variables, own: &mut Encoder, notes: &mut Vec<String>) {
    let kind = variables.take("HLS_STORAGE_TYPE").unwrap_or_default().to_ascii_uppercase();
    let folder = variables.take("HLS_FILESYSTEM_PATH").map(PathBuf::from);
    let mut of = |name: &str| variables.take(&format!("HLS_STORAGE_HTTP_{name}"));
    let (url, auth) = (of("URL"), of("AUTH").unwrap_or_default().to_ascii_lowercase());
    let (user, password) = (of("USER"), of("PASSWORD").map(Secret::new));
    let (token, header) = (of("TOKEN").map(Secret::new), of("AUTH_CUSTOM").map(Secret::new));
    match kind.as_str() {
        "HTTP" => {
            let Some(url) = url else {
                notes.push("HLS_STORAGE_HTTP_URL: is missing; files stay here".to_owned());
                return;
            };
            let none = CoordinatorCall {
                url: SecretUrl::new(url),
                user: None,
                password: None,
                token: None,
                header: None,
            };
            own.http = Some(match auth.as_str() {
                "basic" => CoordinatorCall { user, password, ..none },
                "bearer" => CoordinatorCall { token, ..none },
                "custom" => CoordinatorCall { header, ..none },
                _ => none,
            });
        }
        "" | "FILESYSTEM" => match folder {
            Some(folder) if folder.is_absolute() => {
                notes.push(format!(
                    "compat.encoder.folder: the service must be allowed to write to {}; see docs/coordinator.md",
                    folder.display()
                ));
                own.folder = Some(folder);
            }
            Some(folder) => {
                notes
                    .push(format!("HLS_FILESYSTEM_PATH: {} is no absolute path; left out", folder.display()));
            }
            None => {}
        },
        other => notes.push(format!("HLS_STORAGE_TYPE: {other} is not spoken here; files stay in a folder")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::import;
    use serde_json::json;

    fn imported(text: &str) -> (serde_json::Value, Vec<String>) {
        let imported = import(Variables::parse(text).unwrap(), Config::default());
        assert_eq!(validate(&imported.config), []);
        let whole = imported.config.stored().unwrap();
        for other in ["coordinator", "control"] {
            assert_eq!(whole["compat"][other]["enabled"], json!(false), "{other}");
        }
        (whole["compat"]["encoder"].clone(), imported.notes)
    }

    #[test]
    fn an_encoders_variables_make_one() {
        let (own, notes) = imported(
            "CONTROL_BASE_URL=wss://c.example/\nCONTROL_SECRET=s3cret\nSERVER_CAPACITY=8\nHLS_STORAGE_TYPE=HTTP\n\
             HLS_STORAGE_HTTP_URL=https://files/hls\nHLS_STORAGE_HTTP_AUTH=Basic\nHLS_STORAGE_HTTP_USER=u\n\
             HLS_STORAGE_HTTP_PASSWORD=p\nHLS_TIME_SECONDS=2\nHLS_LIVE_PLAYLIST_SIZE=5\nHLS_VOD_MAX_SIZE=100\n\
             HLS_FRAGMENT_COUNT_LIMIT=1000\n",
        );
        for (field, value) in [
            ("enabled", json!(true)),
            ("url", json!("wss://c.example/")),
            ("secret", json!("s3cret")),
            ("capacity", json!(8)),
            ("segment", json!("2s")),
            ("live_segments", json!(5)),
            ("vod_segments", json!(100)),
            ("max_segments", json!(1000)),
            ("http", json!({"url": "https://files/hls", "user": "u", "password": "p"})),
        ] {
            assert_eq!(own[field], value, "{field}");
        }
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn defaults_are_as_they_were_and_what_has_no_meaning_is_told() {
        let (own, notes) = imported(
            "CONTROL_BASE_URL=ws://c\nHLS_FILESYSTEM_PATH=/srv/hls\nHLS_TIME_SECONDS=x\nHLS_LIVE_PLAYLIST_SIZE=2\n\
             HLS_VIDEO_CODEC=h264_nvenc\nFFMPEG_PATH=/usr/bin/ffmpeg\nSERVER_CAPACITY=1000\n",
        );
        assert_eq!((&own["folder"], &own["segment"]), (&json!("/srv/hls"), &json!("3s")));
        assert_eq!((&own["live_segments"], &own["capacity"]), (&json!(3), &json!(256)));
        for part in [
            "HLS_LIVE_PLAYLIST_SIZE: 2",
            "HLS_VIDEO_CODEC",
            "FFMPEG_PATH",
            "SERVER_CAPACITY: 1000",
            "/srv/hls",
        ] {
            assert!(notes.iter().any(|note| note.contains(part)), "{part}: {notes:?}");
        }
        let (own, notes) = imported("CONTROL_BASE_URL=ws://c\nHLS_STORAGE_TYPE=S3\n");
        assert_eq!((&own["enabled"], &own["capacity"], own.get("folder")), (&json!(true), &json!(-1), None));
        assert!(notes.iter().any(|note| note.contains("S3 is not spoken")), "{notes:?}");
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let (own, notes) = imported("CONTROL_BASE_URL=https://c\nSERVER_CAPACITY=2\n");
        assert_eq!(own["enabled"], json!(false));
        assert!(notes.iter().any(|note| note.contains("left out: compat.encoder.url")), "{notes:?}");
        // A streaming server's, and another program's.
        assert_eq!(imported("SERVER_CAPACITY=2\n").0["enabled"], json!(false));
    }
}
