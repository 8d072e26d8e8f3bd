//! Accounts as operators name them, translated to the spelling of the users file.

use std::net::IpAddr;

use super::output;
use crate::account::{Account, Kind};
use crate::auth::users::Users;
use crate::config::Config;

/// Returns the account as the users file spells it, since blocks are kept under that spelling; the given spelling may
/// differ in case.
pub(super) fn as_filed(account: Account, config: &Config) -> Account {
    let Kind::User(name) = account.kind() else { return account };
    if name.parse::<IpAddr>().is_ok() {
        output::warn(&format!("`{name}` is taken for a user's name; the relay host is host:{name}"));
    }
    // `check` reports a users file that cannot be read.
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
