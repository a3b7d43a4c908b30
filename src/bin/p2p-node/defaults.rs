//! Public servers that are asked when the user names none. Nothing in tests, benches or the demo uses them.

/// Asked where we are seen from; any two that answer are enough.
pub(crate) const PUBLIC_STUN_SERVERS: [&str; 3] =
    ["stun.l.google.com:19302", "stun.cloudflare.com:3478", "stun.nextcloud.com:3478"];

/// Ways into the BitTorrent mainline DHT; any one that answers is enough.
pub(crate) const PUBLIC_DHT_BOOTSTRAP: [&str; 4] = [
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "dht.libtorrent.org:25401",
    "relay.pkarr.org:6881",
];
