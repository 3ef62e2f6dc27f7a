//! Tables of connection strings, environments and files: what is accepted with which result, and
//! what is refused with which words. [`CANARY`] is a password that no error and no `Debug` may
//! show.

mod files;
mod parameters;
mod sources;
mod strings;

use std::ffi::OsString;
use std::time::Duration;

use super::settings::Settings;
use super::{AuthMethods, Config, parse};
use crate::error::Error;

const CANARY: &str = "c4nary";

type Environment = &'static [(&'static str, &'static str)];

fn read(text: &str, environment: Environment) -> Result<Config, Error> {
    parse::parse(text)?.into_config(|name| lookup(environment, name))
}

fn lookup(environment: Environment, name: &str) -> Option<OsString> {
    let (_, value) = environment.iter().find(|(variable, _)| *variable == name)?;
    Some(OsString::from(value))
}

/// The fields that differ from the defaults, `name=value` separated by `|`.
fn changed(config: &Config) -> String {
    let mut fields = Vec::new();
    let mut field = |name: &str, value: Option<&str>, default: Option<&str>| {
        if value != default {
            fields.push(format!("{name}={}", value.unwrap_or("unset")));
        }
    };
    let seconds = config.connect_timeout.as_secs().to_string();
    let methods = config.require_auth.map(|methods| methods.to_string());
    let ports: Vec<_> = config.ports.iter().map(ToString::to_string).collect();
    field("host", Some(&config.hosts.join(",")), Some(""));
    field("hostaddr", Some(&config.hostaddrs.join(",")), Some(""));
    field("port", Some(&ports.join(",")), Some(""));
    field("user", config.user.as_deref(), None);
    field("password", config.password.as_ref().map(|it| it.expose()), None);
    field("dbname", config.dbname.as_deref(), None);
    field("app", Some(&config.application_name), Some("distlock"));
    field("timeout", Some(&seconds), Some("10"));
    field("auth", methods.as_deref(), None);
    field("options", config.options.as_deref(), None);
    field("passfile", config.passfile.as_ref().and_then(|it| it.to_str()), None);
    fields.join("|")
}

#[test]
fn debug_never_shows_the_password() {
    let configs = [
        Config::new().password(CANARY),
        read("password=c4nary", &[]).unwrap(),
        read("postgres://app:c4nary@db", &[]).unwrap(),
        read("", &[("PGPASSWORD", CANARY)]).unwrap(),
    ];
    for config in configs {
        assert_eq!(config.password.as_ref().map(|it| it.expose()), Some(CANARY));
        for shown in [format!("{config:?}"), format!("{config:#?}"), format!("{:?}", Some(config))]
        {
            assert!(shown.contains("***") && !shown.contains(CANARY), "{shown}");
        }
    }
}

#[test]
fn the_database_is_the_user_unless_it_is_named() {
    let config = Config::new().dbname("").user("app");
    assert_eq!((config.user_name(), config.database()), ("app", "app"));
    let config = config.dbname("prod").user("other");
    assert_eq!((config.user_name(), config.database()), ("other", "prod"));
}

#[test]
fn setters_replace_what_a_string_gave() {
    let config = read("postgres://app:c4nary@db:1/prod?connect_timeout=3", &[]).unwrap();
    let config = config.host("h").port(2).user("u").password("p").dbname("d");
    let config = config.application_name("a").connect_timeout(Duration::from_secs(4));
    assert_eq!(changed(&config), "host=h|port=2|user=u|password=p|dbname=d|app=a|timeout=4");
    config.check().unwrap();
}

#[test]
fn every_kind_of_string_converts() {
    let text = String::from("host=db user=app sslmode=disable");
    let configs = [
        text.parse::<Config>(),
        Config::try_from(text.as_str()),
        Config::try_from(&text),
        Config::try_from(text.clone()),
    ];
    for config in configs {
        let config = config.unwrap();
        assert_eq!((config.hosts.join(","), config.user_name()), ("db".to_owned(), "app"));
    }
}
