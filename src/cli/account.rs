//! An account as an operator names it: in the spelling of the users file.

use super::output;
use crate::account::{Account, Kind};
use crate::auth::users::Users;
use crate::config::Config;

/// Blocks hold for a name as the users file spells it; that of another spelling, but for case, is meant.
pub(super) fn as_filed(account: Account, config: &Config) -> Account {
    let Kind::User(name) = account.kind() else { return account };
    // A users file that cannot be read is `check`'s business.
    let Ok(users) = Users::read(&config.auth.users) else { return account };
    match users.get(name) {
        Some(user) => user.account().clone(),
        None => {
            let file = config.auth.users.display();
            output::warn(&format!(
                "no user `{name}` is in {file}; `gatepost user list` shows those that are"
            ));
            account
        }
    }
}
