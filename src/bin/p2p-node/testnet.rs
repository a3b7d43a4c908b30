//! `p2p-node testnet`: a DHT and STUN servers for a network without internet.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
};

use p2p_node::{
    bridge::exit::{self, exit_code},
    dht::testnet::Testnet,
    failure::{Code, Failure},
    node::{Clock, stun_service},
    transport::sockets::udp::UdpSocket,
};
use quinn::AsyncUdpSocket;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::{exit::complain, signals, watchdog::Watchdog};

/// What the network is made of.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TestnetArgs {
    /// Address to run on (repeat for several) [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    bind: Vec<Ipv4Addr>,
    /// Nodes of the DHT
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=500), env = "P2P_NODE_NODES")]
    nodes: u16,
}

/// The first line of output, for programs.
#[derive(Debug, Serialize)]
struct Announcement {
    bootstrap: Vec<String>,
    stun: Vec<String>,
}

/// Runs the network until it is stopped.
pub(crate) async fn testnet(args: TestnetArgs, watchdog: Watchdog) -> ExitCode {
    let (servers, announcement, _testnet) = match begin(&args).await {
        Ok(begun) => begun,
        Err(error) => {
            let failure = Failure::new(Code::AddressInUse, "the test network cannot start")
                .because(error.to_string())
                .hint("name addresses of this machine: --bind 127.0.0.1");
            complain(&failure);
            return ExitCode::from(exit_code(failure.code));
        }
    };
    let (_sender, mut signals) = signals::listen(watchdog);
    if announce(&announcement).is_err() {
        // Nobody reads where the network is, so nobody will use it.
        return ExitCode::from(exit::INTERNAL);
    }
    // Ends with the first signal; if none can be had, with the process.
    let _ = signals.recv().await;
    drop(servers);
    ExitCode::SUCCESS
}

async fn begin(args: &TestnetArgs) -> io::Result<(JoinSet<()>, Announcement, Testnet)> {
    let addresses = match args.bind.as_slice() {
        [] => vec![Ipv4Addr::LOCALHOST],
        some => some.to_vec(),
    };
    let testnet = Testnet::start(&addresses, usize::from(args.nodes)).await?;
    let mut servers = JoinSet::new();
    let mut stun = Vec::new();
    // Two see whether a NAT treats destinations alike; on one address they differ in their ports.
    for &address in addresses.iter().cycle().take(STUN_SERVERS.max(addresses.len())) {
        let socket = UdpSocket::bind(SocketAddr::from((address, 0))).map_err(io::Error::other)?;
        stun.push(socket.local_addr()?.to_string());
        servers.spawn(stun_service::serve(Arc::new(socket), Clock::system()));
    }
    let announcement = Announcement { bootstrap: testnet.bootstrap(), stun };
    Ok((servers, announcement, testnet))
}

fn announce(announcement: &Announcement) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let line = serde_json::to_string(announcement).map_err(io::Error::other)?;
    let [bootstrap, stun] = [&announcement.bootstrap, &announcement.stun].map(|all| all.join(","));
    writeln!(
        out,
        "{line}
# A network without internet. It runs until you press Ctrl-C. Use it with the flags
#   --no-lan --dht-bootstrap {bootstrap} --stun {stun}
# or, in a shell, for every node that you start there:
export P2P_NODE_NO_LAN=1
export P2P_NODE_DHT_BOOTSTRAP={bootstrap}
export P2P_NODE_STUN={stun}"
    )?;
    out.flush()
}

const STUN_SERVERS: usize = 2;
