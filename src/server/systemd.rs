//! Tells the service manager that we are ready, still alive, reloading the configuration, or going down.
//!
//! sd_notify(3) by `NOTIFY_SOCKET`; without it nothing happens. A task on the runtime that serves clients feeds the watchdog
//! (`WatchdogSec=`) at half its interval: if the runtime hangs, the service manager restarts us.

use sd_notify::NotifyState;

/// Says that clients are accepted.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the configuration is being reloaded; [`ready`] follows.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// Says that no more clients are accepted.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog for as long as it is polled; returns at once if there is none.
pub(super) async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval(period / 2);
    loop {
        tick.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    // If the service manager does not listen, that is its own affair.
    let _ = sd_notify::notify(state);
}
