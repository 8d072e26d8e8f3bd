//! A message while it comes in: its parts, how much of it is held, and its route. If it is to be delayed and the
//! quarantine does not take it, it is recovered from there and goes upstream at once.
//!
//! Up to [`HELD`] octets are received before the route is chosen (fewer if all sessions together hold too much), so
//! that a slow client holds no upstream connection and a block that comes meanwhile still counts; everything after that
//! is streamed in constant memory. After a failure the rest is read and discarded, since the client does not listen
//! before its end of data.

use super::buffers::Loan;
use super::pace::Pace;
use crate::quarantine::envelope::Treatment;
use crate::quarantine::spool::{ParkError, Parking, Salvaged};
use crate::rare::rare;
use crate::session::{Delivery, ParkOrder, ParkReason, UpstreamFault};
use crate::smtp::header::{Collected, Header, HeaderCollector};
use crate::smtp::mail_data::{ContentChecker, DotScanner, Fault as NewlineFault};
use crate::smtp::newline::Normalizer;
use crate::transfer::{Form, Transfer};
use crate::upstream::{Fault, Stopped, Transaction};

/// The octets of a message that are held in memory before its route is chosen.
pub(super) const HELD: usize = 256 * 1_024;

/// Where the message goes.
pub(super) enum Route {
    /// Not chosen yet: the header is incomplete, or little has come.
    Undecided,
    /// To the upstream.
    Upstream(Transfer),
    /// To the quarantine.
    Quarantine(Box<Parked>),
    /// To be chosen again: the quarantine did not take all of it.
    Stranded(Box<Stranded>),
    /// Nowhere: the message has failed.
    Nowhere(Delivery),
}

/// A message on its way into the quarantine.
pub(super) struct Parked {
    /// The file being written.
    pub(super) parking: Parking,
    /// What the client will be told.
    pub(super) order: ParkOrder,
    /// The fields put in front at each transfer.
    pub(super) trace: String,
    /// The changes made at each transfer.
    pub(super) treatment: Treatment,
}

impl Parked {
    /// Whether it goes upstream at once if it cannot be parked.
    pub(super) fn is_delayed(&self) -> bool {
        self.order.reason == ParkReason::Probation
    }
}

/// A message that the quarantine did not take.
pub(super) struct Stranded {
    /// What the quarantine had of it, as it arrived.
    content: Salvaged,
    /// Body octets that have come since, with newlines mended.
    since: Vec<u8>,
}

/// How malformed newlines are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newlines {
    /// The message is refused.
    Strict,
    /// A bare LF counts as CRLF.
    Normalized,
    /// All octets are allowed: BODY=BINARYMIME.
    Binary,
}

/// The limits of a message, and how it is read.
#[derive(Debug)]
pub(super) struct Bounds {
    /// The most octets of the message.
    pub(super) size: u64,
    /// The most octets of its header section.
    pub(super) header: usize,
    /// How its newlines are treated.
    pub(super) newlines: Newlines,
    /// The memory it may take until its route is chosen.
    pub(super) loan: Loan,
    /// How fast it must come.
    pub(super) pace: Pace,
}

/// How the end of the message is recognised.
enum Framing {
    /// DATA: by the terminator.
    Dots(DotScanner),
    /// BDAT: by the last chunk.
    Chunks(ContentChecker),
    /// BDAT with binary content.
    BinaryChunks,
}

/// The header section.
enum Head {
    Collecting(HeaderCollector),
    Complete(Header),
}

/// A message being received.
pub(super) struct Incoming {
    framing: Framing,
    head: Option<Head>,
    /// Body octets not yet routed.
    held: Vec<u8>,
    /// Present if newlines are mended.
    normalizer: Option<Normalizer>,
    /// All octets as they arrived, while the route is not chosen and newlines are mended.
    raw: Vec<u8>,
    size: u64,
    max_size: u64,
    loan: Loan,
    /// Whether there is no memory for more of it.
    crowded: bool,
    /// How fast it comes.
    pub pace: Pace,
    /// Where it goes.
    pub route: Route,
    /// Whether it was to be delayed but the quarantine did not take it.
    pub at_once: bool,
    /// Why it failed, for the log.
    pub trouble: Option<String>,
}

impl Incoming {
    /// Starts a message that follows DATA.
    pub(super) fn by_data(bounds: Bounds) -> Self {
        let scanner = match bounds.newlines {
            Newlines::Normalized => DotScanner::tolerating_bare_lf(),
            Newlines::Strict | Newlines::Binary => DotScanner::new(),
        };
        Self::new(Framing::Dots(scanner), bounds)
    }

    /// Starts a message that follows BDAT.
    pub(super) fn by_chunks(bounds: Bounds) -> Self {
        let framing = match bounds.newlines {
            Newlines::Strict => Framing::Chunks(ContentChecker::default()),
            Newlines::Normalized => Framing::Chunks(ContentChecker::tolerating_bare_lf()),
            Newlines::Binary => Framing::BinaryChunks,
        };
        Self::new(framing, bounds)
    }

    fn new(framing: Framing, bounds: Bounds) -> Self {
        let head = Some(Head::Collecting(HeaderCollector::new(bounds.header)));
        Self {
            framing,
            head,
            held: Vec::new(),
            normalizer: (bounds.newlines == Newlines::Normalized).then(Normalizer::default),
            raw: Vec::new(),
            size: 0,
            max_size: bounds.size,
            loan: bounds.loan,
            crowded: false,
            pace: bounds.pace,
            route: Route::Undecided,
            at_once: false,
            trouble: None,
        }
    }

    /// The octets received so far, as they arrived.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the header section once it is complete.
    pub(super) fn header(&self) -> Option<&Header> {
        match &self.head {
            Some(Head::Complete(header)) => Some(header),
            _ => None,
        }
    }

    /// Takes octets that follow DATA; returns how many it used, and whether the message has ended.
    pub(super) async fn take_data(
        &mut self,
        input: &[u8],
        upstream: Option<&mut Transaction>,
    ) -> (usize, bool) {
        let Framing::Dots(scanner) = &mut self.framing else { return (0, true) };
        let scan = scanner.scan(input);
        let mut upstream = upstream;
        if scanner.fault().is_some() {
            // Octets around the fault are held back as well: an upstream may take them for an end of data.
            self.give_up_early(upstream);
            return (scan.consumed, scan.ended);
        }
        for content in scan.content(input) {
            self.take(content, upstream.as_deref_mut()).await;
        }
        self.give_up_early(upstream);
        (scan.consumed, scan.ended)
    }

    /// Takes octets of a chunk.
    pub(super) async fn take_chunk(&mut self, content: &[u8], mut upstream: Option<&mut Transaction>) {
        if let Framing::Chunks(checker) = &mut self.framing {
            checker.check(content);
            if checker.fault().is_some() {
                // As above. The reply comes with the last chunk; the upstream connection is not kept until then.
                return self.abort(upstream);
            }
        }
        self.take(content, upstream.as_deref_mut()).await;
        self.give_up_early(upstream);
    }

    /// Frees the upstream connection of a failed message while its client goes on.
    fn give_up_early(&mut self, upstream: Option<&mut Transaction>) {
        // In chunks, a CR at the end may still get its LF.
        if matches!(self.framing, Framing::Dots(_)) && self.fault().is_some() {
            self.fail(Delivery::BadNewline);
        }
        if matches!(self.route, Route::Nowhere(_)) {
            self.abort(upstream);
        }
    }

    /// Whether its route is not chosen yet, or must be chosen again.
    pub(super) fn is_undecided(&self) -> bool {
        matches!(self.route, Route::Undecided | Route::Stranded(_))
    }

    /// Whether the route must be chosen now: enough has come, memory is short, or the quarantine did not take the
    /// message.
    pub(super) fn needs_route(&self) -> bool {
        let overflows = self.header().is_some() && (self.crowded || self.held.len() >= HELD);
        matches!(self.route, Route::Stranded(_)) || (self.is_undecided() && overflows)
    }

    /// Notes that the message has come completely: the header ends here at the latest, and a faulty newline fails the
    /// message.
    pub(super) fn end(&mut self) {
        if let Some(Head::Collecting(collector)) =
            self.head.take_if(|head| matches!(head, Head::Collecting(_)))
        {
            self.head = Some(Head::Complete(collector.finish()));
        }
        if self.fault().is_some() {
            self.fail(Delivery::BadNewline);
        }
    }

    /// Returns the fault because of which it is never relayed.
    pub(super) fn fault(&self) -> Option<NewlineFault> {
        match &self.framing {
            Framing::Dots(scanner) => scanner.fault(),
            Framing::Chunks(checker) => checker.finish(),
            Framing::BinaryChunks => None,
        }
    }

    /// Fails the message; the first reason is kept.
    pub(super) fn fail(&mut self, delivery: Delivery) {
        self.held = Vec::new();
        self.raw = Vec::new();
        self.head.take_if(|head| matches!(head, Head::Collecting(_)));
        if !matches!(self.route, Route::Nowhere(_)) {
            self.route = Route::Nowhere(delivery);
        }
        self.settle_loan();
    }

    /// Begins mail data upstream, without sending any of the message yet.
    pub(super) async fn begin(&mut self, upstream: &mut Transaction) {
        if let Err(stop) = self.form().begin(upstream).await {
            self.stop(stop);
        }
    }

    /// Undoes [`Self::begin`]; the upstream never sees an end of data.
    pub(super) fn abort(&mut self, upstream: Option<&mut Transaction>) {
        if let Some(upstream) = upstream
            && upstream.is_in_content()
        {
            upstream.abort_data();
        }
    }

    fn form(&self) -> Form {
        if matches!(self.framing, Framing::BinaryChunks) { Form::Binary } else { Form::Lines }
    }

    /// Routes the message upstream, with `trace` in front: sends what has come; the rest follows as it comes.
    pub(super) async fn relay(&mut self, upstream: &mut Transaction, treatment: Treatment, trace: &str) {
        let Some(header) = self.header() else { return self.fail(Delivery::BadNewline) };
        let transfer = Transfer::new(self.form(), treatment, trace, header);
        self.raw = Vec::new();
        match std::mem::replace(&mut self.route, Route::Upstream(transfer)) {
            Route::Stranded(stranded) => rare(self.forward_stranded(*stranded, upstream)).await,
            _ => {
                let held = std::mem::take(&mut self.held);
                if !held.is_empty() {
                    self.forward(&[], &held, Some(upstream)).await;
                }
            }
        }
        self.settle_loan();
    }

    /// Sends upstream what the quarantine had of it, without the header, and what has come since.
    async fn forward_stranded(&mut self, stranded: Stranded, upstream: &mut Transaction) {
        let Stranded { mut content, since } = stranded;
        // What the quarantine had is as it arrived: its newlines are mended again.
        let mut normalizer = self.normalizer.is_some().then(Normalizer::default);
        let mut header = self.header().map_or(0, |header| header.as_bytes().len());
        loop {
            let mut piece = match content.next().await {
                Ok(piece) => piece,
                Err(error) => {
                    self.trouble = Some(error.to_string());
                    return self.fail(Delivery::Unreadable);
                }
            };
            if piece.is_empty() {
                break;
            }
            if let Some(normalizer) = &mut normalizer {
                let raw = std::mem::take(&mut piece);
                normalizer.push(&raw, &mut piece);
            }
            let passed = header.min(piece.len());
            header -= passed;
            let body = piece.get(passed..).unwrap_or_default();
            self.forward(&[], body, Some(&mut *upstream)).await;
            if matches!(self.route, Route::Nowhere(_)) {
                return;
            }
        }
        self.forward(&[], &since, Some(upstream)).await;
    }

    /// Routes the message into the quarantine, as it arrives: writes what has come; the rest follows as it comes.
    pub(super) async fn park(
        &mut self,
        begun: Result<Parking, ParkError>,
        order: ParkOrder,
        treatment: Treatment,
        trace: String,
    ) {
        let parking = match begun {
            Ok(mut parking) => {
                let came = match self.normalizer {
                    Some(_) => [&self.raw[..], &[]],
                    None => [self.header().map_or(&[][..], Header::as_bytes), &self.held[..]],
                };
                let written = async {
                    for piece in came.iter().filter(|piece| !piece.is_empty()) {
                        parking.write(piece).await?;
                    }
                    Ok(())
                };
                written.await.map(|()| parking)
            }
            Err(error) => Err(error),
        };
        match parking {
            Ok(parking) => {
                (self.raw, self.held) = (Vec::new(), Vec::new());
                self.route = Route::Quarantine(Box::new(Parked { parking, order, trace, treatment }));
            }
            // All of it is still held, and its route is chosen again.
            Err(error) if order.reason == ParkReason::Probation => self.hurry(&error),
            Err(error) => self.not_parked(order.reason, &error),
        }
        self.settle_parking().await;
    }

    /// Adjusts the loan to what is held; if there is not enough memory, what the quarantine has of the message goes to
    /// disk earlier.
    async fn settle_parking(&mut self) {
        if self.settle_loan() {
            return;
        }
        if let Route::Quarantine(parked) = &mut self.route {
            parked.parking.spill().await;
            self.settle_loan();
        }
    }

    /// Adjusts the loan to what is held; `false` if there is not enough memory.
    fn settle_loan(&mut self) -> bool {
        let header = match &self.head {
            Some(Head::Collecting(collector)) => collector.len(),
            Some(Head::Complete(header)) => header.as_bytes().len(),
            None => 0,
        };
        let parking = match &self.route {
            Route::Quarantine(parked) => parked.parking.held(),
            _ => 0,
        };
        self.loan.fit(header + self.held.len() + self.raw.len() + parking)
    }

    /// Takes the message back from the quarantine, which did not take all of it.
    pub(super) fn strand(&mut self, error: &ParkError, content: Result<Salvaged, ParkError>) {
        self.hurry(error);
        match content {
            Ok(content) => self.route = Route::Stranded(Box::new(Stranded { content, since: Vec::new() })),
            Err(lost) => {
                self.trouble = Some(format!("{error}; {lost}"));
                self.fail(Delivery::Unreadable);
            }
        }
    }

    /// Ends its delay.
    fn hurry(&mut self, error: &ParkError) {
        self.at_once = true;
        self.trouble = Some(error.to_string());
    }

    fn stop(&mut self, stop: Stopped) {
        self.trouble = Some(cause(&stop));
        self.fail(stopped(stop));
    }

    fn not_parked(&mut self, reason: ParkReason, error: &ParkError) {
        self.trouble = Some(error.to_string());
        self.fail(Delivery::QuarantineFull(reason));
    }

    async fn take(&mut self, content: &[u8], upstream: Option<&mut Transaction>) {
        self.keep_or_forward(content, upstream).await;
        if matches!(self.route, Route::Undecided) && !self.settle_loan() {
            self.crowded = true;
            if self.header().is_none() {
                // Without its header no route can be chosen.
                self.fail(Delivery::NoMemory);
            }
        }
    }

    async fn keep_or_forward(&mut self, content: &[u8], upstream: Option<&mut Transaction>) {
        self.size = self.size.saturating_add(content.len() as u64);
        if matches!(self.route, Route::Nowhere(_)) {
            return;
        }
        if self.size > self.max_size {
            return self.fail(Delivery::TooBig);
        }
        let mut mended = Vec::new();
        let raw = content;
        let content = match &mut self.normalizer {
            Some(normalizer) => {
                normalizer.push(raw, &mut mended);
                if matches!(self.route, Route::Undecided) {
                    self.raw.extend_from_slice(raw);
                }
                &mended
            }
            None => raw,
        };
        let body = match &mut self.head {
            Some(Head::Collecting(collector)) => match collector.push(content) {
                Collected::More => return,
                Collected::TooLong => return self.fail(Delivery::TooBig),
                Collected::Complete { taken } => {
                    if let Some(Head::Collecting(collector)) = self.head.take() {
                        self.head = Some(Head::Complete(collector.finish()));
                    }
                    content.get(taken..).unwrap_or_default()
                }
            },
            _ => content,
        };
        if matches!(self.route, Route::Undecided) {
            self.held.extend_from_slice(body);
        } else {
            self.forward(raw, body, upstream).await;
        }
    }

    /// Passes octets on: `raw` to the quarantine, `body` upstream.
    async fn forward(&mut self, raw: &[u8], body: &[u8], upstream: Option<&mut Transaction>) {
        match (&mut self.route, upstream) {
            (Route::Upstream(transfer), Some(upstream)) => {
                if let Err(stop) = transfer.push(upstream, body).await {
                    self.stop(stop);
                }
            }
            (Route::Quarantine(parked), _) => {
                let Err(error) = parked.parking.write(raw).await else { return self.settle_parking().await };
                let (delayed, reason) = (parked.is_delayed(), parked.order.reason);
                match std::mem::replace(&mut self.route, Route::Undecided) {
                    Route::Quarantine(parked) if delayed => self.strand(&error, parked.parking.salvage()),
                    _ => self.not_parked(reason, &error),
                }
                self.keep(body);
            }
            (Route::Stranded(_), _) => self.keep(body),
            _ => {}
        }
    }

    /// Keeps body octets until a stranded message has its new route.
    fn keep(&mut self, body: &[u8]) {
        if let Route::Stranded(stranded) = &mut self.route {
            stranded.since.extend_from_slice(body);
        }
    }
}

/// Says for the log why a transfer stopped.
pub(super) fn cause(stop: &Stopped) -> String {
    match stop {
        Stopped::Refused(reply) => reply.to_string(),
        Stopped::Fault(fault) => fault.to_string(),
    }
}

/// Converts a stopped transfer to what the session knows of it.
pub(super) fn stopped(stopped: Stopped) -> Delivery {
    match stopped {
        Stopped::Refused(reply) => Delivery::Replied(reply),
        Stopped::Fault(fault) => Delivery::Fault(upstream_fault(&fault)),
    }
}

/// Converts an upstream fault to what the session knows of it.
pub(super) fn upstream_fault(fault: &Fault) -> UpstreamFault {
    match fault {
        Fault::Unavailable(_) | Fault::Silent(_) | Fault::NotRepeated(_) => UpstreamFault::Unavailable,
        Fault::Starved(_) => UpstreamFault::Starved,
        Fault::Busy(_) => UpstreamFault::Busy,
        Fault::Protocol(_) | Fault::MissingExtension(_) => UpstreamFault::Protocol,
        Fault::Ambiguous(_) => UpstreamFault::Ambiguous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::quarantine::spool::{Limits, Spool};
    use crate::smtp::Reply;
    use crate::submission::buffers::{Buffers, OWN};

    /// What the quarantine holds of a message in memory is borrowed like all else, and goes to disk if nothing is lent.
    #[tokio::test]
    async fn a_message_being_parked_borrows_its_memory() {
        let home = tempfile::tempdir().unwrap();
        let limits = Limits { max_size: 1 << 40, max_size_per_account: 1 << 40, expire_after: None };
        let spool = Spool::open(home.path(), limits).await.unwrap();
        for (lent, expected) in [(0, 0..=OWN), (1 << 20, OWN + 1..=66_000)] {
            let mut incoming = Incoming::by_chunks(Bounds {
                size: 1 << 30,
                header: 10_000,
                newlines: Newlines::Strict,
                loan: Buffers::new(lent).loan(),
                pace: Pace::new(0),
            });
            incoming.take_chunk(b"Subject: short\r\n\r\n", None).await;
            let told = Reply { code: 250, enhanced: None, text: "Ok".into() };
            let order = ParkOrder { told, told_queue_id: None, reason: ParkReason::Blocked };
            let begun = spool.begin(&"anna".parse().unwrap(), Timestamp::from_millis(1)).await;
            incoming.park(begun, order, Treatment::default(), String::new()).await;
            let mut most = 0;
            for _ in 0..20 {
                incoming.take_chunk(&[b"x".repeat(7_998), b"\r\n".to_vec()].concat(), None).await;
                let Route::Quarantine(parked) = &incoming.route else { panic!("{:?}", incoming.trouble) };
                most = most.max(parked.parking.held() + incoming.header().unwrap().as_bytes().len());
            }
            assert!(expected.contains(&most), "{most} octets, {lent} are lent");
        }
    }
}
