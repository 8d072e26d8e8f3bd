//! A Gatepost in front of an upstream, and who got what.

use std::collections::{BTreeMap, BTreeSet};

use super::clients::{Client, Port, Post, RIGHT, Sent, WhenRefused};
use super::letters::{Kind, Letter};
use crate::support::gatepost::{Gatepost, Setup};
use crate::support::mta::Mta;
use crate::support::scripted::Scripted;

/// What is known of what arrived.
pub(crate) trait Behind {
    /// Waits until so many messages came for the account; as they came, with what the MTA put in front.
    fn messages(&self, account: &str, count: usize) -> Vec<Arrived>;
    /// Messages times recipients so far.
    fn total(&self) -> usize;
}

pub(crate) struct Arrived {
    /// For whom, with the subaddress.
    pub(crate) recipient: String,
    pub(crate) octets: Vec<u8>,
}

impl Behind for Mta {
    fn messages(&self, account: &str, count: usize) -> Vec<Arrived> {
        let found = self.expect_mail(account, count).into_iter().map(|octets| {
            let fields = ["X-Original-To: ", "Envelope-to: ", "Delivered-To: "];
            let text = String::from_utf8_lossy(&octets[..octets.len().min(2000)]).into_owned();
            let field =
                fields.iter().find_map(|field| text.lines().find_map(|line| line.strip_prefix(field)));
            Arrived { recipient: field.unwrap_or_default().to_owned(), octets }
        });
        found.collect()
    }

    fn total(&self) -> usize {
        self.delivered()
    }
}

impl Behind for Scripted {
    fn messages(&self, account: &str, count: usize) -> Vec<Arrived> {
        let mut found = Vec::new();
        for transaction in self.taken() {
            for line in &transaction.recipients {
                let recipient = line.split(['<', '>']).nth(1).unwrap();
                if recipient.split(['+', '@']).next() == Some(account) {
                    found.push(Arrived { recipient: recipient.to_owned(), octets: transaction.message() });
                }
            }
        }
        // It has answered before the client ended.
        assert_eq!(found.len(), count, "messages for {account}");
        found
    }

    fn total(&self) -> usize {
        self.taken().iter().map(|transaction| transaction.recipients.len()).sum()
    }
}

pub(crate) struct House<'a> {
    pub(crate) gatepost: Gatepost,
    behind: &'a dyn Behind,
    /// Messages that came, by account.
    came: BTreeMap<String, usize>,
    /// Recipients that were refused.
    refused: usize,
}

impl<'a> House<'a> {
    pub(crate) fn open(setup: Setup, behind: &'a dyn Behind) -> Self {
        // The same good recipients over and over are no news to the detector, and each client asks about an unknown one.
        let house = Self {
            gatepost: setup.set("detection.on_alarm", "off").start(),
            behind,
            came: BTreeMap::new(),
            refused: 0,
        };
        assert_eq!(house.behind.total(), 0);
        house
    }

    /// A wrong password is told as one, by each mechanism on both ports; nothing is sent.
    pub(crate) fn denies(&self, client: &Client) {
        let letter = Letter::new(Kind::Plain, client.keeps, "denied");
        for port in Port::BOTH {
            for mechanism in client.mechanisms {
                let sent = (client.send)(&Post {
                    gatepost: &self.gatepost,
                    port,
                    mechanism,
                    password: "wrong",
                    letter: &letter,
                    goes_on: false,
                });
                assert!(
                    (client.denied)(&sent),
                    "{} {mechanism} on {port:?} took a wrong password: {sent:?}",
                    client.name
                );
            }
        }
        assert_eq!(self.behind.total(), 0);
    }

    /// Every kind of letter on both ports, each mechanism in its turn.
    pub(crate) fn takes_all_kinds(&mut self, client: &Client) {
        let mut mechanisms = client.mechanisms.iter().cycle();
        for port in Port::BOTH {
            for kind in Kind::ALL {
                let tag = format!("{}-{}", client.name.replace(' ', "-"), port.number());
                let letter = Letter::new(kind, client.keeps, &tag);
                let mut post = Post {
                    gatepost: &self.gatepost,
                    port,
                    mechanism: mechanisms.next().unwrap(),
                    password: RIGHT,
                    letter: &letter,
                    goes_on: false,
                };
                let mut sent = (client.send)(&post);
                if kind == Kind::Refused && client.when_refused != WhenRefused::GoesOn {
                    assert!(
                        sent.code != 0,
                        "{} should have told of the refusal on {port:?}: {sent:?}",
                        client.name
                    );
                    assert_eq!(
                        self.behind.total(),
                        self.came.values().sum::<usize>(),
                        "{} gives up, and nobody gets it",
                        client.name
                    );
                    if client.when_refused == WhenRefused::AlwaysGivesUp {
                        continue;
                    }
                    post.goes_on = true;
                    sent = (client.send)(&post);
                }
                self.expect(client, &letter, &sent);
            }
        }
        self.refused += Port::BOTH.len();
        let status = self.gatepost.status("user:alice").unwrap();
        assert_eq!(
            status["invalid_recipients"], self.refused,
            "each refused recipient counts once: {status}"
        );
    }

    /// Each recipient that is there got the letter, and nobody else.
    fn expect(&mut self, client: &Client, letter: &Letter, sent: &Sent) {
        assert_eq!(sent.code, 0, "{}: {}: {}", client.name, letter.subject, sent.said);
        let mut accounts: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for recipient in letter.good() {
            accounts
                .entry(recipient.split(['+', '@']).next().unwrap())
                .or_default()
                .insert(recipient.to_owned());
        }
        for (account, recipients) in accounts {
            let came = self.came.entry(account.to_owned()).or_default();
            let before = *came;
            *came += recipients.len();
            let arrived = self.behind.messages(account, *came).split_off(before);
            for one in &arrived {
                if let Some(difference) = letter.differs(&one.octets, client.keeps) {
                    panic!("{}: {difference}\nclient: {}", client.name, sent.said);
                }
            }
            assert_eq!(
                arrived.into_iter().map(|one| one.recipient).collect::<BTreeSet<_>>(),
                recipients,
                "{}: {}",
                client.name,
                letter.subject
            );
        }
        assert_eq!(self.behind.total(), self.came.values().sum::<usize>(), "nobody else got it");
    }
}
