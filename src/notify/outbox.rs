//! Mail of our own that waits for the upstream: one file each, durable, retried, over restarts.

/// Mail of our own that waits for the upstream. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {}
