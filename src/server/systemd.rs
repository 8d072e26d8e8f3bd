//! What the service manager is told: that we are ready, still alive, reading the configuration anew, or going down.
//!
//! sd_notify(3) by `NOTIFY_SOCKET`; without it nothing happens. The watchdog (`WatchdogSec=`) is fed at half its time by a task of the
//! same runtime that serves clients: where that stands still, the service manager starts us anew.

use sd_notify::NotifyState;

/// Clients are taken.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read anew; [`ready`] follows.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// No more clients are taken.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog for as long as it is polled; returns at once where there is none.
pub(super) async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval(period / 2);
    loop {
        tick.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    // A service manager that does not listen is its own affair.
    let _ = sd_notify::notify(state);
}
