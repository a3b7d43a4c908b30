//! The keys of the answer to `netcheck`.

use super::{ADDRESSES, COUNT, Key, Kind, Part, Shape, always, sometimes};

const DEPENDENCE: Kind = Kind::OneOf(&[
    "endpoint-independent",
    "address-dependent",
    "address-and-port-dependent",
    "none",
    "unknown",
]);

const OUTLOOK: Key =
    always("outlook", Kind::OneOf(&["opens", "likely", "unlikely", "unknown", "impossible"]));

const MAPPING: Key = always("mapping", DEPENDENCE);

const FILTERING: Key = always("filtering", DEPENDENCE);

const PORTS: Key = always("ports", Kind::Part("ports"));

const HELPERS: Key = always("helpers", COUNT);

/// Its keys, besides `id`.
pub(super) const ID_AND_KEYS: [Key; 19] = [
    always("id", Kind::Part("id")),
    always("udp", Kind::Boolean),
    always("local_addrs", ADDRESSES),
    always("public_addrs", ADDRESSES),
    MAPPING,
    FILTERING,
    PORTS,
    always("addresses", Kind::OneOf(&["one", "several", "unknown"])),
    always("hairpin", Kind::OneOf(&["works", "missing", "unknown"])),
    always("lifetime", Kind::Part("lifetime")),
    always("keep_alive_ms", COUNT),
    always("stun_servers", COUNT),
    always("servers", Kind::List(&Kind::Part("stun_server"))),
    always("dht_nodes", COUNT),
    HELPERS,
    always("helper", Kind::Boolean),
    always("complete", Kind::Boolean),
    always("verdicts", Kind::List(&Kind::Text)),
    always("pairs", Kind::List(&Kind::Part("pair"))),
];

/// What stands inside them.
pub(super) const PORTS_PART: Part = Part {
    name: "ports",
    shape: Shape::Object(&[
        always(
            "allocation",
            Kind::OneOf(&["preserving", "sequential", "block", "random", "unknown"]),
        ),
        sometimes("step", Kind::Signed),
        sometimes("low", Kind::Integer(1, 65_535)),
        sometimes("high", Kind::Integer(1, 65_535)),
        always("seen", COUNT),
        sometimes("by_chance_once_in", COUNT),
    ]),
};

/// How long a mapping lives.
pub(super) const LIFETIME_PART: Part = Part {
    name: "lifetime",
    shape: Shape::Object(&[
        always("state", Kind::OneOf(&["not-measured", "not-found", "ports-kept", "measured"])),
        sometimes("at_least_ms", COUNT),
        sometimes("less_than_ms", COUNT),
    ]),
};

/// A server that was asked.
pub(super) const STUN_SERVER_PART: Part = Part {
    name: "stun_server",
    shape: Shape::Object(&[
        always("name", Kind::Text),
        always("addr", Kind::Text),
        sometimes("rtt_ms", Kind::Decimal),
    ]),
};

/// A peer that was named.
pub(super) const PAIR_PART: Part = Part {
    name: "pair",
    shape: Shape::Object(&[
        always("peer", Kind::Part("peer_id")),
        always("addrs", ADDRESSES),
        MAPPING,
        FILTERING,
        PORTS,
        sometimes("record_age_ms", COUNT),
        HELPERS,
        OUTLOOK,
        always("verdict", Kind::Text),
        always("ways", Kind::List(&Kind::Part("way"))),
    ]),
};

/// A way to it.
pub(super) const WAY_PART: Part = Part {
    name: "way",
    shape: Shape::Object(&[
        always("method", Kind::Text),
        always("why", Kind::Text),
        OUTLOOK,
        always("takes", Kind::Text),
    ]),
};
