//! Which authentication methods the server may ask for.
//!
//! The names are those of libpq's `require_auth` (manual: libpq-connect). The server chooses the
//! method, so a client that takes whatever is asked for sends its password in clear to anyone who
//! answers at the address. This set is the client's side of that choice. It only names methods;
//! the session decides what a server's request amounts to.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

use super::refuse;
use crate::error::Error;

/// A set of authentication methods, never empty.
///
/// ```
/// use distlock::AuthMethods;
///
/// let methods: AuthMethods = "md5,scram-sha-256".parse()?;
/// assert_eq!(methods, AuthMethods::MD5 | AuthMethods::SCRAM_SHA_256);
/// assert!(!methods.contains(AuthMethods::PASSWORD));
/// # Ok::<(), distlock::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuthMethods(u8);

impl AuthMethods {
    /// The server lets the session in without asking for anything (`trust`, `peer`).
    pub const NONE: Self = Self(1);
    /// The password in clear text. Whoever reads the connection reads the password.
    pub const PASSWORD: Self = Self(1 << 1);
    /// The MD5 method. The server does not prove that it knows the password.
    pub const MD5: Self = Self(1 << 2);
    /// SCRAM-SHA-256 (RFC 7677): the server proves that it knows the password, too.
    pub const SCRAM_SHA_256: Self = Self(1 << 3);

    const NAMES: [(Self, &'static str); 4] = [
        (Self::NONE, "none"),
        (Self::PASSWORD, "password"),
        (Self::MD5, "md5"),
        (Self::SCRAM_SHA_256, "scram-sha-256"),
    ];

    /// Whether every method of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for AuthMethods {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Reads a list such as `md5,scram-sha-256`. As in libpq, spaces are not skipped, and no method may
/// come twice. A list of what to leave out, such as `!md5`, is no set by itself: it depends on
/// whether there is a password. `require_auth` in a connection string takes one.
impl FromStr for AuthMethods {
    type Err = Error;

    fn from_str(list: &str) -> Result<Self, Error> {
        match list.parse()? {
            RequireAuth::Only(methods) => Ok(methods),
            RequireAuth::AllBut(_) => refuse(format_args!(
                "a list of methods to leave out has a meaning in a connection string alone; name \
                 the methods to accept"
            )),
        }
    }
}

/// What `require_auth` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequireAuth {
    /// The methods that are named.
    Only(AuthMethods),
    /// What is allowed by default, less these.
    AllBut(AuthMethods),
}

impl RequireAuth {
    /// The methods that a server may use for which there is a password, or none.
    ///
    /// Leaving out never allows what was not allowed before, unlike in libpq, where `!password`
    /// stands for everything else, MD5 and no authentication at all included.
    pub(super) fn methods(self, has_password: bool) -> Option<AuthMethods> {
        match self {
            Self::Only(methods) => Some(methods),
            Self::AllBut(left_out) => {
                let by_default = AuthMethods::by_default(has_password);
                (!left_out.contains(by_default)).then_some(by_default)
            }
        }
    }
}

/// Reads the value of the parameter: a `!` stands before all methods of the list or before none.
impl FromStr for RequireAuth {
    type Err = Error;

    fn from_str(list: &str) -> Result<Self, Error> {
        let is_negated = list.starts_with('!');
        let mut named = AuthMethods(0);
        for (index, entry) in list.split(',').enumerate() {
            let name = entry.strip_prefix('!');
            if name.is_some() != is_negated {
                return refuse(format_args!(
                    "require_auth has a `!` before some methods and not before others; list \
                     either what to accept or what to leave out"
                ));
            }
            let method = AuthMethods::from_name(index + 1, name.unwrap_or(entry), is_negated)?;
            if named.contains(method) {
                return refuse(format_args!(
                    "entry {} of require_auth is there for the second time; remove it",
                    index + 1
                ));
            }
            named = named | method;
        }
        Ok(if is_negated { Self::AllBut(named) } else { Self::Only(named) })
    }
}

impl fmt::Display for RequireAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only(methods) => methods.list("", f),
            Self::AllBut(left_out) => left_out.list("!", f),
        }
    }
}

impl AuthMethods {
    /// What is allowed where nobody says: with a password, the one method in which the server
    /// proves itself.
    pub(super) const fn by_default(has_password: bool) -> Self {
        if has_password { Self::SCRAM_SHA_256 } else { Self::NONE }
    }

    /// Methods of libpq that are never used here: they can be left out, and that is all. Their bits
    /// are in no set that gets out of here.
    const NEVER: [(Self, &'static str); 3] =
        [(Self(1 << 4), "gss"), (Self(1 << 5), "sspi"), (Self(1 << 6), "oauth")];

    /// One method of a list. A text that is no method at all is not repeated in the error: it
    /// could be a piece of a password that an unquoted space cut off.
    fn from_name(place: usize, name: &str, is_negated: bool) -> Result<Self, Error> {
        if let Some((method, _)) = Self::NAMES.into_iter().find(|(_, known)| *known == name) {
            return Ok(method);
        }
        match Self::NEVER.into_iter().find(|(_, known)| *known == name) {
            Some((method, _)) if is_negated => Ok(method),
            Some((_, known)) => refuse(format_args!(
                "require_auth names {known}, which is known to libpq but not supported; \
                 use none, password, md5 or scram-sha-256"
            )),
            None => refuse(format_args!(
                "entry {place} of require_auth is not an authentication method; expected none, \
                 password, md5 or scram-sha-256, separated by commas without spaces"
            )),
        }
    }

    /// The names, each with what stands before it.
    fn list(self, before: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (method, name) in Self::NAMES.into_iter().chain(Self::NEVER) {
            if self.contains(method) {
                write!(f, "{separator}{before}{name}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

impl fmt::Display for AuthMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list("", f)
    }
}

impl fmt::Debug for AuthMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthMethods({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_reads_back_from_what_it_prints() {
        for bits in 1..16 {
            let methods = AuthMethods(bits);
            assert_eq!(methods.to_string().parse::<AuthMethods>().unwrap(), methods);
        }
        assert_eq!(format!("{:?}", AuthMethods::MD5 | AuthMethods::NONE), "AuthMethods(none,md5)");
    }

    #[test]
    fn a_list_of_what_to_leave_out_only_takes_away_from_the_default() {
        let rows = [
            ("!md5", Some(AuthMethods::SCRAM_SHA_256), Some(AuthMethods::NONE)),
            ("!password", Some(AuthMethods::SCRAM_SHA_256), Some(AuthMethods::NONE)),
            ("!gss,!sspi,!oauth", Some(AuthMethods::SCRAM_SHA_256), Some(AuthMethods::NONE)),
            ("!none", Some(AuthMethods::SCRAM_SHA_256), None),
            ("!none,!md5,!gss", Some(AuthMethods::SCRAM_SHA_256), None),
            ("!scram-sha-256,!md5", None, Some(AuthMethods::NONE)),
            ("!none,!scram-sha-256", None, None),
            ("!none,!md5,!scram-sha-256,!password,!gss,!sspi,!oauth", None, None),
        ];
        for (list, with_password, without) in rows {
            let required: RequireAuth = list.parse().unwrap();
            assert_eq!(required.methods(true), with_password, "{list}");
            assert_eq!(required.methods(false), without, "{list}");
            assert_eq!(required.to_string().parse::<RequireAuth>().unwrap(), required);
        }
    }

    #[test]
    fn a_list_of_what_to_leave_out_is_no_set_by_itself() {
        let error = "!md5".parse::<AuthMethods>().unwrap_err();
        assert!(error.is_config() && error.to_string().contains("name the methods"), "{error}");
    }

    #[test]
    fn a_set_contains_exactly_what_was_put_in() {
        let both = AuthMethods::MD5 | AuthMethods::SCRAM_SHA_256;
        assert!(both.contains(AuthMethods::MD5) && both.contains(both));
        assert!(!both.contains(AuthMethods::NONE));
        assert!(!AuthMethods::MD5.contains(both));
    }

    #[test]
    fn a_list_that_libpq_refuses_or_that_is_not_supported_is_refused() {
        let rows = [
            ("", "entry 1"),
            ("md5,", "entry 2"),
            (",md5", "entry 1"),
            ("md5, none", "entry 2"),
            ("MD5", "entry 1"),
            ("scram-sha-1", "entry 1"),
            ("md5,md5", "entry 2 of require_auth is there for the second time"),
            ("none,scram-sha-256,none", "entry 3 of require_auth is there for the second time"),
            ("!md5,!md5", "second time"),
            ("!gss,!sspi,!gss", "second time"),
            ("md5,!none", "`!` before some"),
            ("!md5,none", "`!` before some"),
            ("!", "entry 1"),
            ("!!md5", "entry 1"),
            ("! md5", "entry 1"),
            ("gss", "known to libpq but not supported"),
            ("sspi", "known to libpq but not supported"),
            ("oauth", "known to libpq but not supported"),
        ];
        for (list, expected) in rows {
            let error = list.parse::<RequireAuth>().unwrap_err();
            assert!(error.is_config() && error.to_string().contains(expected), "{list}: {error}");
        }
    }
}
