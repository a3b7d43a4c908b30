//! The answer to `netcheck` for people: a table of facts, then what they mean.

use super::{addresses, clean, lines};
use crate::bridge::reply::netcheck::{
    LifetimeReply, NetcheckReply, PairReply, PortsReply, ServerReply, WayReply,
};

/// The table, and the verdicts below it.
pub fn netcheck_lines(netcheck: &NetcheckReply) -> String {
    let family = |is_wanted: fn(&std::net::SocketAddr) -> bool| {
        let local: Vec<_> = netcheck.local_addrs.iter().copied().filter(is_wanted).collect();
        let public: Vec<_> = netcheck.public_addrs.iter().copied().filter(is_wanted).collect();
        match (local.is_empty(), public.is_empty()) {
            (true, true) => "none".to_owned(),
            (_, false) => format!("{}, seen as {}", addresses(&local), addresses(&public)),
            (false, true) => format!("{}, not seen from outside", addresses(&local)),
        }
    };
    let mut rows = vec![
        ("UDP", if netcheck.udp { "comes back" } else { "nothing comes back" }.to_owned()),
        ("IPv4", family(|at| at.is_ipv4())),
        ("IPv6", family(|at| at.is_ipv6())),
        ("NAT mapping", dependence(netcheck.mapping, "no NAT")),
        ("filtering", dependence(netcheck.filtering, "no filter")),
    ];
    if netcheck.mapping != "none" {
        rows.extend([
            ("ports", ports(&netcheck.ports)),
            ("addresses", in_words(netcheck.addresses)),
            ("hairpin", in_words(netcheck.hairpin)),
            ("lifetime", lifetime(&netcheck.lifetime)),
        ]);
    }
    rows.extend(netcheck.servers.iter().map(|server| ("STUN server", self::server(server))));
    if netcheck.servers.is_empty() {
        rows.push(("STUN server", "none asked".to_owned()));
    }
    rows.push(("DHT nodes", format!("{} answered", netcheck.dht_nodes)));
    let helpers = match (netcheck.helper, netcheck.helpers) {
        (true, _) => "this node is one".to_owned(),
        (false, 0) => "none linked; only servers need some".to_owned(),
        (false, count) => format!("{count} linked"),
    };
    rows.push(("helpers", helpers));
    for pair in &netcheck.pairs {
        rows.extend(pair_rows(pair));
    }
    let table = lines(rows.iter().map(|(name, value)| format!("{name:<12} {}", clean(value))));
    let verdicts = netcheck.verdicts.iter().map(|verdict| format!("=> {}", clean(verdict)));
    let missing = (!netcheck.complete)
        .then(|| "=> Not everything was found out in time; what is above was.".to_owned());
    lines([table, String::new()].into_iter().chain(verdicts).chain(missing))
}

fn pair_rows(pair: &PairReply) -> Vec<(&'static str, String)> {
    let age = pair.record_age_ms.map(|age_ms| format!(", record {} s old", age_ms / 1_000));
    let filtering = match pair.filtering {
        "unknown" => String::new(),
        known => format!(", filtering {}", dependence(known, "none")),
    };
    let chosen = match pair.ports.allocation {
        "unknown" => String::new(),
        _ => format!(", {}", ports(&pair.ports)),
    };
    let nat = format!("{}{filtering}{chosen}", dependence(pair.mapping, "no NAT"));
    let mut rows = vec![
        ("peer", format!("{}{}", pair.peer, age.unwrap_or_default())),
        ("  at", addresses(&pair.addrs)),
        ("  NAT mapping", nat),
        ("  helpers", pair.helpers.to_string()),
    ];
    rows.extend(pair.ways.iter().map(|way| ("  way", self::way(way))));
    rows
}

fn way(way: &WayReply) -> String {
    let WayReply { method, why, outlook, takes } = way;
    match *outlook {
        "impossible" => format!("{method}: {why}"),
        outlook => format!("{method} ({outlook}, {takes}): {why}"),
    }
}

fn server(server: &ServerReply) -> String {
    let ServerReply { name, addr, rtt_ms } = server;
    let shown = match *name == addr.to_string() {
        true => name.clone(),
        false => format!("{name} ({addr})"),
    };
    match rtt_ms {
        Some(rtt_ms) => format!("{shown} answered after {rtt_ms:.0} ms"),
        None => format!("{shown} did not answer"),
    }
}

fn ports(ports: &PortsReply) -> String {
    let PortsReply { step, low, high, seen, by_chance_once_in, .. } = ports;
    let kind = match (ports.allocation, step, low.zip(*high)) {
        ("preserving", _, _) => "the socket's own".to_owned(),
        ("sequential", Some(step), _) => format!("in order, in steps of {step}"),
        ("block", _, Some((low, high))) => format!("within {low}–{high}"),
        ("random", _, _) => "without order".to_owned(),
        (_, _, _) => return "not known".to_owned(),
    };
    let chance = by_chance_once_in.map(|times| format!(", by chance once in {times}"));
    let basis = match seen {
        0 => String::new(),
        seen => format!("; {seen} seen"),
    };
    format!("{kind}{}{basis}", chance.unwrap_or_default())
}

fn lifetime(lifetime: &LifetimeReply) -> String {
    let seconds = |millis: u64| format!("{} s", millis.div_ceil(100) / 10);
    match (lifetime.state, lifetime.at_least_ms, lifetime.less_than_ms) {
        ("not-measured", _, _) => "not measured; --lifetime measures it".to_owned(),
        ("ports-kept", _, _) => "cannot be told: the NAT keeps ports".to_owned(),
        (_, Some(life), None) => format!("{} or more", seconds(life)),
        (_, None, Some(end)) => format!("less than {}", seconds(end)),
        (_, Some(life), Some(end)) => format!("{} to {}", seconds(life), seconds(end)),
        (_, None, None) => "not known".to_owned(),
    }
}

fn dependence(word: &str, none: &str) -> String {
    match word {
        "none" => none.to_owned(),
        "address-and-port-dependent" => "address- and port-dependent".to_owned(),
        word => in_words(word),
    }
}

fn in_words(word: &str) -> String {
    if word == "unknown" { "not known".to_owned() } else { word.to_owned() }
}
