//! Mail of our own that waits for the upstream: one file each, durable, retried, over restarts.
