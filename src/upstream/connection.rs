//! One connection to the upstream: TCP, TLS, greeting, EHLO, XCLIENT; commands out, replies in, each with its timeout.
