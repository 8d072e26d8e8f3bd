//! A time limit for waits that follow each other closely, with one timer.
//!
//! Registering a timer for each wait and cancelling it a moment later costs more than most of these waits. This timer
//! stays registered as long as it would not fire too late; if it fires too early, it is moved.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// Limits one wait at a time. It holds no timer until the first wait.
#[derive(Debug, Default)]
pub struct TimeLimit {
    timer: Option<Pin<Box<Sleep>>>,
}

impl TimeLimit {
    /// Resolves to the output of `waiting`, or `None` if that is not ready by `deadline`.
    pub fn until<F: Future>(&mut self, deadline: Instant, waiting: F) -> Limited<'_, F> {
        Limited { end: End::At(deadline), timer: &mut self.timer, waiting }
    }

    /// Resolves to the output of `waiting`, or `None` if that is not ready within `limit`. A future that is ready at
    /// once costs no look at the clock.
    pub fn within<F: Future>(&mut self, limit: Duration, waiting: F) -> Limited<'_, F> {
        Limited { end: End::After(limit), timer: &mut self.timer, waiting }
    }

    /// Releases the timer, when no wait follows for a while.
    pub fn rest(&mut self) {
        self.timer = None;
    }
}

#[derive(Debug, Clone, Copy)]
enum End {
    At(Instant),
    /// Counted from the first poll.
    After(Duration),
}

pin_project! {
    /// A wait with a limit.
    #[must_use = "futures do nothing unless awaited"]
    pub struct Limited<'a, F> {
        end: End,
        timer: &'a mut Option<Pin<Box<Sleep>>>,
        #[pin]
        waiting: F,
    }
}

impl<F: Future> Future for Limited<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.waiting.poll(cx) {
            Poll::Ready(came) => Poll::Ready(Some(came)),
            Poll::Pending => this.end.poll(this.timer, cx).map(|()| None),
        }
    }
}

impl End {
    /// Waits for it with `timer`.
    #[inline(never)] // see "The code of a message" in docs/performance.md
    fn poll(&mut self, timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = match *self {
            Self::At(deadline) => deadline,
            Self::After(limit) => Instant::now() + limit,
        };
        *self = Self::At(deadline);
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            // `unconstrained`: the timer fires even if the wait itself has used up the task's budget.
            ready!(pin!(unconstrained(timer.as_mut())).poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn each_wait_ends_when_it_should() {
        const SHORT: Duration = Duration::from_millis(20);
        const HOUR: Duration = Duration::from_secs(3_600);
        let mut limit = TimeLimit::default();
        let began = Instant::now();
        assert_eq!(limit.within(HOUR, sleep(SHORT)).await, Some(()));
        // Its timer is an hour ahead, then long past, then a little too early.
        for (times, rest) in [(1, false), (1, false), (3, false), (1, true)] {
            let began = Instant::now();
            assert_eq!(limit.within(SHORT * times, pending::<()>()).await, None);
            assert!(began.elapsed() >= SHORT * times, "{:?}", began.elapsed());
            assert_eq!(limit.within(HOUR, sleep(SHORT)).await, Some(()), "the one before is over");
            assert_eq!(limit.within(SHORT * 2, async { 1 }).await, Some(1), "what is there needs no time");
            if rest {
                limit.rest();
            }
        }
        let deadline = Instant::now() + SHORT;
        assert_eq!(limit.until(deadline, pending::<()>()).await, None);
        assert!(Instant::now() >= deadline);
        assert_eq!(limit.until(deadline, pending::<()>()).await, None, "it has passed already");
        assert_eq!(limit.until(deadline, async { 1 }).await, Some(1));
        assert!(began.elapsed() < HOUR);
    }

    /// A timer left behind by a shorter wait does not end a longer one.
    #[tokio::test]
    async fn one_that_goes_off_too_early_is_moved() {
        const SHORT: Duration = Duration::from_millis(20);
        let mut limit = TimeLimit::default();
        assert_eq!(limit.within(SHORT, sleep(Duration::ZERO)).await, Some(()));
        let began = Instant::now();
        assert_eq!(limit.within(SHORT * 4, pending::<()>()).await, None);
        assert!(began.elapsed() >= SHORT * 4, "{:?}", began.elapsed());
        let long = SHORT * 500;
        assert_eq!(limit.within(long, sleep(SHORT * 2)).await, Some(()));
    }
}
