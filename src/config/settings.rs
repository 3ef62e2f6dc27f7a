//! The parameters by name, before they are a [`Config`]: where each value came from, and which one
//! counts.
//!
//! What the connection string gives comes first, then the service file, then the environment, then
//! the defaults (manual: libpq-connect, libpq-envars, libpq-pgservice). The environment comes in as
//! a function, so that tests need not touch the one of their process. No error here repeats a
//! value: with one quote or one `%40` too few, a piece of a password can end up as the value of
//! another parameter.

use std::ffi::OsString;
use std::path::PathBuf;

use super::keyword::Keyword;
use super::{Config, Secret, refuse, service};
use crate::error::Error;

/// The parameters that were given so far, at the index of their [`Keyword`].
pub(super) struct Settings([Option<Value>; Keyword::COUNT]);

impl Default for Settings {
    fn default() -> Self {
        Self([const { None }; Keyword::COUNT])
    }
}

pub(super) struct Value {
    pub(super) text: Secret,
    pub(super) source: Source,
}

/// Where a value came from, for errors, and since libpq treats some by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The connection string.
    String,
    /// A line of the service file.
    Service { line: usize },
    /// The environment variable of the parameter.
    Variable,
}

impl Settings {
    /// A later value of a string replaces an earlier one, as in libpq.
    pub(super) fn set(&mut self, keyword: Keyword, text: Secret) {
        self.0[keyword as usize] = Some(Value { text, source: Source::String });
    }

    /// A value that stands in where none was given so far.
    pub(super) fn set_default(&mut self, keyword: Keyword, text: Secret, source: Source) {
        self.0[keyword as usize].get_or_insert(Value { text, source });
    }

    pub(super) fn get(&self, keyword: Keyword) -> Option<&Value> {
        self.0[keyword as usize].as_ref()
    }

    /// What was given, in the order of [`Keyword::ALL`].
    pub(super) fn iter(&self) -> impl Iterator<Item = (Keyword, &Value)> {
        let values = Keyword::ALL.iter().copied().zip(&self.0);
        values.filter_map(|(keyword, value)| Some((keyword, value.as_ref()?)))
    }

    /// Fills the gaps from the service file and the environment, and makes the configuration. A
    /// missing user is no error yet: the builder can still name one.
    pub(super) fn into_config(
        mut self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Config, Error> {
        self.resolve(&variable)?;
        let mut config = Config::new();
        for (keyword, value) in self.iter() {
            value.apply(keyword, &mut config)?;
        }
        if self.get(Keyword::ApplicationName).is_none() {
            let fallback = self.get(Keyword::FallbackApplicationName);
            let fallback = fallback.map(|value| value.text.expose());
            if let Some(name) = fallback.filter(|name| !name.is_empty()) {
                config = config.application_name(name);
            }
        }
        if config.user.is_none() {
            // libpq asks the operating system for the name; these two say the same nearly always.
            let text = |name| variable(name)?.into_string().ok().filter(|text| !text.is_empty());
            config.user = text("USER").or_else(|| text("LOGNAME"));
        }
        config.home = home(&variable);
        config.check_values()?;
        Ok(config)
    }

    /// Fills the gaps from the service file and the environment.
    pub(super) fn resolve(
        &mut self,
        variable: &impl Fn(&str) -> Option<OsString>,
    ) -> Result<(), Error> {
        service::fill(self, variable)?;
        for keyword in Keyword::ALL.iter().copied() {
            let Some(name) = keyword.variable().filter(|_| self.get(keyword).is_none()) else {
                continue;
            };
            if let Some(text) = text_of(name, variable)? {
                self.set_default(keyword, text, Source::Variable);
            }
        }
        // libpq takes anything that does not begin with a 1 for nothing.
        let require_ssl = text_of("PGREQUIRESSL", variable)?;
        if require_ssl.is_some_and(|text| text.expose().starts_with('1'))
            && self.get(Keyword::Sslmode).is_none()
        {
            return refuse(format_args!(
                "the environment variable PGREQUIRESSL is set, which is not supported; use \
                 PGSSLMODE=require, or better PGSSLMODE=verify-full, and unset it"
            ));
        }
        Ok(())
    }
}

impl Value {
    /// What the user knows the value by.
    pub(super) fn subject(&self, keyword: Keyword) -> String {
        match (self.source, keyword.variable()) {
            (Source::Variable, Some(variable)) => variable.to_owned(),
            (Source::Service { line }, _) => {
                format!("{} (line {line} of the service file)", keyword.name())
            }
            _ => keyword.name().to_owned(),
        }
    }
}

/// The value of a variable, if it is set.
pub(super) fn text_of(
    name: &str,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Secret>, Error> {
    match variable(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(Secret::from(text))),
        Some(Err(_)) => refuse(format_args!("the environment variable {name} is not valid UTF-8")),
    }
}

/// The home directory. Where `HOME` does not say, libpq asks the operating system; here there is
/// none then.
pub(super) fn home(variable: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    variable("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// White space as isspace(3) has it in the C locale.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}
