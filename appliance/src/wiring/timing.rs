//! The time of drivers around pure cores.

use tokio::time::Instant;

/// What cores are handed.
pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Until then; without an end if there is none.
pub(super) async fn sleep_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(Instant::from_std(due)).await,
        None => std::future::pending().await,
    }
}
