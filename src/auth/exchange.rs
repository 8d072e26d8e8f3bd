//! One SASL exchange. rsasl's step is pure CPU and runs inline; what it has to wait for is awaited between steps.

use super::SaslStep;

/// One SASL exchange, from AUTH to 235 or 535.
pub struct Exchange {
    // helper F
}

impl Exchange {
    /// Takes the initial response (`None`: there was none) or the response to the last challenge, decoded from base64.
    pub async fn step(&mut self, _response: Option<&[u8]>) -> SaslStep {
        todo!()
    }
}
