//! The gateway's own packager as an encoder: viewers of `http.listen` see streams of the cluster by their ids.

use super::Coordinator;
use fieldgate_compat::coordinator::Available;
use fieldgate_hub::{Mountpoint, Request};
use fieldgate_model::config::Hls;
use fieldgate_net::{Absent, Elsewhere};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// A source without pictures by then is no source, as encoders have it.
const PICTURE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// What viewers see of a stream, once its pictures are known; `None`: there are none.
pub(super) async fn files_of(mountpoint: Arc<Mountpoint>, stream_id: &str) -> Option<Available> {
    let shape = async {
        loop {
            let tracks = mountpoint.ring().tracks();
            if let Some(video) = tracks.iter().map(|track| track.video).find(|video| video.width > 0) {
                return video;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let closed = mountpoint.closed();
    let video = tokio::select! {
        video = tokio::time::timeout(PICTURE_WITHIN, shape) => video.ok()?,
        () = closed.cancelled() => return None,
    };
    // As encoders write it: the integer part of the rate, where it is known.
    let rate = if video.frame_rate >= 1.0 { format!("-{}", video.frame_rate.trunc()) } else { String::new() };
    Some(Available {
        stream_type: "HLS-LIVE".to_owned(),
        resolution: format!("{}x{}{rate}", video.width, video.height),
        index_file: format!("hls/{stream_id}/index.m3u8"),
        start_time: None,
    })
}

impl Coordinator {
    /// From now on a stream can be watched, or no more.
    pub(super) fn show(&self, stream_id: &str, mountpoint: Option<&str>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match mountpoint {
            Some(mountpoint) => shown.insert(stream_id.to_owned(), mountpoint.to_owned()),
            None => shown.remove(stream_id),
        };
    }
}

impl Elsewhere for Coordinator {
    fn is_on(&self) -> bool {
        self.desk().is_some_and(|desk| desk.is_encoder)
    }

    fn hls(&self) -> Hls {
        Hls::default()
    }

    /// The id is known to the application and to whom it tells it: as with files of other encoders, nothing else is asked.
    fn open(&self, request: Request) -> Pin<Box<dyn Future<Output = Result<String, Absent>> + Send + '_>> {
        Box::pin(async move { self.mountpoint(&request.name) })
    }

    fn mountpoint(&self, stream: &str) -> Result<String, Absent> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let absent = || Absent { status: 404, text: "there is no such stream".to_owned() };
        shown.get(stream).cloned().ok_or_else(absent)
    }
}
