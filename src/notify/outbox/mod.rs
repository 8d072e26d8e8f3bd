//! x
#[derive(Clone)]
pub struct Outbox {}
