//! The abuse desk's mail: which account, how much, since when, from where, how to look, how to undo.
