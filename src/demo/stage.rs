//! Sets the stage: the practice MTA, a throw-away certificate, two accounts, and the real server in front of them.
//!
//! Everything listens on loopback, and every file is in one folder that is removed at the end.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;

use super::DemoError;
use super::cast::{self, ABUSE_DESK, ANNA, CARL, DOMAIN};
use super::client::{Access, Security};
use super::folder::Folder;
use super::practice::Practice;
use crate::auth::edit;
use crate::config::Config;
use crate::net::{self_signed, tls};
use crate::parts::Parts;
use crate::server::Server;

/// Gatepost's host name.
const HOSTNAME: &str = "gatepost.example.org";
/// How long the server may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that the story needs.
pub(super) struct Stage {
    pub(super) practice: Practice,
    pub(super) parts: Parts,
    /// The listener with STARTTLS, like port 587.
    pub(super) starttls: SocketAddr,
    /// The listener with implicit TLS, like port 465.
    pub(super) implicit: SocketAddr,
    /// Trusts the throw-away certificate, for the mail programs.
    pub(super) tls: Arc<rustls::ClientConfig>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    // Dropped last: the others have files open in it.
    folder: Folder,
}

impl Stage {
    /// Creates and starts everything.
    ///
    /// # Errors
    /// Something cannot be created or started.
    pub(super) async fn set() -> Result<Self, DemoError> {
        let folder = Folder::make().map_err(|error| DemoError::setup("its folder", &error))?;
        log_to(&folder.join(LOG)).map_err(|error| DemoError::setup("its log", &error))?;
        let practice = Practice::start(cast::directory())
            .await
            .map_err(|error| DemoError::setup("the practice MTA", &error))?;
        let config = write_files(&folder, practice.address()).await?;
        let server = Server::start(config).await.map_err(|error| DemoError::setup("Gatepost", &error))?;
        let addresses = server.addresses();
        let [starttls, implicit] = addresses[..] else {
            return Err(DemoError::setup("Gatepost", &"it has not bound both of its ports"));
        };
        let tls = tls::client_config(Some(&folder.join(CERTIFICATE)), None)
            .map_err(|error| DemoError::setup("TLS of the mail programs", &error))?;
        let parts = server.parts().clone();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(Box::pin(server.run(async move {
            // A dropped sender means the same.
            let _ = stopped.await;
        })));
        Ok(Self { practice, parts, starttls, implicit, tls, stop, served, folder })
    }

    /// Stops the server, then removes the folder.
    pub(super) async fn strike(self) {
        let _ = self.stop.send(());
        let _ = timeout(PATIENCE, self.served).await;
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.folder.join(CONFIG)
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join(CERTIFICATE)
    }

    /// Writes a message that the reader can send.
    pub(super) fn sample(&self) -> PathBuf {
        self.folder.join(SAMPLE)
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.join(LOG)
    }

    pub(super) fn access(&self, security: Security) -> Access {
        let address = match security {
            Security::StartTls => self.starttls,
            Security::Implicit => self.implicit,
        };
        Access { address, security, tls: Arc::clone(&self.tls) }
    }
}

const CONFIG: &str = "config.toml";
const CERTIFICATE: &str = "server.crt";
const PRIVATE_KEY: &str = "server.key";
const USERS: &str = "users";
const SAMPLE: &str = "mail.txt";
const LOG: &str = "gatepost.log";

/// Everything not set here has its default, in particular the limit of 100 in 1 h.
fn config_text(upstream: SocketAddr) -> String {
    format!(
        r#"hostname = "{HOSTNAME}"
data_dir = "data"

[[listen]]
address = "127.0.0.1:0"
tls = "starttls"
[[listen]]
address = "127.0.0.1:0"
tls = "implicit"

[tls]
certificate = "{CERTIFICATE}"
private_key = "{PRIVATE_KEY}"

[upstream]
address = "{upstream}"
domains = ["{DOMAIN}"]
canary = ["example.com"]

[auth]
users = "{USERS}"

[notify]
to = ["{ABUSE_DESK}"]

[session]
shutdown_timeout = "2s"
"#
    )
}

async fn write_files(folder: &Folder, upstream: SocketAddr) -> Result<Config, DemoError> {
    let text = config_text(upstream);
    let write = |name: &str, content: &str| {
        std::fs::write(folder.join(name), content).map_err(|error| DemoError::setup(name, &error))
    };
    write(CONFIG, &text)?;
    write(SAMPLE, "From: anna@example.org\r\nTo: bea@example.org\r\nSubject: By hand\r\n\r\nHello!\r\n")?;
    self_signed::ensure(&folder.join(CERTIFICATE), &folder.join(PRIVATE_KEY), HOSTNAME)
        .map_err(|error| DemoError::setup("a certificate", &error))?;
    let users = folder.join(USERS);
    let added = spawn_blocking(move || {
        [ANNA, CARL].iter().try_for_each(|person| edit::add(&users, person.name, person.password).map(drop))
    });
    added
        .await
        .map_err(|error| DemoError::setup("the users file", &error))?
        .map_err(|error| DemoError::setup("the users file", &error))?;
    Config::parse(&text, &folder.join(CONFIG), HOSTNAME).map_err(|error| DemoError::setup(CONFIG, &error))
}

/// Keeps the server's log out of the story. A log that is set up already stays.
fn log_to(path: &Path) -> std::io::Result<()> {
    let file = File::create(path)?;
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Arc::new(file))
        .with_ansi(false)
        .with_max_level(LevelFilter::INFO)
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_valid_and_keeps_the_default_limit() {
        let config =
            Config::parse(&config_text(([127, 0, 0, 1], 25).into()), Path::new("/x/config.toml"), "m")
                .unwrap();
        assert_eq!(config.policy.invalid_recipients, 100);
        assert_eq!(config.policy.period, Duration::from_secs(3_600));
        assert!(config.listen.iter().all(|listen| listen.address.ip().is_loopback()));
    }
}
