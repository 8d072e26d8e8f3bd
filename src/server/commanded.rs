//! The control socket while the service runs, and its end: commands are accepted until the last session and the last
//! release have ended, and those under way are finished, whether or not anybody waits for their answers.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::control::socket::ControlSocket;
use crate::control::{Operations, routes};
use crate::maillog;

/// How long clients may still read answers and messages once no command is under way.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The tasks that serve the control socket.
pub(super) struct Commanded {
    tasks: JoinSet<()>,
    /// Tells them that no further command is to be accepted.
    draining: watch::Sender<bool>,
    operations: Operations,
}

impl Commanded {
    /// Serves the socket from now on.
    pub(super) fn start(control: ControlSocket, operations: Operations) -> Self {
        let (draining, is_draining) = watch::channel(false);
        let (answered, all_answered) = oneshot::channel();
        let mut tasks = JoinSet::new();
        // A task of its own: commands that nobody waits for any more are finished as well.
        let (finished, mut end) = (operations.clone(), is_draining.clone());
        tasks.spawn(async move {
            let _ = end.wait_for(|draining| *draining).await;
            finished.finish().await;
            let _ = answered.send(());
        });
        let (served, mut end) = (operations.clone(), is_draining);
        tasks.spawn(async move {
            let end = async move {
                let _ = end.wait_for(|draining| *draining).await;
            };
            // A reader that does not read must not hold up the end.
            let cut = async move {
                let _ = all_answered.await;
                sleep(LAST_ANSWERS).await;
            };
            tokio::select! {
                ended = routes::serve(control, served, end) => if let Err(error) = ended {
                    maillog::control_failed(&error.to_string());
                },
                () = cut => {}
            }
        });
        Self { tasks, draining, operations }
    }

    /// Accepts no further command, and waits until those under way are finished and their answers are read, or not read
    /// for [`LAST_ANSWERS`]. Cancel-safe: it can be called again.
    pub(super) async fn drain(&mut self) {
        self.draining.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends whatever has not ended.
    pub(super) async fn cut(mut self) {
        self.tasks.shutdown().await;
        // A command may have come as the last one ended.
        let _ = timeout(Duration::ZERO, self.operations.finish()).await;
    }
}
