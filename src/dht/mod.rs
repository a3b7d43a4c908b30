//! Rendezvous through the BitTorrent mainline DHT.
