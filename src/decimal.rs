//! Numbers in decimal digits, without the machinery of `std::fmt`.
//!
//! A dozen or more are written for each message, in replies, header fields and the log, and `std::fmt` takes some
//! hundred instructions for each.

use std::net::Ipv4Addr;

/// The most digits of a `u64`.
const MOST: usize = 20;

/// The digits of a number.
#[derive(Debug, Clone, Copy)]
pub struct Digits {
    digits: [u8; MOST],
    begin: usize,
}

impl Digits {
    /// The shortest form; `0` for zero.
    pub fn of(number: u64) -> Self {
        Self::padded(number, 1)
    }

    /// At least `width` digits, with leading zeros.
    pub fn padded(number: u64, width: usize) -> Self {
        let mut digits = [b'0'; MOST];
        let mut begin = MOST;
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            if rest == 0 {
                break;
            }
            *digit += u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
            begin -= 1;
        }
        Self { digits, begin: begin.min(MOST.saturating_sub(width)) }
    }

    /// The digits as octets.
    pub fn as_bytes(&self) -> &[u8] {
        self.digits.get(self.begin..).unwrap_or_default()
    }

    /// The digits as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// Appends an IPv4 address such as `192.0.2.1`.
pub fn push_ipv4(out: &mut String, address: Ipv4Addr) {
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push('.');
        }
        out.push_str(Digits::of(octet.into()).as_str());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_std_writes_them(number: u64, width in 0..24usize, address: u32) {
            let width = width.clamp(1, MOST);
            for number in [number, number >> 32, number >> 56, 0, u64::MAX] {
                let (plain, padded) = (number.to_string(), format!("{number:0width$}"));
                let (digits, wide) = (Digits::of(number), Digits::padded(number, width));
                prop_assert_eq!((digits.as_str(), wide.as_str()), (&*plain, &*padded));
            }
            let address = Ipv4Addr::from_bits(address);
            let mut out = String::new();
            push_ipv4(&mut out, address);
            prop_assert_eq!(out, address.to_string());
        }
    }
}
