//! What the tests need to compare this module with libpq.

use std::ffi::OsString;

use super::keyword::Keyword;
use super::settings::Settings;
use super::{Config, parse};
use crate::error::Error;

/// Parameters by name, with their values.
pub type Parameters = Vec<(String, String)>;

/// A server that would be connected to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Server {
    /// Where it listens.
    pub place: String,
    /// What its certificate has to name.
    pub host: String,
    /// The password for it.
    pub password: Option<String>,
    /// The methods that it may use.
    pub methods: String,
}

/// The parameters that are known, with their environment variables.
pub fn known() -> Vec<(&'static str, Option<&'static str>)> {
    Keyword::ALL.iter().map(|keyword| (keyword.name(), keyword.variable())).collect()
}

/// What a string says by itself, as PQconninfoParse does it.
///
/// # Errors
///
/// As for `Config`, when the string does not follow the grammar.
pub fn parse(text: &str) -> Result<Parameters, Error> {
    Ok(parameters(&parse::parse(text)?))
}

/// What a string, a service file and an environment say together, as PQconninfo does it.
///
/// # Errors
///
/// As for `Config`, when the string or the file does not follow its grammar.
pub fn resolve(text: &str, environment: &[(String, String)]) -> Result<Parameters, Error> {
    let mut settings = parse::parse(text)?;
    settings.resolve(&|name: &str| lookup(environment, name))?;
    Ok(parameters(&settings))
}

/// The whole way, from a string and an environment to the servers that would be connected to.
///
/// # Errors
///
/// As for `Manager::connect`, before anything is sent.
pub fn plan(text: &str, environment: &[(String, String)]) -> Result<Vec<Server>, Error> {
    let config: Config = parse::parse(text)?.into_config(|name| lookup(environment, name))?;
    let endpoints = config.into_plan()?.endpoints;
    let servers = endpoints.into_iter().map(|endpoint| Server {
        place: endpoint.place.to_string(),
        host: endpoint.host,
        password: endpoint.password.map(|password| password.expose().to_owned()),
        methods: endpoint.methods.to_string(),
    });
    Ok(servers.collect())
}

fn parameters(settings: &Settings) -> Parameters {
    let values = settings.iter();
    values
        .map(|(keyword, value)| (keyword.name().to_owned(), value.text.expose().to_owned()))
        .collect()
}

fn lookup(environment: &[(String, String)], name: &str) -> Option<OsString> {
    let (_, value) = environment.iter().find(|(variable, _)| variable == name)?;
    Some(OsString::from(value))
}
