//! A program that takes events: a few lines of HTTP on loopback, which answers as it is told and keeps what came.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use super::PATIENCE;

/// A secret as it stands in the file.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// One POST.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) first_line: String,
    /// By name, in small letters.
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Post {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    /// What a receiver that follows Standard Webhooks would check.
    pub(crate) fn expect_signed(&self) {
        self.expect_signed_with(SECRET);
    }

    /// By the secret as it stands in the file.
    pub(crate) fn expect_signed_with(&self, secret: &str) {
        let field =
            |name: &str| self.fields.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).as_str();
        let key = STANDARD.decode(&secret["whsec_".len()..]).unwrap();
        let mac = Hmac::<Sha256>::new_from_slice(&key)
            .unwrap()
            .chain_update(format!("{}.{}.", field("webhook-id"), field("webhook-timestamp")))
            .chain_update(&self.body);
        assert_eq!(
            field("webhook-signature"),
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        );
        assert!(field("webhook-timestamp").parse::<u64>().is_ok_and(|seconds| seconds > 1_700_000_000));
        assert_eq!(field("content-type"), "application/json");
        assert!(self.first_line.starts_with("POST "), "{}", self.first_line);
    }
}

#[derive(Default)]
struct Record {
    posts: Vec<Post>,
    /// What the next ones are answered; then 204.
    answers: VecDeque<String>,
}

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    record: Arc<(Mutex<Record>, Condvar)>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), record: Arc::default() };
        let record = Arc::clone(&receiver.record);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                drop(answer(&stream, &record));
            }
        });
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    /// The next requests are answered so: a status line and fields.
    pub(crate) fn answer_next(&self, answers: &[&str]) {
        self.record.0.lock().unwrap().answers.extend(answers.iter().map(|&answer| answer.to_owned()));
    }

    /// Waits until so many have come.
    pub(crate) fn expect(&self, count: usize) -> Vec<Post> {
        let (record, came) = &*self.record;
        let (record, late) = came
            .wait_timeout_while(record.lock().unwrap(), PATIENCE, |record| record.posts.len() < count)
            .unwrap();
        assert!(
            !late.timed_out(),
            "{count} events did not come, {} did: {:?}",
            record.posts.len(),
            record.posts
        );
        record.posts.clone()
    }
}

fn answer(stream: &TcpStream, record: &(Mutex<Record>, Condvar)) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut line = || -> std::io::Result<String> {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    let first_line = line()?;
    if first_line.is_empty() {
        return Ok(()); // a connection that came to nothing
    }
    let mut fields = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(": ") {
        fields.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = fields.get("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut kept = record.0.lock().unwrap();
    let answer = kept.answers.pop_front().unwrap_or_else(|| "204 No Content".to_owned());
    kept.posts.push(Post { first_line, fields, body });
    record.1.notify_all();
    drop(kept);
    let mut stream = stream;
    stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes())
}
