//! The cast of the story: two users, their colleagues, and the thief's list. The same in every run.

use super::practice::Directory;

/// The users' own domain.
pub(super) const DOMAIN: &str = "example.org";
/// The recipient of notices.
pub(super) const ABUSE_DESK: &str = "abuse@example.org";
/// Foreign domains, all of which the practice MTA serves (RFC 2606: they belong to nobody).
const FOREIGN: [&str; 4] = ["example.com", "example.net", "garden.example", "choir.example"];
/// First names on the thief's list.
const FIRST_NAMES: [&str; 60] = [
    "ada", "alan", "alma", "amir", "anton", "asha", "bela", "boris", "carmen", "chen", "clara", "dario",
    "elif", "emil", "emma", "erik", "fatou", "felix", "finn", "frida", "gino", "greta", "hana", "hugo",
    "ida", "ines", "ivan", "jan", "jonas", "jun", "kai", "kira", "lars", "lea", "leo", "lina", "luca",
    "maja", "marek", "mei", "mila", "milo", "nadia", "nils", "nora", "olga", "omar", "otto", "paula",
    "petra", "ravi", "rosa", "ruben", "sami", "sara", "theo", "tove", "vera", "yara", "zoe",
];
/// One in this many of the first names has an address that was closed or never existed.
const GONE_OF: usize = 2;
/// The number of recipients in one of the thief's messages.
const PER_MESSAGE: usize = 12;

/// Someone with an account.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    /// The name in the users file.
    pub(super) name: &'static str,
    /// The password, which is used on loopback for a few minutes.
    pub(super) password: &'static str,
    /// The mail address.
    pub(super) address: &'static str,
}

/// The honest user.
pub(super) const ANNA: Person =
    Person { name: "anna", password: "anna-practises", address: "anna@example.org" };
/// The user whose password is stolen.
pub(super) const CARL: Person =
    Person { name: "carl", password: "carl-practises", address: "carl@example.org" };
/// Carl with the new password, which the thief does not have.
pub(super) const CARL_AGAIN: Person = Person { password: "carl-has-a-new-one", ..CARL };

/// One mail.
#[derive(Debug, Clone)]
pub(super) struct Mail {
    /// `MAIL FROM:`
    pub(super) from: &'static str,
    /// Each `RCPT TO:`.
    pub(super) to: Vec<String>,
    /// The value of the field `To:`.
    pub(super) to_field: &'static str,
    /// `Subject:`
    pub(super) subject: &'static str,
    /// The text, with lines that end in CRLF.
    pub(super) text: &'static str,
    /// `Message-ID:`, if the mail program adds one itself.
    pub(super) message_id: Option<String>,
}

impl Mail {
    fn of(from: &Person, to: &[&str], subject: &'static str, text: &'static str) -> Self {
        let to = to.iter().map(|address| (*address).to_owned()).collect();
        Self { from: from.address, to, to_field: "undisclosed-recipients:;", subject, text, message_id: None }
    }

    /// Header and body. Date, and usually Message-ID, are left to Gatepost.
    pub(super) fn content(&self) -> String {
        let Self { from, to_field, subject, text, .. } = self;
        let id = self.message_id.as_ref().map_or_else(String::new, |id| format!("Message-ID: {id}\r\n"));
        format!("From: {from}\r\nTo: {to_field}\r\nSubject: {subject}\r\n{id}\r\n{text}")
    }
}

/// The recipient that Anna mistypes, then the one that she means.
pub(super) const TYPO: &str = "dorra@example.org";
pub(super) const MEANT: &str = "dora@example.org";

/// Anna's mail, with a typing error in the second of three recipients.
pub(super) fn choir_practice() -> Mail {
    let text = "Dear all,\r\n\r\nwe meet on Friday at eight.\r\n\r\nAnna\r\n";
    Mail::of(&ANNA, &["bea@example.org", TYPO, "tom@example.net"], "Choir practice on Friday", text)
}

/// The same mail for the recipient that she had mistyped.
pub(super) fn choir_practice_again() -> Mail {
    Mail { to: vec![MEANT.to_owned()], ..choir_practice() }
}

/// An honest mail that Carl sends while his account is blocked.
pub(super) fn invoice() -> Mail {
    let text = "Dear Tom,\r\n\r\nplease find below what we agreed on: 12 chairs, 480 in all.\r\n\r\nCarl\r\n";
    Mail::of(&CARL, &["tom@example.net"], "Invoice 2207", text)
}

/// Carl's mail after all is well again.
pub(super) fn thanks() -> Mail {
    Mail::of(&CARL, &["anna@example.org"], "It works again", "Thank you for the quick help!\r\n\r\nCarl\r\n")
}

/// An address of the thief's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Harvested {
    pub(super) address: String,
    pub(super) living: bool,
}

/// The thief's list, divided into the messages in which it is sent. A third of it is dead, as is usual for lists
/// harvested years ago.
pub(super) fn harvested() -> Vec<Vec<Harvested>> {
    let mut list = Vec::new();
    for (number, name) in FIRST_NAMES.iter().enumerate() {
        for domain in FOREIGN {
            list.push(Harvested { address: format!("{name}@{domain}"), living: true });
            if number % GONE_OF == 0 {
                list.push(Harvested { address: format!("{name}.old@{domain}"), living: false });
            }
        }
    }
    shuffle(&mut list);
    list.chunks(PER_MESSAGE).map(<[Harvested]>::to_vec).collect()
}

/// The subject of all of the thief's messages.
pub(super) const BAIT: &str = "Your parcel is waiting";

/// One of the thief's messages.
pub(super) fn bait(number: usize, to: &[Harvested]) -> Mail {
    let to: Vec<&str> = to.iter().map(|harvested| harvested.address.as_str()).collect();
    let text =
        "Your parcel could not be delivered.\r\nPay the fee of 1.99 here: http://parcel.example/pay\r\n";
    Mail { message_id: Some(format!("<{number}@parcel.example>")), ..Mail::of(&CARL, &to, BAIT, text) }
}

/// All existing mailboxes of the story.
pub(super) fn directory() -> Directory {
    let mut living: Vec<String> =
        ["anna", "bea", "carl", "dora", "abuse"].map(|name| format!("{name}@{DOMAIN}")).into();
    living.push("tom@example.net".to_owned());
    living.extend(harvested().into_iter().flatten().filter(|one| one.living).map(|one| one.address));
    let mut domains = FOREIGN.to_vec();
    domains.push(DOMAIN);
    Directory::new(&domains, &living)
}

/// Shuffles in a pseudo-random but constant order (Knuth's linear congruential generator).
fn shuffle<T>(list: &mut [T]) {
    let mut state: u64 = 2_207;
    for last in (1..list.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chosen = usize::try_from(state >> 33).unwrap_or_default() % (last + 1);
        list.swap(last, chosen);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::smtp::Mailbox;

    #[test]
    fn the_list_serves_the_story() {
        let messages = harvested();
        let list: Vec<_> = messages.iter().flatten().collect();
        let distinct: HashSet<_> = list.iter().map(|one| &one.address).collect();
        let dead: Vec<usize> =
            list.iter().enumerate().filter(|(_, one)| !one.living).map(|(index, _)| index).collect();
        assert_eq!((list.len(), distinct.len(), dead.len()), (360, 360, 120));
        assert!(list.iter().all(|one| Mailbox::parse(&one.address).is_ok()));
        // The hundredth dead address must be in the middle of a message, with whole messages left to be parked.
        let hundredth = dead[99];
        assert!((250..320).contains(&hundredth), "{hundredth}");
        assert!((2..10).contains(&(hundredth % PER_MESSAGE)), "{}", hundredth % PER_MESSAGE);
        assert!(messages.iter().all(|message| message.iter().any(|one| one.living)));
        assert_eq!(messages, harvested());
    }
}
