//! What all transactions share: how the upstreams are reached, what they offered, the connections to them.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::dial::Dialer;
use super::pool::{Lease, Pool};
use super::slot::Slot;
use super::{ClientIdentity, Endpoints, Fault, Login, OpenError, Protection, Settings, tls};
use crate::smtp::Extensions;

pub(super) struct Shared {
    dialer: Dialer,
    pub(super) pool: Arc<Pool>,
}

impl Shared {
    pub(super) fn open(
        settings: Settings,
        patience: Duration,
        idle_limit: Duration,
    ) -> Result<Arc<Self>, OpenError> {
        let tls = match settings.protection {
            Protection::Off => None,
            Protection::StartTls | Protection::Implicit => {
                Some(tls::client_config(settings.ca.as_deref(), settings.identity.as_ref())?)
            }
        };
        let login = settings.credentials.clone().map(Login::open).transpose()?;
        let endpoints = Endpoints::new(settings.endpoints.clone());
        let pool = Pool::new(settings.max_connections, patience, idle_limit);
        Ok(Arc::new(Self { dialer: Dialer { settings, tls, login, endpoints }, pool }))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.dialer.settings
    }

    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.dialer.endpoints
    }

    /// A connection that serves this client, used before or fresh.
    pub(super) async fn connection(
        self: &Arc<Self>,
        identity: &Arc<ClientIdentity>,
    ) -> Result<Box<Connection>, Fault> {
        let slot = match self.pool.acquire(identity).await? {
            Lease::Slot(slot) => slot,
            Lease::Connection(mut connection) => {
                if connection.is_alive().await {
                    return Ok(connection);
                }
                connection.discard()
            }
        };
        self.dial(slot, Some(identity)).await
    }

    /// A fresh connection, to the one whose turn it is or else to another; on this client's behalf.
    pub(super) async fn dial(
        &self,
        slot: Slot,
        identity: Option<&Arc<ClientIdentity>>,
    ) -> Result<Box<Connection>, Fault> {
        self.dialer.dial(slot, identity).await
    }

    /// What that one offers.
    pub(super) async fn learn(&self, index: usize) -> Result<Extensions, Fault> {
        let slot = self.pool.place().await?;
        let mut connection = Box::pin(self.dialer.dial_one(slot, index)).await?;
        let extensions = std::mem::take(&mut connection.extensions);
        drop(connection.quit());
        Ok(extensions)
    }
}
