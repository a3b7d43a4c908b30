//! Keeps a `mainline` node that knows its bootstrap nodes, whatever the network does.
//!
//! `mainline` resolves names once and is alone for ever if that fails, so names are resolved here, again
//! and again until one is found, and a new node is built when the network has changed or nobody answers.

use std::{
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use mainline::async_dht::AsyncDht;
use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{Config, NodePlan, Start, build};
use crate::candidate::is_unicast;

/// Why a new node is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dht) enum Reason {
    /// Addresses or routes are others now.
    NetworkChanged,
    /// Lookup after lookup ended without an answer.
    Unanswered,
}

/// The node that is there, if any.
pub(in crate::dht) type CurrentDht = watch::Receiver<Option<AsyncDht>>;

/// How long one name may take to resolve.
const RESOLUTION_TIME_MAX: Duration = Duration::from_secs(5);

/// Between attempts while nothing can be resolved or bound; doubles up to the maximum.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Between rebuilds because nobody answers: `mainline` itself asks its bootstrap nodes all that time.
const REBUILD_INTERVAL: Duration = Duration::from_secs(10);

/// Bootstrap addresses that are used.
const ADDRESSES_MAX: usize = 16;

/// Builds nodes until it is dropped.
pub(in crate::dht) async fn keep(
    config: Config,
    current: watch::Sender<Option<AsyncDht>>,
    mut rebuild: mpsc::Receiver<Reason>,
) {
    let mut retry = RETRY_MIN;
    loop {
        let Some(dht) = build_from_names(&config).await else {
            let _ = current.send_replace(None);
            // A change of the network cuts the wait short; nobody left to ask ends it all.
            match timeout(retry, rebuild.recv()).await {
                Ok(Some(_)) => retry = RETRY_MIN,
                Ok(None) => return,
                Err(_) => retry = (retry * 2).min(RETRY_MAX),
            }
            continue;
        };
        retry = RETRY_MIN;
        let _ = current.send_replace(Some(dht));
        match rebuild.recv().await {
            Some(Reason::NetworkChanged) => info!("network changed: a new DHT node"),
            Some(Reason::Unanswered) => {
                debug!("no DHT node answers: a new DHT node");
                sleep(REBUILD_INTERVAL).await;
            }
            None => return,
        }
    }
}

async fn build_from_names(config: &Config) -> Option<AsyncDht> {
    let mut nodes = Vec::new();
    for name in &config.bootstrap {
        nodes.extend(resolve(name).await);
    }
    nodes.truncate(ADDRESSES_MAX);
    if nodes.is_empty() {
        debug!(names = ?config.bootstrap, "no bootstrap node can be resolved");
        return None;
    }
    let plan = NodePlan {
        start: Start::From(nodes),
        bind: config.bind,
        port: 0,
        participation: config.participation,
    };
    match tokio::task::spawn_blocking(move || build(&plan)).await {
        Ok(Ok(dht)) => Some(dht.as_async()),
        Ok(Err(error)) => {
            warn!(%error, "no socket for the DHT");
            None
        }
        // The runtime is shutting down.
        Err(_) => None,
    }
}

async fn resolve(name: &str) -> Vec<SocketAddrV4> {
    match timeout(RESOLUTION_TIME_MAX, lookup_host(name)).await {
        Ok(Ok(addresses)) => addresses
            .filter(|address| is_unicast(*address))
            .filter_map(|address| match address {
                SocketAddr::V4(address) => Some(address),
                SocketAddr::V6(_) => None,
            })
            .collect(),
        Ok(Err(error)) => {
            debug!(name, %error, "bootstrap node not resolved");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}
