//! Facts about the upstreams: each is asked with the very code that will use it.
//!
//! With TLS as configured; with XCLIENT on behalf of a user who has logged in and, if there are relay hosts, of one of
//! those. Each transaction ends before any data.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::auth::users::Users;
use crate::clock;
use crate::config::Config;
use crate::guard::{Outcome, Rules, classify, denies_relaying};
use crate::id::SessionId;
use crate::replay::attribution::NOBODY;
use crate::smtp::path::{ForwardPath, ReversePath};
use crate::smtp::{MailCommand, MailParameters, RcptCommand, RcptParameters, Reply};
use crate::upstream::{
    Address, Answer, ClientIdentity, Endpoint, Fault, Question, Settings, Transaction, Upstream,
};

/// A foreign domain that belongs to nobody (RFC 2606 3).
const NOBODYS_DOMAIN: &str = "example.com";
/// The address of a user somewhere on the Internet (TEST-NET-1, RFC 5737).
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// How long to wait before asking again: Postfix answers 450 while its own query to another server is under way, and
/// knows the answer soon after.
const PAUSE: Duration = Duration::from_secs(5);
/// How often a deferred recipient is asked about again.
const REPEATS: usize = 2;

/// What an upstream said.
pub(super) enum Facts {
    /// A file that the configuration names for it cannot be used.
    Unusable(String),
    /// No connection is possible.
    Unreachable(String),
    /// It answered.
    Answers {
        /// Whether it offers us XCLIENT.
        offers_xclient: bool,
        /// What it said to each kind of sender.
        talks: Vec<Talk>,
        /// What of a mail to the abuse desk it did not accept.
        notices: Vec<Unwelcome>,
    },
}

/// On whose behalf a question is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sender {
    /// A user who has logged in.
    Login(String),
    /// A relay host.
    RelayHost(IpAddr),
    /// Gatepost itself: the upstream cannot tell senders apart.
    Gatepost,
}

/// An address of `[notify]` that the upstream does not accept.
pub(super) enum Unwelcome {
    /// It refused MAIL from it.
    From(Reply),
    /// It refused one of the recipients.
    To(String, Reply),
}

/// What the upstream said to one kind of sender.
pub(super) struct Talk {
    pub(super) sender: Sender,
    pub(super) said: Said,
}

pub(super) enum Said {
    /// It offers XCLIENT but refused ours.
    XclientRefused(String),
    /// It refused MAIL, permanently or temporarily.
    MailRefused(Reply),
    /// Its replies about nonexistent recipients.
    Recipients(Vec<Asked>),
    /// The conversation failed.
    BrokeOff(String),
}

/// The relation of a domain to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// One of `[upstream] domains`.
    Own,
    /// One of `[upstream] canary`.
    Canary,
    /// Any foreign domain.
    Foreign,
}

/// A nonexistent recipient and the upstream's reply.
pub(super) struct Asked {
    pub(super) domain: String,
    pub(super) place: Place,
    pub(super) reply: Reply,
}

/// Asks all upstreams.
pub(super) async fn ask_all(config: &Config) -> Vec<(Address, Facts)> {
    let mut all = Vec::new();
    for endpoint in &config.upstream.settings.endpoints {
        let facts = ask(endpoint, config).await;
        // The files are the same for all.
        let is_unusable = matches!(facts, Facts::Unusable(_));
        all.push((endpoint.address.clone(), facts));
        if is_unusable {
            break;
        }
    }
    all
}

async fn ask(endpoint: &Endpoint, config: &Config) -> Facts {
    let settings = Settings { endpoints: vec![endpoint.clone()], ..config.upstream.settings.clone() };
    let names_clients = settings.names_clients();
    let upstream = match Upstream::open(settings.clone()) {
        Ok(upstream) => upstream,
        Err(error) => return Facts::Unusable(config.files.located(&error)),
    };
    let offers = match upstream.learn(None).await {
        Ok(offers) => offers,
        Err(fault) => return Facts::Unreachable(fault.to_string()),
    };
    let offers_xclient = !offers.xclient.is_empty();
    let mut talks = Vec::new();
    for sender in senders(config, offers_xclient && names_clients) {
        let said = talk(&upstream, &sender, config).await;
        talks.push(Talk { sender, said });
    }
    upstream.close();
    // As the outbox sends them: without XCLIENT.
    let settings = Settings { xclient: false, ..settings };
    let notices = match Upstream::open(settings) {
        Ok(upstream) => {
            // A conversation that failed does so for the others too, which is a finding already.
            let unwelcome = notices(&upstream, config).await.unwrap_or_default();
            upstream.close();
            unwelcome
        }
        Err(_) => Vec::new(),
    };
    Facts::Answers { offers_xclient, talks, notices }
}

/// Asks about the addresses that notices go to.
async fn notices(upstream: &Upstream, config: &Config) -> Result<Vec<Unwelcome>, Fault> {
    let mut unwelcome = Vec::new();
    let Ok(from) = config.notify.from.parse::<ReversePath>() else { return Ok(unwelcome) };
    if config.notify.to.is_empty() {
        return Ok(unwelcome);
    }
    let mut transaction = upstream.transaction(identity(&Sender::Gatepost));
    let reply = open(&mut transaction, &from).await?;
    if reply.is_completion() {
        for to in &config.notify.to {
            let reply = ask_about(&mut transaction, to.clone(), &config.classify).await?;
            if !reply.is_completion() {
                unwelcome.push(Unwelcome::To(to.clone(), reply));
            }
        }
    } else {
        unwelcome.push(Unwelcome::From(reply));
    }
    transaction.abandon();
    Ok(unwelcome)
}

/// The kinds of senders that the upstream can distinguish.
fn senders(config: &Config, by_xclient: bool) -> Vec<Sender> {
    if !by_xclient {
        return vec![Sender::Gatepost];
    }
    let mut senders = Vec::new();
    if !config.auth.mechanisms.is_empty() && (config.auth.users.exists() || config.relay_hosts.is_empty()) {
        let users = Users::read(&config.auth.users).unwrap_or_default();
        let name = users.iter().next().map_or("gatepost-check", |user| user.name());
        senders.push(Sender::Login(name.to_owned()));
    }
    let one_of = |network: &IpNet| network.hosts().next().unwrap_or(network.addr());
    senders.extend(config.relay_hosts.iter().map(|network| Sender::RelayHost(one_of(network))));
    senders
}

async fn talk(upstream: &Upstream, sender: &Sender, config: &Config) -> Said {
    let identity = identity(sender);
    if *sender != Sender::Gatepost
        && let Err(fault) = upstream.learn(Some(Arc::clone(&identity))).await
    {
        return Said::XclientRefused(fault.to_string());
    }
    let mut transaction = upstream.transaction(Arc::clone(&identity));
    let mut opened = open(&mut transaction, &ReversePath::Null).await;
    let from = config.notify.from.parse::<ReversePath>();
    if let (Ok(reply), Ok(from)) = (&opened, from)
        && !reply.is_completion()
    {
        // Some MTAs refuse the null reverse-path.
        transaction.abandon();
        transaction = upstream.transaction(Arc::clone(&identity));
        opened = open(&mut transaction, &from).await;
    }
    let said = match opened {
        Ok(reply) if reply.is_completion() => recipients(&mut transaction, config).await,
        Ok(reply) => Said::MailRefused(reply),
        Err(fault) => Said::BrokeOff(fault.to_string()),
    };
    transaction.abandon();
    upstream.end_session(identity.session);
    said
}

fn identity(sender: &Sender) -> Arc<ClientIdentity> {
    let (address, login) = match sender {
        Sender::Login(name) => (ELSEWHERE, Some(name.clone())),
        Sender::RelayHost(address) => (*address, None),
        Sender::Gatepost => (ELSEWHERE, None),
    };
    Arc::new(ClientIdentity {
        session: SessionId::new(clock::now()),
        name: None,
        address: SocketAddr::new(address, 49_152),
        helo: Some(format!("[{address}]")),
        extended: true,
        login,
    })
}

async fn open(transaction: &mut Transaction, from: &ReversePath) -> Result<Reply, Fault> {
    let parameters = Box::new(MailParameters::default());
    transaction.ask(Question::Mail(MailCommand { reverse_path: from.clone(), parameters }));
    replied(transaction.answer().await)
}

fn replied(answer: Answer) -> Result<Reply, Fault> {
    match answer {
        Answer::Replied(reply) => Ok(reply),
        Answer::None(fault) => Err(fault),
    }
}

async fn recipients(transaction: &mut Transaction, config: &Config) -> Said {
    let mut asked = Vec::new();
    for (domain, place) in domains(config) {
        let mut ask = async |recipient: String, place| {
            let reply = ask_about(transaction, recipient, &config.classify).await?;
            let denies = denies_relaying(&reply);
            asked.push(Asked { domain: domain.to_owned(), place, reply });
            Ok::<_, Fault>(denies)
        };
        let mut denies = ask(nobody_at(domain), place).await;
        if place == Place::Canary && denies == Ok(false) {
            // An MTA may refuse nobody first, and relaying only then; every domain has this one (RFC 5321 4.5.1).
            denies = ask(format!("postmaster@{domain}"), Place::Foreign).await;
        }
        if let Err(fault) = denies {
            return Said::BrokeOff(fault.to_string());
        }
    }
    Said::Recipients(asked)
}

fn domains(config: &Config) -> Vec<(&str, Place)> {
    let own = config.upstream.domains.iter().map(|domain| (domain.as_str(), Place::Own));
    let canary: Vec<_> = config.upstream.foreign_canaries().map(|domain| (domain, Place::Canary)).collect();
    let foreign = canary.is_empty().then_some((NOBODYS_DOMAIN, Place::Foreign));
    own.chain(canary).chain(foreign).collect()
}

/// Makes up a nonexistent recipient.
fn nobody_at(domain: &str) -> String {
    let mut octets = [0; 16];
    // Without random octets, the local-part is still one that nobody has.
    let _ = getrandom::fill(&mut octets);
    let random: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{NOBODY}{random}@{domain}")
}

/// Asks about a recipient; repeatedly if the answer is deferred.
async fn ask_about(transaction: &mut Transaction, recipient: String, rules: &Rules) -> Result<Reply, Fault> {
    let forward_path: ForwardPath =
        recipient.parse().map_err(|error| Fault::Protocol(format!("{recipient}: {error}")))?;
    let rcpt = RcptCommand { forward_path, parameters: RcptParameters::default() };
    let mut repeats = 0;
    loop {
        transaction.ask(Question::Rcpt(rcpt.clone()));
        let reply = replied(transaction.answer().await)?;
        let settled = !reply.is_transient() || classify(&reply, rules) == Outcome::NoSuchRecipient;
        if settled || repeats >= REPEATS {
            return Ok(reply);
        }
        repeats += 1;
        tokio::time::sleep(PAUSE).await;
    }
}
