//! Fetches a bundle by URL, in ranges: what is there stays over cuts and restarts, and memory holds one piece.

use super::book::Upload;
use super::{BUNDLE_MAX, PIECE_MAX, UpdateError, Updates, lock};
use fieldgate_model::config::{SecretUrl, WantedFirmware};
use fieldgate_net::{ClientTls, HttpCall, HttpCallError, TlsError};
use std::io;
use std::time::Duration;

/// Room for the head of an answer, in bytes.
const HEAD_MAX: usize = 16 << 10;
/// For one piece.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the URL cannot be asked: {0}")]
    Url(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Call(#[from] HttpCallError),
    #[error("the server answered {0}")]
    Status(u16),
    #[error("the server sends no ranges: it must answer 206 to a Range header, with Content-Range")]
    NoRanges,
    #[error("what the server has is {0} bytes, and a bundle has 1 to {BUNDLE_MAX}")]
    Size(u64),
    #[error("what the server has is another file than before; it is fetched from its beginning")]
    Another,
    #[error(transparent)]
    Update(#[from] UpdateError),
    #[error("cannot store it: {0}")]
    Io(#[from] io::Error),
}

/// Whether there is more to come.
pub(super) enum Piece {
    More,
    Whole,
}

/// The connection's secrets, made once for each wish.
#[derive(Default)]
pub(super) struct Fetch {
    tls: Option<(WantedFirmware, Option<ClientTls>)>,
}

impl Updates {
    pub(super) async fn fetch_piece(
        &self,
        fetch: &mut Fetch,
        wanted: &WantedFirmware,
        by: &str,
    ) -> Result<Piece, FetchError> {
        let label = format!("{} from {}", wanted.version, wanted.url);
        let label: String = label.chars().take(128).collect();
        let upload = self.book().upload.clone().filter(|upload| upload.label == label && upload.by == by);
        let mut upload = match upload {
            Some(upload) => upload,
            None => {
                let upload = Upload { size: None, label, by: by.to_owned(), tag: None };
                self.own(&upload)?;
                upload
            }
        };
        if self.bundle().exists() {
            return Ok(Piece::Whole);
        }
        let offset = self.received(&upload);
        let reply = ask(fetch, wanted, offset).await?;
        let header = |name: &str| {
            let mut named = reply.headers.iter().filter(|(known, _)| known == name);
            named.next().map(|(_, value)| value.as_str())
        };
        let (begin, total) = match reply.status {
            206 => header("content-range").and_then(range).ok_or(FetchError::NoRanges)?,
            200 => return Err(FetchError::NoRanges),
            other => return Err(FetchError::Status(other)),
        };
        if !(1..=BUNDLE_MAX).contains(&total) {
            return Err(FetchError::Size(total));
        }
        let tag = header("etag").map(|tag| tag.chars().take(128).collect::<String>());
        let is_same = upload.size.is_none_or(|size| size == total) && (offset == 0 || upload.tag == tag);
        let end = offset.saturating_add(reply.body.len() as u64);
        if !is_same || begin != offset || reply.body.is_empty() || end > total {
            let _turn = lock(&self.shared.turn);
            self.clear()?;
            return Err(FetchError::Another);
        }
        let (updates, body) = (self.clone(), reply.body);
        // The last piece is answered by a slow disk only when all of it is there.
        let stored = tokio::task::spawn_blocking(move || {
            if offset == 0 {
                let _turn = lock(&updates.shared.turn);
                if updates.book().upload.as_ref() != Some(&upload) {
                    return Err(UpdateError::Replaced);
                }
                updates.has_room(total)?;
                (upload.size, upload.tag) = (Some(total), tag);
                updates.edit(|book| book.upload = Some(upload.clone()))?;
            }
            updates.append_own(&upload, offset, &body)
        });
        stored.await.map_err(|error| FetchError::Url(error.to_string()))??;
        Ok(if end == total { Piece::Whole } else { Piece::More })
    }
}

async fn ask(
    fetch: &mut Fetch,
    wanted: &WantedFirmware,
    offset: u64,
) -> Result<fieldgate_net::HttpReply, FetchError> {
    let url = SecretUrl::new(&wanted.url);
    let parts = url.parts().map_err(|error| FetchError::Url(error.to_string()))?;
    let is_tls = parts.scheme == "https";
    let known = fetch.tls.clone().filter(|(of, _)| of == wanted);
    let tls = match known {
        Some((_, tls)) => tls,
        None => {
            let ca = wanted.ca.clone().filter(|_| is_tls);
            let made = tokio::task::spawn_blocking(move || match ca {
                Some(ca) => ClientTls::with_ca_file(&ca).map(Some),
                None => Ok(is_tls.then(ClientTls::public)),
            });
            let tls = made.await.map_err(|error| FetchError::Url(error.to_string()))??;
            fetch.tls = Some((wanted.clone(), tls.clone()));
            tls
        }
    };
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    let end = offset.saturating_add(PIECE_MAX).saturating_sub(1);
    let call = HttpCall {
        method: "GET",
        host: parts.host.to_owned(),
        port: parts.port.unwrap_or(if is_tls { 443 } else { 80 }),
        tls,
        target: parts.query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")),
        headers: vec![("Range".to_owned(), format!("bytes={offset}-{end}"))],
        body: Vec::new(),
        send_timeout: TIMEOUT,
        read_timeout: TIMEOUT,
        reply_max_bytes: PIECE_MAX as usize + HEAD_MAX,
        until_close: false,
    };
    match call.fetch().await {
        Ok(document) => Ok(document.reply),
        // All of it at once.
        Err(HttpCallError::TooLong(_)) => Err(FetchError::NoRanges),
        Err(error) => Err(error.into()),
    }
}

/// Where a range begins, and how long the whole is.
fn range(header: &str) -> Option<(u64, u64)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_tells_where_it_begins_and_how_long_the_whole_is() {
        assert_eq!(range("bytes 0-1/2"), Some((0, 2)));
        for odd in ["bytes */2", "bytes 0-1/*", "0-1/2", "bytes 0-1", "bytes -1-2/3"] {
            assert_eq!(range(odd), None, "{odd}");
        }
    }
}
