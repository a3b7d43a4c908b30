//! The flags of `p2p-node netcheck`.

use std::time::Duration;

use clap::{ArgMatches, builder::BoolishValueParser, error::ErrorKind};
use p2p_node::bridge::grammar::LIFETIME_MS;

use super::{
    PeerName,
    network::{NodeArgs, NodeFlags, conflict},
    oneshot::PeerFlags,
    values,
};

/// What to find out.
#[derive(Debug)]
pub(crate) struct NetcheckArgs {
    pub(crate) peer: Option<PeerName>,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) json: bool,
    pub(crate) node: NodeArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct NetcheckFlags {
    /// A peer to judge the way to: service, service:NAME, a peer id or a ticket; it is looked up, not dialled
    #[arg(value_name = "PEER")]
    first: Option<String>,
    /// Measure how long the NAT keeps a mapping that nothing goes through, with silences of up to TIME
    /// [default: 2m]; the check takes as long. 4s to 10m
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2m",
        value_parser = values::duration,
        env = "P2P_NODE_LIFETIME"
    )]
    lifetime: Option<Duration>,
    /// How long it may take in all [default: 5 seconds, and what --lifetime takes]
    #[arg(long, value_name = "TIME", value_parser = values::duration, env = "P2P_NODE_TIMEOUT")]
    timeout: Option<Duration>,
    /// Print one JSON object
    #[arg(long, value_parser = BoolishValueParser::new(), env = "P2P_NODE_JSON")]
    json: bool,
    #[command(flatten)]
    peer: PeerFlags,
    #[command(flatten)]
    node: NodeFlags,
}

impl NetcheckArgs {
    pub(super) fn from_flags(
        flags: NetcheckFlags,
        matches: &ArgMatches,
    ) -> Result<Self, clap::Error> {
        let peer = flags.peer.or_first(flags.first, matches)?;
        let (least, most) = LIFETIME_MS;
        let limits = Duration::from_millis(least)..=Duration::from_millis(most);
        if flags.lifetime.is_some_and(|lifetime| !limits.contains(&lifetime)) {
            let text = "--lifetime takes 4s to 10m: below, round trips would count, and no NAT is \
                        known to keep UDP for longer and not for ever";
            return Err(conflict(ErrorKind::ValueValidation, text));
        }
        Ok(Self {
            peer,
            lifetime: flags.lifetime,
            timeout: flags.timeout,
            json: flags.json,
            node: NodeArgs::from_flags(flags.node, matches)?,
        })
    }
}
