//! What the control API needs from the program around it: the log, warnings, and releases.

use crate::account::Account;
use crate::clock;
use crate::control::api::Released;
use crate::control::operations::Pending;
use crate::control::{AuditLine, Host};
use crate::guard::ledger::Cause;
use crate::id::QuarantineId;
use crate::maillog;
use crate::parts::Parts;
use crate::release::{ReleaseError, Releaser};

/// Where a command's audit line goes.
pub(super) type Audit = Box<dyn Fn(&AuditLine) + Send + Sync>;

/// The host of the operations: `serve`, or a command's own process.
pub struct PartsHost {
    parts: Parts,
    releaser: Releaser,
    audit: Audit,
}

impl PartsHost {
    /// Creates a host over these parts; audit lines go to `audit`.
    pub fn new(parts: Parts, audit: Audit) -> Self {
        Self { releaser: Releaser::new(parts.clone()), parts, audit }
    }

    /// The same for a command's own process, in which a release waits for a disk that does not take its answers, and reports
    /// that to `tell`.
    pub fn alone(parts: Parts, audit: Audit, tell: fn(&str)) -> Self {
        Self { releaser: Releaser::alone(parts.clone(), tell), parts, audit }
    }
}

impl Host for PartsHost {
    fn audit(&self, line: &AuditLine) {
        (self.audit)(line);
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.parts.desk.warnings();
        if let Some(why) = self.parts.ledger.trouble().borrow().as_ref() {
            warnings.push(format!("counts and blocks cannot be written ({why}); they hold in memory"));
        }
        let causes = self.parts.ledger.common_causes(clock::now());
        warnings.extend(causes.iter().map(|Cause { domain, since, answers }| {
            let domain = maillog::clean(domain);
            format!("{domain} has refused everybody since {since}: {answers} recipients there did not count")
        }));
        warnings
    }

    fn is_ending(&self) -> bool {
        *self.parts.shutdown.borrow()
    }

    fn blocked(&self, account: &Account) {
        self.parts.upstream.end_account(account);
    }

    fn release(&self, id: QuarantineId, quiet: bool) -> Pending<'_, Result<Released, ReleaseError>> {
        Box::pin(async move { self.releaser.release(id, quiet).await.map(Released::from) })
    }
}
