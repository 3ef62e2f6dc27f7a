//! The lists of hosts, addresses and ports, and the servers that they name together (manual:
//! libpq-connect, "Specifying Multiple Hosts").
//!
//! `check` and `plan` call [`servers`]. The texts of the errors do not repeat a host: a password
//! with an unescaped `@` or `/` ends up in it, and so does all of a string whose parameters are not
//! separated by spaces (`host=db;user=app;password=..`). Nothing is looked up here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::plan::Place;
use super::{Config, DEFAULT_HOST, DEFAULT_PORT, refuse};
use crate::error::Error;

/// Each server can take a share of the time for connecting, and a thread to look up its name.
pub(super) const MAX_HOSTS: usize = 32;

const MAX_HOST_BYTES: usize = 255;
/// `sun_path` of unix(7), less the terminating NUL.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// A server as it was configured.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) place: Place,
    /// The name that was given, or else the address.
    pub(super) host: String,
    /// Whether a name was given, and not the address alone.
    pub(super) has_name: bool,
    pub(super) port: u16,
}

/// The servers in their order. An entry that is empty stands for the default.
pub(super) fn servers(config: &Config) -> Result<Vec<Server>, Error> {
    let Config { hosts, hostaddrs, ports, .. } = config;
    if config.has_no_hosts {
        return refuse(format_args!(
            "Config::hosts was given no host; give it at least one, or leave it out for \
             {DEFAULT_HOST}"
        ));
    }
    let count = if hostaddrs.is_empty() { hosts.len().max(1) } else { hostaddrs.len() };
    if !hosts.is_empty() && hosts.len() != count {
        return refuse(format_args!(
            "host has {} entries and hostaddr has {count}; they must have the same number, with \
             an empty one where there is nothing to say",
            hosts.len()
        ));
    }
    if ports.len() > 1 && ports.len() != count {
        return refuse(format_args!(
            "port has {} entries and there are {count} hosts; expected one for all or one for each",
            ports.len()
        ));
    }
    if count > MAX_HOSTS {
        return refuse(format_args!(
            "{count} hosts are configured; at most {MAX_HOSTS} are allowed"
        ));
    }
    let mut servers = Vec::with_capacity(count);
    for index in 0..count {
        let text = |list: &[String]| list.get(index).cloned().unwrap_or_default();
        let subject = |name: &str| match count {
            1 => name.to_owned(),
            _ => format!("entry {} of {name}", index + 1),
        };
        let port = *ports.get(index).or_else(|| ports.first()).unwrap_or(&DEFAULT_PORT);
        if port == 0 {
            return refuse(format_args!("{} is 0; it must be from 1 to 65535", subject("port")));
        }
        let (host, address) = (text(hosts), text(hostaddrs));
        servers.push(match (host.is_empty(), address.is_empty()) {
            (true, true) => server(DEFAULT_HOST.to_owned(), port, &subject("host"))?,
            (false, true) => server(host, port, &subject("host"))?,
            (is_unnamed, false) => {
                let place = numeric(&address, port, &subject("hostaddr"))?;
                if !is_unnamed {
                    check_host(&host, port, &subject("host"))?;
                }
                let host = if is_unnamed { address } else { host };
                Server { place, host, has_name: !is_unnamed, port }
            }
        });
    }
    Ok(servers)
}

fn server(host: String, port: u16, subject: &str) -> Result<Server, Error> {
    check_host(&host, port, subject)?;
    let place = match (socket_path(&host, port), host.parse::<IpAddr>()) {
        (Some(path), _) => Place::Socket(path),
        (None, Ok(address)) => Place::Address(SocketAddr::new(address, port)),
        (None, Err(_)) => Place::Name(host.clone(), port),
    };
    Ok(Server { place, host, has_name: true, port })
}

/// The file of the Unix-domain socket, where the host is a directory.
fn socket_path(host: &str, port: u16) -> Option<PathBuf> {
    host.starts_with('/').then(|| PathBuf::from(host).join(format!(".s.PGSQL.{port}")))
}

/// The place of an entry of `hostaddr`.
fn numeric(address: &str, port: u16, subject: &str) -> Result<Place, Error> {
    if let Ok(address) = address.parse::<IpAddr>() {
        return Ok(Place::Address(SocketAddr::new(address, port)));
    }
    // Only the system knows the number of a network interface.
    match address.split_once('%') {
        Some((ip, zone))
            if ip.parse::<Ipv6Addr>().is_ok()
                && !zone.is_empty()
                && zone.bytes().all(|byte| byte.is_ascii_graphic())
                && !zone.contains(|c| NO_HOST_HAS.contains(c)) =>
        {
            Ok(Place::Name(address.to_owned(), port))
        }
        _ => refuse(format_args!(
            "{subject} is not an IP address; put a name into host, and addresses here without \
             brackets"
        )),
    }
}

fn check_host(host: &str, port: u16, subject: &str) -> Result<(), Error> {
    if host.contains(',') {
        return refuse(format_args!("{subject} has a comma in it; no host name or path may"));
    }
    if host.contains(char::is_control) {
        return refuse(format_args!("{subject} contains a control character; remove it"));
    }
    if let Some(path) = socket_path(host, port) {
        if host.contains('=') {
            return refuse(format_args!(
                "{subject} is a directory with an `=`, as when another parameter got into it; \
                 separate parameters with spaces, or in a URL with `&`, or give the directory \
                 another name (a symbolic link)"
            ));
        }
        let length = path.as_os_str().len();
        if length > MAX_SOCKET_PATH_BYTES {
            return refuse(format_args!(
                "{subject} gives a path of the socket that has {length} bytes, and the system \
                 takes at most {MAX_SOCKET_PATH_BYTES}; use a directory with a shorter path"
            ));
        }
        return Ok(());
    }
    if host.len() > MAX_HOST_BYTES {
        return refuse(format_args!(
            "{subject} has {} bytes; a host name has at most {MAX_HOST_BYTES}",
            host.len()
        ));
    }
    if host.contains(|c: char| c.is_whitespace() || NO_HOST_HAS.contains(c)) {
        return refuse(format_args!(
            "{subject} has a character that no host name has (one of `/ @ [ ] = ; & ? ' \"` or a \
             space); expected a name, an IP address without brackets, or the absolute path of the \
             socket's directory; separate parameters with spaces; in a URL, write `/` and `@` of a \
             password as %2F and %40"
        ));
    }
    Ok(())
}

/// The first four are what a URL leaves in a host; the others, what separates parameters elsewhere.
const NO_HOST_HAS: &str = "/@[]=;&?'\"";

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new().user("app")
    }

    /// The places, separated by spaces.
    fn places(config: &Config) -> String {
        let servers = servers(config).unwrap();
        let places: Vec<_> = servers.iter().map(|server| server.place.to_string()).collect();
        places.join(" ")
    }

    fn refusal(config: &Config) -> String {
        servers(config).expect_err("the hosts should have been refused").to_string()
    }

    #[test]
    fn one_port_is_for_all_hosts_and_several_are_for_one_each() {
        assert_eq!(places(&config()), "localhost:5432");
        assert_eq!(places(&config().host("a,b").port(7)), "a:7 b:7");
        assert_eq!(
            places(&config().hosts([("a", 1), ("", 2), ("::1", 3)])),
            "a:1 localhost:2 [::1]:3"
        );
        assert_eq!(
            places(&config().host("a,,/run/x")),
            "a:5432 localhost:5432 /run/x/.s.PGSQL.5432"
        );
        assert_eq!(places(&config().host(",")), "localhost:5432 localhost:5432");
        let mut config = config().host("a,b,c");
        config.ports = vec![1, 2];
        assert!(refusal(&config).contains("port has 2 entries and there are 3 hosts"));
        assert!(refusal(&config.host("")).contains("port has 2 entries and there are 1 hosts"));
    }

    #[test]
    fn an_address_is_dialed_and_the_name_is_kept() {
        let both = config().host("a,,c").hostaddr("10.0.0.1,::1,");
        assert_eq!(places(&both), "10.0.0.1:5432 [::1]:5432 c:5432");
        let servers = servers(&both).unwrap();
        let names: Vec<_> = servers.iter().map(|it| (it.host.as_str(), it.has_name)).collect();
        assert_eq!(names, [("a", true), ("::1", false), ("c", true)]);
        assert_eq!(places(&config().hostaddr("10.0.0.1,10.0.0.2")), "10.0.0.1:5432 10.0.0.2:5432");
        assert_eq!(places(&config().hostaddr("fe80::1%lo")), "fe80::1%lo:5432");
        let text = refusal(&config().host("a,b").hostaddr("10.0.0.1"));
        assert!(text.contains("host has 2 entries and hostaddr has 1"), "{text}");
        for address in ["db", "[::1]", "10.0.0", "10.0.0.1 ", "fe80::1%", "x%lo", "10.0.0.1%lo"] {
            let text = refusal(&config().host("a").hostaddr(address));
            assert!(text.contains("hostaddr is not an IP address"), "{address}: {text}");
        }
        assert!(refusal(&config().hostaddr("::1,x")).contains("entry 2 of hostaddr"));
    }

    #[test]
    fn a_host_is_a_name_an_address_or_an_absolute_path() {
        for host in ["", "db", "db.internal", "10.0.0.1", "::1", "fe80::1%eth0", "/run/pg sql"] {
            servers(&config().host(host)).unwrap();
        }
        servers(&config().host("/run/it's;a&b?")).unwrap();
        for host in ["a b", "a\0b", "/a\0b", "a@b", "@abstract", "[::1]", "./run", "a/b", "a;b"] {
            let text = refusal(&config().host(host));
            assert!(text.contains("host") && !text.contains(host), "{text}");
            let text = refusal(&config().host(format!("a,{host}")));
            assert!(text.contains("entry 2 of host"), "{text}");
        }
        assert!(refusal(&config().hosts([("a,b", 1)])).contains("comma"));
        assert!(refusal(&config().host("x".repeat(256))).contains("256 bytes"));
        // 107 bytes with "/.s.PGSQL.5432", which has 14.
        servers(&config().host(format!("/{}", "x".repeat(92)))).unwrap();
        let text = refusal(&config().host(format!("/{}", "x".repeat(93))));
        assert!(text.contains("108 bytes"), "{text}");
    }

    #[test]
    fn a_list_without_hosts_is_no_list_of_the_default() {
        let none: [(&str, u16); 0] = [];
        for config in [config().hosts(none), config().hostaddr("::1").hosts(none)] {
            let text = refusal(&config);
            assert!(text.contains("Config::hosts was given no host") && text.contains("at least"));
            servers(&config.clone().host("db")).unwrap();
            assert_eq!(servers(&config.hosts([("db", 1)])).unwrap().len(), 1);
        }
    }

    #[test]
    fn there_is_a_limit_to_the_hosts() {
        let hosts = |count: usize| config().hosts((0..count).map(|_| ("a", 1)));
        assert_eq!(servers(&hosts(MAX_HOSTS)).unwrap().len(), MAX_HOSTS);
        assert!(refusal(&hosts(MAX_HOSTS + 1)).contains("33 hosts are configured; at most 32"));
        assert!(refusal(&config().port(0)).contains("port is 0"));
    }
}
