//! Editing the users file
