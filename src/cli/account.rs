//! Accounts as operators name them, translated to the spelling of the users file.

use std::io::ErrorKind;
use std::net::IpAddr;

use super::output;
use crate::account::{Account, Kind};
use crate::auth::UsersError;
use crate::auth::users::Users;
use crate::config::Config;

/// Returns the account as the users file spells it, since blocks are kept under that spelling; the given spelling may
/// differ in case.
pub(super) fn as_filed(account: Account, config: &Config) -> Account {
    let Kind::User(name) = account.kind() else { return account };
    let file = config.auth.users.display();
    match Users::read(&config.auth.users) {
        Ok(users) => {
            if let Some(user) = users.get(name) {
                return user.account().clone();
            }
            output::warn(&format!(
                "no user `{name}` is in {file}; `gatepost user list` shows those that are"
            ));
        }
        // With relay hosts alone there need be none.
        Err(UsersError::Io { cause, .. }) if cause.kind() == ErrorKind::NotFound => {}
        Err(error) => output::warn(&format!(
            "{error}; `{name}` is taken as it is written, which must be as the file spells it"
        )),
    }
    if name.parse::<IpAddr>().is_ok() {
        output::warn(&format!("`{name}` is taken for a user's name; the relay host is host:{name}"));
    }
    account
}
