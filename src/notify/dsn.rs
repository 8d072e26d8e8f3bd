//! The DSN of a release whose recipients were refused for good (RFC 3464, multipart/report of RFC 6522).
