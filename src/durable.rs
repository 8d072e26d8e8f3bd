//! Write, fsync, rename: the only place that makes a file durable.
//!
//! Blocking calls; async callers put them on a blocking thread. Every error names the path.
