//! `GET /api/v1/mountpoints/NAME/snapshot.jpg`: what a mountpoint shows.

use super::api::AdminApi;
use super::reply::Reply;
use super::routes::{Request, is_known};
use crate::access::Access;
use crate::wiring::{DEFAULT_WIDTH, SnapshotError, WIDTHS};
use tokio::time::Instant;

/// The mountpoint whose snapshot this path names.
pub(super) fn mountpoint_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/api/v1/mountpoints/")?.strip_suffix("/snapshot.jpg")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// The newest picture as a JPEG. `?width=` asks for another width than 640.
pub(super) fn get(request: &Request, api: &dyn AdminApi, access: &Access) -> Reply {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let Some(name) = mountpoint_of(path) else {
        return Reply::problem(404, "there is no such mountpoint", &[]);
    };
    let mut width = DEFAULT_WIDTH;
    for (parameter, value) in query.split('&').filter_map(|pair| pair.split_once('=').or(Some((pair, "")))) {
        match (parameter, value.parse()) {
            ("", _) => {}
            ("width", Ok(wanted)) if WIDTHS.contains(&wanted) => width = wanted,
            // Makes an address of its own of each picture, for browsers that would show the one before again.
            ("at", Ok(_)) => {}
            _ => {
                let (min, max) = (WIDTHS.start(), WIDTHS.end());
                let detail =
                    format!("the parameters here are width, {min} to {max}, and at, a number; not {query:?}");
                return Reply::problem(400, &detail, &[]);
            }
        }
    }
    let shown = api.snapshot(name, width);
    if shown.is_ok() {
        access.note_watch(&request.who(), &request.from(), name, Instant::now());
    }
    match shown {
        Ok((snapshot, _)) if is_known(request, &snapshot.etag) => {
            Reply::empty(304).with("etag", snapshot.etag)
        }
        Ok((snapshot, age)) => Reply::new(200, "image/jpeg", snapshot.jpeg)
            .with("etag", snapshot.etag)
            .with("age", age.as_secs().to_string()),
        Err(error @ SnapshotError::Unknown(_)) => Reply::problem(404, &error.to_string(), &[]),
        Err(error) => Reply::problem(503, &error.to_string(), &[]).with("retry-after", "5"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_name_stands_in_the_path() {
        assert_eq!(mountpoint_of("/api/v1/mountpoints/yard/snapshot.jpg"), Some("yard"));
        for path in
            ["/api/v1/mountpoints//snapshot.jpg", "/api/v1/mountpoints/a/b/snapshot.jpg", "/snapshot.jpg"]
        {
            assert_eq!(mountpoint_of(path), None);
        }
    }
}
