//! What is rare stands apart from what every message runs.
//!
//! A message runs some 110 KiB of code, several times what a first-level cache holds, so the code that it has to fetch
//! costs more than what it computes ("The code of a message" in docs/performance.md). The compiler writes a future that is awaited
//! in one place into the code of its caller, between what is run each time.

use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that is seldom awaited: on the heap, so that its caller needs no room for it, and with code of its own.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Rare<F>(Pin<Box<F>>);

/// Makes it so. Cold: what leads here is not expected either.
#[cold]
#[inline(never)]
pub fn rare<F: Future>(future: F) -> Rare<F> {
    Rare(Box::pin(future))
}

impl<F: Future> Future for Rare<F> {
    type Output = F::Output;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_what_it_was() {
        let three = async {
            tokio::task::yield_now().await;
            3
        };
        assert_eq!(rare(three).await, 3);
    }
}
