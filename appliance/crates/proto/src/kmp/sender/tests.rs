mod golden;
mod harness;
mod live_first;
mod random;
mod rules;

/// Some moment; the core only ever looks at differences.
#[allow(clippy::disallowed_methods, reason = "there is no other way to a first Instant")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
