//! What the values of the parameters mean.

use super::super::keyword::Keyword;
use super::super::socket::SocketOptions;
use super::super::ssl::{ChannelBinding, SslMode, SslNegotiation, TlsVersion};
use super::*;

fn plan_error(text: &str) -> String {
    let error = read(&format!("user=app {text}"), &[]).and_then(Config::into_plan).expect_err(text);
    let shown = error.to_string();
    assert!(error.is_config() && !shown.contains(CANARY), "{shown}");
    shown
}

#[test]
fn every_supported_parameter_changes_something_or_refuses() {
    // Words that ask for what is the case anyhow, so that nothing changes.
    const NO_CHANGE: [&str; 4] =
        ["client_encoding=auto", "gssencmode=prefer", "sslcompression=0", "servicefile=/x"];
    const CHANGES: &[&str] = &[
        "host=x",
        "hostaddr=::1",
        "port=1",
        "user=x",
        "password=x",
        "passfile=/x",
        "dbname=x",
        "application_name=x",
        "fallback_application_name=x",
        "options=x",
        "connect_timeout=1",
        "target_session_attrs=read-write",
        "load_balance_hosts=random",
        "keepalives=0",
        "keepalives_idle=1",
        "keepalives_interval=1",
        "keepalives_count=1",
        "tcp_user_timeout=1",
        "require_auth=none",
        "channel_binding=require",
        "sslmode=disable",
        "sslnegotiation=direct",
        "sslcert=/x",
        "sslkey=/x",
        "sslcertmode=require",
        "sslsni=0",
        "ssl_min_protocol_version=TLSv1.3",
        "ssl_max_protocol_version=TLSv1.2",
        "min_protocol_version=3.2",
        "max_protocol_version=3.0",
    ];
    // A service has to be there, and authorities need TLS.
    let elsewhere = ["service", "sslrootcert"];
    let unchanged = format!("{:?}", Config::new());
    let all: Vec<_> = CHANGES.iter().chain(&NO_CHANGE).copied().collect();
    for keyword in Keyword::ALL.iter().filter(|keyword| keyword.is_supported()) {
        let rows: Vec<_> =
            all.iter().filter(|row| row.split('=').next() == Some(keyword.name())).collect();
        assert!(!rows.is_empty() || elsewhere.contains(&keyword.name()), "{}", keyword.name());
        for row in rows {
            let config = read(row, &[]).unwrap();
            let is_changed = format!("{config:?}") != unchanged;
            assert_eq!(is_changed, !NO_CHANGE.contains(row), "{row}");
        }
    }
}

#[test]
fn an_unsupported_parameter_is_refused_by_its_name_unless_it_is_empty() {
    for keyword in Keyword::ALL.iter().filter(|keyword| !keyword.is_supported()) {
        let name = keyword.name();
        read(&format!("{name}=''"), &[]).unwrap();
        let error = read(&format!("{name}=c4nary"), &[]).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}` is known to libpq but not")), "{error}");
        assert!(!error.contains(CANARY), "{error}");
    }
    read("gssdelegation=0 replication=false", &[]).unwrap();
    // Of no effect here, and there for other programs.
    read("", &[("PGKRBSRVNAME", "x"), ("PGGSSLIB", "x"), ("PGGSSDELEGATION", "1")]).unwrap();
    read("", &[("PGDATESTYLE", "x"), ("PGTZ", "x"), ("PGGEQO", "x")]).unwrap();
    read("", &[("PGREQUIRESSL", "0")]).unwrap();
    read("sslmode=disable", &[("PGREQUIRESSL", "1")]).unwrap();
}

#[test]
fn a_word_that_a_parameter_does_not_have_is_refused_with_those_that_it_has() {
    let rows = [
        ("target_session_attrs", "any, primary, read-write"),
        ("load_balance_hosts", "disable, random"),
        ("channel_binding", "disable, prefer, require"),
        ("sslmode", "disable, require, verify-ca, verify-full"),
        ("sslnegotiation", "postgres, direct"),
        ("sslcertmode", "disable, allow, require"),
        ("sslsni", "1, 0"),
        ("min_protocol_version", "3.0, 3.2, latest"),
        ("max_protocol_version", "3.0, 3.2, latest"),
        ("gssencmode", "disable, prefer"),
    ];
    for (name, words) in rows {
        for value in ["c4nary", "''", "Disable", "' any'"] {
            let text = plan_error(&format!("{name}={value}"));
            assert!(text.contains(&format!("{name} must be one of: {words}")), "{text}");
        }
    }
    let names = ["connect_timeout", "keepalives", "keepalives_count", "tcp_user_timeout"];
    for name in names {
        for value in ["''", "c4nary", "1.5", "1s", "2147483648", "1,2", "--1"] {
            let text = plan_error(&format!("{name}={value}"));
            assert!(text.contains(&format!("{name} is not a whole number")), "{text}");
        }
    }
    assert!(plan_error("gssencmode=require").contains("gssencmode must be"));
    assert!(plan_error("sslcompression=1").contains("sslcompression must be one of: 0"));
    assert!(plan_error("ssl_min_protocol_version=c4nary").contains("must be TLSv1.2 or TLSv1.3"));
    for version in ["TLSv1", "tlsv1.1"] {
        for name in ["ssl_min_protocol_version", "ssl_max_protocol_version"] {
            assert!(plan_error(&format!("{name}={version}")).contains("older than TLSv1.2"));
        }
    }
}

#[test]
fn only_the_primary_will_do() {
    let wants_to_write = |text: &str| read(text, &[]).unwrap().read_write;
    assert!(!wants_to_write(""));
    assert!(!wants_to_write("target_session_attrs=any"));
    assert!(!wants_to_write("target_session_attrs=primary"));
    assert!(wants_to_write("target_session_attrs=read-write"));
    for word in ["read-only", "standby", "prefer-standby"] {
        let text = plan_error(&format!("target_session_attrs={word}"));
        assert!(text.contains("locks need the primary"), "{text}");
    }
}

#[test]
fn hosts_are_tried_in_their_order_unless_they_are_to_be_shuffled() {
    let plan = read("host=a,b user=u port=1,2 hostaddr=,::1", &[]).unwrap().into_plan().unwrap();
    let places: Vec<_> = plan.endpoints.iter().map(|it| it.place.to_string()).collect();
    let names: Vec<_> = plan.endpoints.iter().map(|it| it.host.as_str()).collect();
    assert_eq!((places.join(" ").as_str(), names.as_slice()), ("a:1 [::1]:2", &["a", "b"][..]));
    assert!(!plan.shuffle);
    let shuffled = read("user=u load_balance_hosts=random", &[]).unwrap();
    assert!(shuffled.into_plan().unwrap().shuffle);
    assert!(Config::new().user("u").load_balance_hosts(true).into_plan().unwrap().shuffle);
}

#[test]
fn the_options_of_the_socket_have_units_and_limits() {
    let socket = |text: &str| read(text, &[]).unwrap().socket;
    assert_eq!(socket(""), SocketOptions::default());
    assert!(socket("").keepalives && !socket("keepalives=0").keepalives);
    assert!(socket("keepalives=-1").keepalives);
    let text = "keepalives_idle=7 keepalives_interval=' 8 ' keepalives_count=9 tcp_user_timeout=10";
    let expected = SocketOptions {
        keepalives: true,
        keepalives_idle: Some(Duration::from_secs(7)),
        keepalives_interval: Some(Duration::from_secs(8)),
        keepalives_count: Some(9),
        tcp_user_timeout: Some(Duration::from_millis(10)),
    };
    assert_eq!(socket(text), expected);
    let by_setters = Config::new()
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(7))
        .keepalives_interval(Duration::from_secs(8))
        .keepalives_count(9)
        .tcp_user_timeout(Duration::from_millis(10));
    assert_eq!(by_setters.socket, expected);
    let none = "keepalives_idle=0 keepalives_interval=-1 keepalives_count=0 tcp_user_timeout=0";
    assert_eq!(socket(none), SocketOptions::default());
    for (text, expected) in [
        ("keepalives_idle=32768", "keepalives_idle is 32768s; it must be from 1s to 32767s"),
        ("keepalives_interval=32768", "keepalives_interval is 32768s"),
        ("keepalives_count=128", "keepalives_count is 128; it must be from 1 to 127"),
    ] {
        assert!(plan_error(text).contains(expected));
    }
    socket("tcp_user_timeout=2147483647");
    for config in [
        Config::new().keepalives_idle(Duration::from_millis(999)),
        Config::new().keepalives_count(0),
        Config::new().tcp_user_timeout(Duration::from_micros(999)),
    ] {
        assert!(config.user("u").into_plan().unwrap_err().to_string().contains("must be from 1"));
    }
}

#[test]
fn the_versions_of_the_protocol_are_a_range() {
    let versions = |text: &str| {
        let config = read(text, &[]).unwrap();
        (config.refuse_3_0, config.ask_3_2)
    };
    assert_eq!(versions(""), (false, true));
    assert_eq!(versions("min_protocol_version=3.0 max_protocol_version=3.0"), (false, false));
    assert_eq!(versions("min_protocol_version=latest"), (true, true));
    assert_eq!(versions("min_protocol_version=3.2 max_protocol_version=latest"), (true, true));
    let text = plan_error("min_protocol_version=3.2 max_protocol_version=3.0");
    assert!(text.contains("min_protocol_version is above"), "{text}");
}

#[test]
fn the_rounds_of_scram_are_a_range_above_zero() {
    assert_eq!(Config::new().scram_iterations, 4096..=100_000);
    Config::new().user("u").scram_iterations(1..=1).into_plan().unwrap();
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
    for range in [0..=100, 0..=0, 2..=1] {
        let error = Config::new().user("u").scram_iterations(range).into_plan().unwrap_err();
        assert!(error.to_string().contains("scram_iterations is"), "{error}");
    }
}

#[test]
fn the_password_decides_which_methods_are_accepted_by_default() {
    let methods = |config: Config| {
        let endpoints = config.user("u").into_plan().unwrap().endpoints;
        endpoints[0].methods
    };
    let config = Config::new();
    assert_eq!(methods(config.clone()), AuthMethods::NONE);
    assert_eq!(methods(config.clone().password("")), AuthMethods::NONE);
    assert_eq!(methods(config.clone().password("x")), AuthMethods::SCRAM_SHA_256);
    let config = config.password("x").require_auth(AuthMethods::MD5);
    assert_eq!(methods(config), AuthMethods::MD5);
}

#[test]
fn a_method_that_needs_a_password_needs_a_password() {
    let scram = Config::new().user("u").require_auth(AuthMethods::SCRAM_SHA_256);
    let text = scram.clone().into_plan().unwrap_err().to_string();
    assert!(text.contains("scram-sha-256, which needs a password"), "{text}");
    scram.password("x").into_plan().unwrap();
    let either = AuthMethods::NONE | AuthMethods::MD5;
    Config::new().user("u").require_auth(either).into_plan().unwrap();
}

#[test]
fn the_password_in_clear_text_is_for_verified_servers_alone() {
    for text in ["", "sslmode=disable", "host=/run/x"] {
        let text = plan_error(&format!("{text} password=c4nary require_auth=password"));
        assert!(text.contains("anyone could answer and be told the password"), "{text}");
    }
}

#[test]
fn a_list_of_what_to_leave_out_never_allows_what_is_not_allowed_without_it() {
    let methods = |text: &str| {
        let plan = read(&format!("user=u {text}"), &[]).unwrap().into_plan().unwrap();
        plan.endpoints[0].methods
    };
    for list in ["!password", "!md5", "!gss,!sspi", "!none"] {
        let text = format!("password=x require_auth={list}");
        assert_eq!(methods(&text), AuthMethods::SCRAM_SHA_256, "{list}");
    }
    for list in ["!password", "!md5", "!gss,!sspi", "!scram-sha-256"] {
        assert_eq!(methods(&format!("require_auth={list}")), AuthMethods::NONE, "{list}");
    }
    let text = plan_error("password=c4nary require_auth=!scram-sha-256");
    assert!(text.contains("leaves no method for the server") && text.contains("md5"), "{text}");
    let text = plan_error("require_auth=!none");
    assert!(text.contains("leaves no method for the server"), "{text}");
    assert!(text.contains("configure a password"), "{text}");
}

#[test]
fn channel_binding_cannot_be_required_without_tls_and_scram() {
    let text = plan_error("password=c4nary channel_binding=require");
    assert!(text.contains("the server is connected to without TLS"), "{text}");
    assert_eq!(Config::new().ssl.channel_binding, ChannelBinding::Prefer);
    let disabled = read("channel_binding=disable", &[]).unwrap().ssl.channel_binding;
    assert_eq!(disabled, ChannelBinding::Disable);
}

#[cfg(not(feature = "tls"))]
#[test]
fn without_the_feature_only_disable_will_do() {
    for mode in ["require", "verify-ca", "verify-full"] {
        for host in ["a", "/run/x"] {
            let text = plan_error(&format!("host={host} sslmode={mode}"));
            assert!(
                text.contains("sslmode asks for TLS") && text.contains("enable the feature `tls`"),
                "{text}"
            );
        }
    }
    assert!(plan_error("sslrootcert=/x").contains("sslrootcert asks for TLS"));
    let config = Config::new().user("u").ssl_mode(SslMode::Require);
    assert!(config.into_plan().unwrap_err().to_string().contains("enable the feature `tls`"));
    let error = read("postgres://app:c4nary@db?ssl=true", &[]).unwrap_err().to_string();
    assert!(error.contains("enable the feature `tls`"), "{error}");
    read("sslmode=disable", &[]).unwrap();
}

#[test]
fn without_tls_nothing_that_needs_it_is_passed_over() {
    assert!(plan_error("sslnegotiation=direct").contains("sslnegotiation is direct, but sslmode"));
    assert!(plan_error("sslcert=/x").contains("sslcert is given, but sslmode is not"));
    let text = plan_error("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=tlsv1.2");
    assert!(text.contains("ssl_min_protocol_version is above"), "{text}");
    read("user=u sslcert=/x sslmode=disable", &[]).unwrap().into_plan().unwrap();
}

#[cfg(feature = "tls")]
#[test]
fn the_parameters_of_tls_get_where_they_are_used() {
    let text = "host=db user=u password=x sslrootcert=/x sslnegotiation=direct sslsni=0 \
                channel_binding=require require_auth=scram-sha-256,md5 \
                ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=''";
    let plan = read(text, &[]).unwrap().into_plan().unwrap();
    let ssl = plan.config.ssl;
    assert_eq!((ssl.mode, ssl.negotiation), (SslMode::VerifyFull, SslNegotiation::Direct));
    assert_eq!((ssl.sni, ssl.channel_binding), (false, ChannelBinding::Require));
    assert_eq!((ssl.min_version, ssl.max_version), (TlsVersion::V1_3, TlsVersion::V1_3));
    // Nothing else can be bound to the channel.
    assert_eq!(plan.endpoints[0].methods, AuthMethods::SCRAM_SHA_256);
    for text in ["channel_binding=require", "password=x channel_binding=require require_auth=md5"] {
        let text = plan_error(&format!("host=db sslrootcert=/x {text}"));
        assert!(text.contains("channel_binding is require, which needs scram-sha-256"), "{text}");
    }
    let clear = "host=db user=u password=x require_auth=password sslrootcert=/x";
    let plan = read(clear, &[]).unwrap().into_plan().unwrap();
    assert_eq!(plan.endpoints[0].methods, AuthMethods::PASSWORD);
    let text =
        plan_error("host=db password=x require_auth=password sslrootcert=/x sslmode=verify-ca");
    assert!(text.contains("anyone could answer"), "{text}");
    let by_setters = Config::new()
        .ssl_mode(SslMode::VerifyCa)
        .ssl_negotiation(SslNegotiation::Direct)
        .ssl_sni(false)
        .ssl_versions(TlsVersion::V1_3..=TlsVersion::V1_3)
        .ssl_root_cert("/x")
        .channel_binding(ChannelBinding::Require)
        .host("db")
        .user("u")
        .password("x");
    let ssl = by_setters.into_plan().unwrap().config.ssl;
    assert_eq!((ssl.mode, ssl.negotiation), (SslMode::VerifyCa, SslNegotiation::Direct));
    assert_eq!((ssl.sni, ssl.min_version), (false, TlsVersion::V1_3));
}

#[cfg(not(feature = "tls"))]
#[test]
fn setters_of_tls_set_what_they_say() {
    let ssl = Config::new()
        .ssl_negotiation(SslNegotiation::Direct)
        .ssl_sni(false)
        .ssl_versions(TlsVersion::V1_3..=TlsVersion::V1_3)
        .channel_binding(ChannelBinding::Require)
        .ssl;
    assert_eq!((ssl.negotiation, ssl.sni), (SslNegotiation::Direct, false));
    assert_eq!((ssl.min_version, ssl.channel_binding), (TlsVersion::V1_3, ChannelBinding::Require));
}
