//! The HASH of a line of the users file: Dovecot's `{SCHEME}` prefixes and the bare `$...$` forms.
//!
//! An unknown scheme, or parameters that would tie up the server, make a hash unusable, which shuts out only its user.
//! A hash of a known scheme that does not parse is an error. No text made here contains a hash.

use std::str::FromStr as _;

use argon2::{Argon2, PasswordHash, PasswordVerifier as _};
use sha_crypt::ShaCrypt;

use super::verifier::Verifier;

/// The limits on the cost of one password check, so that a line of the users file cannot hang or exhaust the server: a
/// few seconds of one core, and 256 MiB. This one is for the iterations of SCRAM-SHA-256.
const MAX_ITERATIONS: u32 = 10_000_000;
/// Argon2id: memory in KiB. libsodium's "moderate" is exactly that.
const MAX_MEMORY: u32 = 256 * 1024;
/// Argon2id: memory in KiB times passes.
const MAX_MEMORY_PASSES: u64 = 4 * 1024 * 1024;
/// Argon2id: lanes.
const MAX_LANES: u32 = 16;
/// bcrypt: binary logarithm of the rounds.
const MAX_COST: u32 = 16;
/// SHA-crypt: rounds.
const MAX_ROUNDS: u32 = 1_000_000;

/// The known schemes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    ScramSha256,
    Argon2id,
    BlfCrypt,
    Sha512Crypt,
    Sha256Crypt,
}

const SCHEMES: [Scheme; 5] =
    [Scheme::ScramSha256, Scheme::Argon2id, Scheme::BlfCrypt, Scheme::Sha512Crypt, Scheme::Sha256Crypt];

/// What is known of a scheme.
struct About {
    /// Dovecot's name.
    name: &'static str,
    /// The beginnings of its crypt string.
    begins: &'static [&'static str],
}

/// Dovecot's name for any bare form that crypt(3) knows.
const CRYPT: &str = "CRYPT";

/// What follows a user's name in the file.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// A password can be checked against it.
    Usable(Hash),
    /// No password can be, for this reason.
    Unusable {
        /// The scheme as the line names it, or `unknown`; `None` if there is no hash.
        scheme: Option<String>,
        /// The reason, for people.
        why: String,
    },
}

/// A hash that a password can be checked against.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Hash {
    /// `{SCRAM-SHA-256}`
    Scram(Verifier),
    /// The well-formed `$...$` form of another scheme.
    Crypt(Scheme, Box<str>),
}

impl Secret {
    /// Parses the HASH of a line.
    ///
    /// # Errors
    /// The hash is broken; says what would be right.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Unusable { scheme: None, why: "the line has no hash".to_owned() });
        }
        let (scheme, rest) = if let Some(rest) = text.strip_prefix('{') {
            let (name, rest) =
                rest.split_once('}').ok_or("a `{` without its `}`; a hash begins with {SCHEME}")?;
            match SCHEMES.into_iter().find(|scheme| scheme.about().name.eq_ignore_ascii_case(name)) {
                Some(scheme) => (scheme, rest),
                // What `doveadm pw` writes by itself: a hash of crypt(3), whose beginning says which.
                None if name.eq_ignore_ascii_case(CRYPT) => match Scheme::of_bare(rest) {
                    Ok(scheme) => (scheme, rest),
                    // The oldest kind of crypt, DES, has no dollar signs.
                    Err(name) => return Ok(Self::unknown(Some(name.unwrap_or(CRYPT)))),
                },
                None => return Ok(Self::unknown(Some(name))),
            }
        } else {
            match Scheme::of_bare(text) {
                Ok(scheme) => (scheme, text),
                Err(name) => return Ok(Self::unknown(name)),
            }
        };
        let (hash, excess) = match scheme {
            Scheme::ScramSha256 => scram(rest)?,
            Scheme::Argon2id => argon2id(rest)?,
            Scheme::BlfCrypt => bcrypt(rest)?,
            Scheme::Sha512Crypt => sha_crypt(scheme, rest, &SHA512)?,
            Scheme::Sha256Crypt => sha_crypt(scheme, rest, &SHA256)?,
        };
        Ok(match excess {
            None => Self::Usable(hash),
            Some(why) => Self::Unusable { scheme: Some(scheme.about().name.to_owned()), why },
        })
    }

    fn unknown(name: Option<&str>) -> Self {
        let is_name = |name: &&str| {
            matches!(name.len(), 1..=32)
                && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet))
        };
        let scheme = name.filter(is_name).unwrap_or("unknown");
        let known = SCHEMES.map(|scheme| scheme.about().name);
        let why = format!("its scheme is not among {}", known.join(", "));
        Self::Unusable { scheme: Some(scheme.to_owned()), why }
    }

    /// The scheme as Dovecot names it.
    pub(super) fn scheme(&self) -> Option<&str> {
        match self {
            Self::Usable(hash) => Some(hash.scheme().about().name),
            Self::Unusable { scheme, .. } => scheme.as_deref(),
        }
    }
}

impl Scheme {
    const fn about(self) -> About {
        let (name, begins): (_, &[_]) = match self {
            Self::ScramSha256 => ("SCRAM-SHA-256", &[]),
            Self::Argon2id => ("ARGON2ID", &["$argon2id$"]),
            Self::BlfCrypt => ("BLF-CRYPT", &["$2y$", "$2b$", "$2a$"]),
            Self::Sha512Crypt => ("SHA512-CRYPT", &["$6$"]),
            Self::Sha256Crypt => ("SHA256-CRYPT", &["$5$"]),
        };
        About { name, begins }
    }

    /// The scheme of a bare `$...$` form. If it is not known: its name, or `None` if the text names none.
    fn of_bare(text: &str) -> Result<Self, Option<&str>> {
        // `$1$salt$hash`: the scheme is named between the first two dollar signs.
        let named = || {
            let (name, _) = text.strip_prefix('$')?.split_once('$')?;
            Some(name).filter(|name| !name.is_empty())
        };
        SCHEMES.into_iter().find(|scheme| scheme.begins(text)).ok_or_else(named)
    }

    /// Whether the text is this scheme's `$...$` form.
    fn begins(self, text: &str) -> bool {
        self.about().begins.iter().any(|begin| text.starts_with(begin))
    }
}

impl Hash {
    pub(super) fn scheme(&self) -> Scheme {
        match self {
            Self::Scram(_) => Scheme::ScramSha256,
            Self::Crypt(scheme, _) => *scheme,
        }
    }

    /// Everything that the time of a check depends on: scheme, parameters, and for SCRAM the length of the salt, which
    /// is visible.
    pub(super) fn cost(&self) -> String {
        match self {
            Self::Scram(verifier) => format!("SCRAM {} {}", verifier.iterations, verifier.salt.len()),
            // `$2y$12$` and 53 characters of salt and digest.
            Self::Crypt(Scheme::BlfCrypt, text) => text.chars().take(7).collect(),
            // `...$SALT$DIGEST`
            Self::Crypt(_, text) => text.rsplitn(3, '$').nth(2).unwrap_or_default().to_owned(),
        }
    }

    /// Whether this is the hash of `password`. Deliberately slow: call it on a blocking thread.
    pub(super) fn matches(&self, password: &[u8]) -> bool {
        match self {
            Self::Scram(verifier) => verifier.matches(password),
            Self::Crypt(Scheme::Argon2id, text) => {
                Argon2::default().verify_password(password, &**text).is_ok()
            }
            Self::Crypt(Scheme::BlfCrypt, text) => bcrypt::verify(password, text).unwrap_or(false),
            Self::Crypt(_, text) => ShaCrypt::default().verify_password(password, &**text).is_ok(),
        }
    }
}

/// A hash and, if it is too costly, why.
type Read = Result<(Hash, Option<String>), String>;

fn scram(text: &str) -> Read {
    let verifier = Verifier::parse(text)?;
    let excess = (verifier.iterations > MAX_ITERATIONS)
        .then(|| format!("{} iterations are more than {MAX_ITERATIONS}", verifier.iterations));
    Ok((Hash::Scram(verifier), excess))
}

fn argon2id(text: &str) -> Read {
    let wrong = || "a hash of ARGON2ID is `$argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH`".to_owned();
    let hash = PasswordHash::new(text).map_err(|_| wrong())?;
    let params = argon2::Params::try_from(&hash).map_err(|_| wrong())?;
    let whole =
        hash.hash.is_some() && hash.salt.as_ref().is_some_and(|salt| salt.len() >= argon2::MIN_SALT_LEN);
    if hash.algorithm.as_str() != "argon2id" || !matches!(hash.version, None | Some(0x10 | 0x13)) || !whole {
        return Err(wrong());
    }
    let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    let costly =
        memory > MAX_MEMORY || lanes > MAX_LANES || u64::from(memory) * u64::from(passes) > MAX_MEMORY_PASSES;
    let excess = costly.then(|| {
        format!(
            "m={memory},t={passes},p={lanes} is too costly: at most m={MAX_MEMORY}, p={MAX_LANES}, m times t = {MAX_MEMORY_PASSES}"
        )
    });
    Ok((Hash::Crypt(Scheme::Argon2id, text.into()), excess))
}

fn bcrypt(text: &str) -> Read {
    let wrong = || {
        "a hash of BLF-CRYPT is `$2y$COST$` (or $2b$, $2a$), COST from 04 to 31, and 53 characters of salt and digest".to_owned()
    };
    let parts = bcrypt::HashParts::from_str(text).map_err(|_| wrong())?;
    if !Scheme::BlfCrypt.begins(text) || !(4..=31).contains(&parts.get_cost()) {
        return Err(wrong());
    }
    let excess =
        (parts.get_cost() > MAX_COST).then(|| format!("cost {} is more than {MAX_COST}", parts.get_cost()));
    Ok((Hash::Crypt(Scheme::BlfCrypt, text.into()), excess))
}

/// What the two kinds of SHA-crypt differ in.
struct ShaForm {
    prefix: &'static str,
    /// The length of the digest, in characters.
    length: usize,
    /// The possible last characters: they hold the remaining bits, 4 and 2.
    last: &'static str,
}

const SHA256: ShaForm = ShaForm { prefix: "$5$", length: 43, last: "./0123456789ABCD" };
const SHA512: ShaForm = ShaForm { prefix: "$6$", length: 86, last: "./01" };

/// <https://www.akkadia.org/drepper/SHA-crypt.txt>
fn sha_crypt(scheme: Scheme, text: &str, form: &ShaForm) -> Read {
    let ShaForm { prefix, length, last } = *form;
    let name = scheme.about().name;
    let wrong = || {
        format!(
            "a hash of {name} is `{prefix}SALT$HASH` or `{prefix}rounds=NUMBER$SALT$HASH`, HASH of {length} characters"
        )
    };
    let mut rest = text.strip_prefix(prefix).ok_or_else(wrong)?;
    let mut rounds = sha_crypt::Params::RECOMMENDED_ROUNDS;
    if let Some((number, behind)) = rest.strip_prefix("rounds=").and_then(|rest| rest.split_once('$')) {
        let valid = number.bytes().all(|octet| octet.is_ascii_digit());
        let parsed = number.parse().ok().filter(|rounds| valid && sha_crypt::Params::new(*rounds).is_ok());
        rounds = parsed.ok_or_else(|| format!("the rounds of {name} are 1000 to 999999999"))?;
        rest = behind;
    }
    let (salt, digest) = rest.split_once('$').ok_or_else(wrong)?;
    let alphabet =
        |text: &str| text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"./".contains(&octet));
    let salted = (1..=16).contains(&salt.len()) && alphabet(salt);
    if !salted || digest.len() != length || !alphabet(digest) || !digest.ends_with(|end| last.contains(end)) {
        return Err(wrong());
    }
    let excess = (rounds > MAX_ROUNDS).then(|| format!("{rounds} rounds are more than {MAX_ROUNDS}"));
    Ok((Hash::Crypt(scheme, text.into()), excess))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by Dovecot 2.3.19 (`doveadm pw -s SCHEME -p PASSWORD`).
    const VECTORS: &[(&str, &str)] = &[
        (
            "correct horse",
            "{SCRAM-SHA-256}4096,BTObTyn3847hjgwpF6xmpg==,hICkXYOhkZAjOWibsPoUGumQEKoIPoFdrCXC53tcLaw=,wm74XKUVBf/JUfbA0NoS+gD5UcZLm6fele6BCJrEq08=",
        ),
        (
            "correct horse",
            "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$GSyPristXoef3i/XB2E7KA$4R4J+tq59OXL7D3p3ECKzh8PO0bLXT7AnXj3YYLX7vU",
        ),
        ("correct horse", "{BLF-CRYPT}$2y$05$IhegxnBPH6c86e4370LNzu44XcMbqs7CPNVRfe3a8Dg9Iw9AcIbNO"),
        (
            "correct horse",
            "{SHA512-CRYPT}$6$m07vnAVRxca1uPr/$lYdbWfIWJAnkAh/X4TiSEo2F.5ezXOu7HcRRFaTSuqdVOfjv07VA5pFDGlR2kFTzLAGn5IiPD035QxVUKPMFA.",
        ),
        ("correct horse", "{SHA256-CRYPT}$5$4sp6L1kB/3848sxR$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT99"),
        // -r 10000, -r 1000, -r 10
        (
            "correct horse",
            "{SHA512-CRYPT}$6$rounds=10000$NVXp9MjSKQvIP4HY$PpY4YsMJdn9ru2GMa5eYJe8OYNKCUalIS4hUooDLhrteChzgVaT3.ptIN1nyWQMx3wo8U2.XO7y/DmkkIVXib/",
        ),
        (
            "correct horse",
            "{SHA256-CRYPT}$5$rounds=1000$8g3bLFkL5Aut2SOi$GLcj/dD3LUBe6HsKOb/.Md/0lurit91j96ihy0vhx/2",
        ),
        ("correct horse", "{BLF-CRYPT}$2y$10$KoX7FAJ1eG3GSLmItz6Vg.tStC9G25oWXq/sCzUjMCtGfBmnp.vhq"),
        // Octets outside ASCII, and outside Unicode 3.2.
        (
            "Größe ½ 🔑",
            "{SCRAM-SHA-256}4096,IX1dpO9p+Rb+IztN03NMTw==,+Tv3dEs8YVvy2e3oOKJ8HMzD/WQYcGRbaMTPbpmOtik=,6pTTUEi7c/RVteAZvTNv0UZoGVRQDhaAivNFwPCVdLw=",
        ),
        (
            "Größe ½ 🔑",
            "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$jviURZ9NI2R/iL7N0yFwfw$ISXzQo3qWsnu0s4r3et11RWN2v1eUlagr/AqvTUv430",
        ),
        ("Größe ½ 🔑", "{BLF-CRYPT}$2y$05$b0Y.IIfzU5ADDa6pHML3n.kD9adur6zpUphLlVsgJNd.HdiE93ip2"),
        (
            "Größe ½ 🔑",
            "{SHA512-CRYPT}$6$mkqT3kx.Q0/PAoex$bqBhtP9OGaF1z.D.rLy08dQRU4SlHEUGvIJ9Xsx.R70lo6m2rspyiOELmQ9pHruzGBaiQRpRw1OQ2dG.znKjt1",
        ),
        // Without -s.
        ("correct horse", "{CRYPT}$2y$05$XBlbquNsfxe.Q69anykD2eIBJ/gfC7phwU1RTg5lzvgnqgs4W2o4C"),
        ("Größe ½ 🔑", "{SHA256-CRYPT}$5$Hm3uC1NNE9RQ/W2s$pJU0Gkg/wi5wz51cu6Ia0G/JRkZHvvpxse9M1uK3WU5"),
    ];

    fn usable(text: &str) -> Hash {
        match Secret::read(text) {
            Ok(Secret::Usable(hash)) => hash,
            Ok(Secret::Unusable { why, .. }) => panic!("{text}: {why}"),
            Err(problem) => panic!("{text}: {problem}"),
        }
    }

    #[test]
    fn what_dovecot_made() {
        for (password, text) in VECTORS {
            let hash = usable(text);
            assert!(hash.matches(password.as_bytes()), "{text}");
            assert!(!hash.matches(b"correct horsf"), "{text}");
            assert!(!hash.matches(b""), "{text}");
        }
    }

    #[test]
    fn prefixes_in_any_case_and_bare_forms() {
        for (_, text) in VECTORS {
            let (prefix, bare) = text.split_at(text.find('}').unwrap() + 1);
            assert!(usable(&format!("{}{bare}", prefix.to_lowercase())) == usable(text));
            if bare.starts_with('$') {
                assert!(usable(bare) == usable(text), "{bare}");
                for crypt in ["{CRYPT}", "{crypt}"] {
                    assert!(usable(&format!("{crypt}{bare}")) == usable(text), "{bare}");
                }
            }
        }
        for begin in ["$2a$", "$2b$"] {
            // The three are the same algorithm for passwords below 256 octets.
            let text = VECTORS[2].1.replace("{BLF-CRYPT}$2y$", begin);
            assert!(usable(&text).matches(b"correct horse"), "{text}");
        }
    }

    #[test]
    fn what_shuts_one_user_out() {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        for (text, scheme, part) in [
            ("{SSHA}x7HdCCS88lBckW/eYB9T3hvOVnpFfClD", "SSHA", "not among SCRAM-SHA-256"),
            ("{PLAIN}correct horse", "PLAIN", "not among"),
            ("{CRYPT}$1$0KgSR77o$BTxlVT2181lXp8FcQK3yy/", "1", "not among"),
            (
                "{CRYPT}$y$j9T$kT1kxTvkGlAjJYPTtzVLu.$t8dmvYWWJFhxPBcsvyoWf2iGyKIaxG6wBJrWHaHBfs4",
                "y",
                "not among",
            ),
            ("{CRYPT}7kUJOVLjPAtXM", "CRYPT", "not among"),
            ("{CRYPT}", "CRYPT", "not among"),
            ("$1$0KgSR77o$BTxlVT2181lXp8FcQK3yy/", "1", "not among"),
            ("$2x$05$IhegxnBPH6c86e4370LNzu44XcMbqs7CPNVRfe3a8Dg9Iw9AcIbNO", "2x", "not among"),
            (
                "$argon2i$v=19$m=32768,t=4,p=1$tdb89mGSWKkarPCXjMMkwQ$d/3zhxorZPHIJ8SP65XYOV0J24Wr76y2OYOy/dkNohM",
                "argon2i",
                "not among",
            ),
            ("!", "unknown", "not among"),
            ("*", "unknown", "not among"),
            ("secret", "unknown", "not among"),
            ("{\u{1b}[31m}x", "unknown", "not among"),
            // Known but too costly.
            (&format!("{{SCRAM-SHA-256}}10000001,AAAA,{key},{key}"), "SCRAM-SHA-256", "10000001 iterations"),
            // doveadm pw -s ARGON2ID -r 4
            (
                "$argon2id$v=19$m=1048576,t=4,p=1$3NQnw3hYV+NqTKz6ebXWNA$trNhGQ3fxw85WxAjfnjHst0MA9uIxtC4wC6ngUK20YE",
                "ARGON2ID",
                "m=1048576,t=4,p=1",
            ),
            (
                "$argon2id$v=19$m=8,t=4294967295,p=1$3NQnw3hYV+NqTKz6ebXWNA$trNhGQ3fxw85WxAjfnjHst0MA9uIxtC4wC6ngUK20YE",
                "ARGON2ID",
                "t=4294967295",
            ),
            (
                "$argon2id$v=19$m=65536,t=1,p=100$3NQnw3hYV+NqTKz6ebXWNA$trNhGQ3fxw85WxAjfnjHst0MA9uIxtC4wC6ngUK20YE",
                "ARGON2ID",
                "p=100",
            ),
            ("$2y$17$IhegxnBPH6c86e4370LNzu44XcMbqs7CPNVRfe3a8Dg9Iw9AcIbNO", "BLF-CRYPT", "cost 17"),
            (
                "$5$rounds=1000001$8g3bLFkL5Aut2SOi$GLcj/dD3LUBe6HsKOb/.Md/0lurit91j96ihy0vhx/2",
                "SHA256-CRYPT",
                "1000001 rounds",
            ),
        ] {
            match Secret::read(text) {
                Ok(secret @ Secret::Unusable { .. }) => {
                    assert_eq!(secret.scheme(), Some(scheme), "{text}");
                    let Secret::Unusable { why, .. } = secret else { unreachable!() };
                    assert!(why.contains(part), "{text}: {why}");
                }
                Ok(Secret::Usable(_)) => panic!("{text} is usable"),
                Err(problem) => panic!("{text}: {problem}"),
            }
        }
    }

    #[test]
    fn broken_hashes_of_known_schemes() {
        for text in [
            "{SCRAM-SHA-256",
            "{SCRAM-SHA-256}",
            "{SCRAM-SHA-256}4096,AAAA,BBBB,CCCC",
            // Cut short, as by an editor that wraps lines.
            "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$GSyPristXoef3i/XB2E7KA",
            "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1",
            "{ARGON2ID}$argon2id$v=18$m=65536,t=3,p=1$GSyPristXoef3i/XB2E7KA$4R4J+tq59OXL7D3p3ECKzh8PO0bLXT7AnXj3YYLX7vU",
            "{ARGON2ID}$argon2id$v=19$m=1,t=3,p=1$GSyPristXoef3i/XB2E7KA$4R4J+tq59OXL7D3p3ECKzh8PO0bLXT7AnXj3YYLX7vU",
            "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$GSy$4R4J+tq59OXL7D3p3ECKzh8PO0bLXT7AnXj3YYLX7vU",
            "{ARGON2ID}$argon2i$v=19$m=65536,t=3,p=1$GSyPristXoef3i/XB2E7KA$4R4J+tq59OXL7D3p3ECKzh8PO0bLXT7AnXj3YYLX7vU",
            "{BLF-CRYPT}$2x$05$IhegxnBPH6c86e4370LNzu44XcMbqs7CPNVRfe3a8Dg9Iw9AcIbNO",
            "{BLF-CRYPT}$2y$05$IhegxnBPH6c86e4370LNzu44XcMbqs7CPNVRfe3a8Dg9Iw9AcIbN",
            "{CRYPT}$2y$05$IhegxnBPH6c86e4370LNzu44XcMbqs7CPNVRfe3a8Dg9Iw9AcIbN",
            "$2y$03$IhegxnBPH6c86e4370LNzu44XcMbqs7CPNVRfe3a8Dg9Iw9AcIbNO",
            "$2y$xx$IhegxnBPH6c86e4370LNzu44XcMbqs7CPNVRfe3a8Dg9Iw9AcIbNO",
            "$2y$",
            "{SHA512-CRYPT}$5$4sp6L1kB/3848sxR$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT99",
            "$5$4sp6L1kB/3848sxR$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT9",
            "$5$4sp6L1kB/3848sxR$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT9E",
            "$5$4sp6L1kB/3848sxR$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT99$",
            "$5$$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT99",
            "$5$4sp6L1kB/3848sxR+$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT99",
            "$5$rounds=999$4sp6L1kB/3848sxR$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT99",
            "$5$rounds=+5000$4sp6L1kB/3848sxR$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT99",
            "$6$",
        ] {
            let problem = Secret::read(text).err().unwrap_or_else(|| panic!("{text} is read"));
            assert!(!text.contains("4R4J") || !problem.contains("4R4J"), "shows a hash: {problem}");
        }
    }

    #[test]
    fn the_cost_is_what_time_depends_on() {
        let costs: Vec<_> = VECTORS.iter().take(5).map(|(_, text)| usable(text).cost()).collect();
        assert_eq!(costs, ["SCRAM 4096 16", "$argon2id$v=19$m=65536,t=3,p=1", "$2y$05$", "$6", "$5"]);
        assert_eq!(usable(VECTORS[5].1).cost(), "$6$rounds=10000");
    }
}
