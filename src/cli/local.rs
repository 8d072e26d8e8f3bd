//! Operations in the command's own process, while no `serve` runs.
//!
//! Locks the data folder as `serve` does, so that neither runs beside the other. Audit lines are kept for the next
//! start of `serve`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::gate::Need;
use super::output::{self, Failed};
use crate::clock;
use crate::config::Config;
use crate::control::api::Released;
use crate::control::operations::Pending;
use crate::control::{Actor, AuditLine, Host, Operations, audit};
use crate::guard::Ledger;
use crate::id::QuarantineId;
use crate::quarantine::Spool;
use crate::quarantine::spool::SWEPT_TOLD;
use crate::release::ReleaseError;
use crate::roster::Roster;
use crate::server::{DataDir, Workshop};

/// The open data.
pub(super) struct Local {
    pub(super) operations: Operations,
    parts: Parts,
}

enum Parts {
    Records { ledger: Ledger, _data_dir: DataDir },
    All(Workshop),
}

impl Local {
    pub(super) async fn open(config: &Config, need: Need) -> Result<Self, Failed> {
        may_use(&config.data_dir)?;
        match need {
            Need::Records => Self::records(config).await,
            Need::Upstream => {
                let workshop = Workshop::open(config.clone()).await.map_err(failed)?;
                tell_swept(&workshop.parts.spool);
                let data_dir = config.data_dir.clone();
                let audit = move |line: &AuditLine| postpone(&data_dir, line);
                let operations = workshop.operations_alone(Box::new(audit), output::warn);
                Ok(Self { operations, parts: Parts::All(workshop) })
            }
        }
    }

    async fn records(config: &Config) -> Result<Self, Failed> {
        let data_dir = DataDir::take(&config.data_dir).map_err(failed)?;
        let spool = Spool::open(data_dir.path(), config.quarantine.clone()).await.map_err(failed)?;
        let parked = || spool.blocks();
        tell_swept(&spool);
        let ledger = Ledger::open(data_dir.path(), config.policy.clone(), &parked, clock::now());
        let ledger = ledger.map_err(failed)?;
        // `serve` tells the abuse desk.
        ledger.recovery().iter().flat_map(|text| text.lines()).for_each(output::warn);
        let host = RecordsHost { data_dir: config.data_dir.clone() };
        let operations = Operations::new(ledger.clone(), spool, Roster::default(), Arc::new(host));
        Ok(Self { operations, parts: Parts::Records { ledger, _data_dir: data_dir } })
    }

    /// Writes everything to disk.
    pub(super) async fn close(self) {
        match self.parts {
            Parts::Records { ledger, .. } => ledger.close().await,
            Parts::All(workshop) => workshop.close().await,
        }
    }
}

/// `serve` will not find these messages any more.
fn tell_swept(spool: &Spool) {
    spool.swept().iter().take(SWEPT_TOLD).for_each(|swept| output::warn(&swept.to_string()));
}

#[allow(clippy::needless_pass_by_value, reason = "map_err hands over the error itself")]
fn failed(error: impl ToString) -> Failed {
    Failed::because(error.to_string())
}

/// Refuses other users than the owner of the data folder: files that they create would be inaccessible to `serve`.
fn may_use(data_dir: &Path) -> Result<(), Failed> {
    let shown = data_dir.display();
    let owner = std::fs::metadata(data_dir).map_err(|error| {
        failed(format!("{shown}: {error}; no `serve` has ever run with this configuration: is it the right --config FILE?"))
    })?;
    let ours = rustix::process::geteuid().as_raw();
    if owner.uid() == ours {
        return Ok(());
    }
    let user = Actor::from_uid(owner.uid()).user;
    Err(failed(format!(
        "{shown} belongs to `{user}`; while `serve` does not run, give the command as that user: sudo -u {user} gatepost ..."
    )))
}

/// Keeps an audit line for the next start of `serve`.
pub(super) fn postpone(data_dir: &Path, line: &AuditLine) {
    if let Err(error) = audit::postpone(data_dir, line) {
        output::warn(&format!(
            "no audit line is left, since {} cannot be written to: {error}",
            data_dir.display()
        ));
    }
}

/// The program around operations that relay nothing.
struct RecordsHost {
    data_dir: PathBuf,
}

impl Host for RecordsHost {
    fn audit(&self, line: &AuditLine) {
        postpone(&self.data_dir, line);
    }

    fn warnings(&self) -> Vec<String> {
        vec!["`serve` does not run: this is what it left, and no mail is taken".to_owned()]
    }

    fn release(&self, id: QuarantineId, _quiet: bool) -> Pending<'_, Result<Released, ReleaseError>> {
        Box::pin(async move { Err(ReleaseError::NoUpstream(id)) })
    }
}
