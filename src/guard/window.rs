//! The exact sliding window of one account's counted attempts: pure, time is an argument.
//!
//! Holds at most `limit` attempts, so memory and disk per account are bounded. A clock that steps backwards does no
//! harm: an attempt that lies in the future is taken to be of now.
