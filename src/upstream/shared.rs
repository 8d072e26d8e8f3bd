//! What all transactions share: how the upstream is reached, what it offered, the connections to it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::connection::Connection;
use super::dial::Dialer;
use super::pool::{Lease, Pool};
use super::slot::Slot;
use super::{ClientIdentity, Fault, Settings};
use crate::smtp::Extensions;

pub(super) struct Shared {
    dialer: Dialer,
    /// As of the last connection, before XCLIENT.
    pub(super) offers: ArcSwapOption<Extensions>,
    pub(super) pool: Arc<Pool>,
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        tls: Option<Arc<rustls::ClientConfig>>,
        patience: Duration,
        idle_limit: Duration,
    ) -> Self {
        let pool = Pool::new(settings.max_connections, patience, idle_limit);
        Self { dialer: Dialer { settings, tls }, offers: ArcSwapOption::empty(), pool }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.dialer.settings
    }

    /// A connection that serves this client, used before or fresh.
    pub(super) async fn connection(&self, identity: &Arc<ClientIdentity>) -> Result<Box<Connection>, Fault> {
        let slot = match self.pool.acquire(identity).await? {
            Lease::Slot(slot) => slot,
            Lease::Connection(mut connection) => {
                if connection.is_alive().await {
                    return Ok(connection);
                }
                connection.discard()
            }
        };
        self.open(slot, Some(identity)).await
    }

    /// A fresh connection.
    pub(super) async fn open(
        &self,
        slot: Slot,
        identity: Option<&Arc<ClientIdentity>>,
    ) -> Result<Box<Connection>, Fault> {
        self.dialer
            .open(slot, identity, |offered| {
                if self.offers.load().as_deref() != Some(offered) {
                    self.offers.store(Some(Arc::new(offered.clone())));
                }
            })
            .await
    }
}
