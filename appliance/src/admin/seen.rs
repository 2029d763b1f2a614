//! The status as a viewer may see it: the mountpoints named to him, and of them what the pictures show.

use super::routes::Request;
use fieldgate_model::Status;
use fieldgate_model::status::{MountpointStatus, SourceStatus};

/// The status for who asks.
pub(super) fn by(request: &Request, status: Status) -> Status {
    let Some(viewer) = request.principal.as_ref().filter(|known| !known.sees_all()) else { return status };
    let visible = status.mountpoints.into_iter().filter(|(name, _)| viewer.sees(name));
    Status {
        version: status.version,
        at: status.at,
        started: status.started,
        mountpoints: visible.map(|(name, mountpoint)| (name, outside(mountpoint))).collect(),
        ..Status::default()
    }
}

/// Without where it comes from and where it goes: addresses and names of others are not for viewers.
fn outside(mountpoint: MountpointStatus) -> MountpointStatus {
    let mut stream = mountpoint.stream;
    if let Some(stream) = &mut stream {
        stream.publisher = String::new();
    }
    MountpointStatus {
        template: mountpoint.template,
        source: SourceStatus { kind: mountpoint.source.kind, ..SourceStatus::default() },
        stream,
        picture: mountpoint.picture,
        players: mountpoint.players,
        counters: mountpoint.counters,
        ..MountpointStatus::default()
    }
}
