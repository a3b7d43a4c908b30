//! What stands below the flags in `--help`.

pub(super) const MAIN: &str = "\
Examples:
  p2p-node demo                                          see it work, without internet
  p2p-node --mode server --service myapi:v1              on one machine
  p2p-node --mode client --service myapi:v1              on another; then type: say service hello
  echo 'say service hello' | p2p-node --service myapi:v1
  p2p-node --mode server --service myapi:v1 --service-secret-file secret --bind 0.0.0.0:41641
  p2p-node --mode server --service myapi:v1 --stdin-eof ignore < /dev/null

Commands on stdin:
  send <peer> {\"type\": \"request\", \"payload\": \"hello\"}
  say <peer> hello
  list, status, ticket, connect <peer>, disconnect <peer>, help, quit

A peer is: service (of the node), service:NAME, a peer id (p2p-node id), or a ticket (p2p-node ticket).
A ticket is a secret: put it into a file (--connect-file) or the environment (P2P_NODE_CONNECT).

Every flag can be set in the environment as P2P_NODE_FLAG, for instance P2P_NODE_SERVICE.

Exit codes: 0 done, 1 bug, 2 usage, 3 configuration or identity, 4 no network, 5 peer not found or not
reached, 6 refused or not who it should be, 7 timeout, 130 interrupted twice.";

pub(super) const RUN: &str = "\
Examples:
  p2p-node run --mode server --service myapi:v1
  p2p-node run --mode client --connect-file ticket.txt";

pub(super) const SEND: &str = "\
Examples:
  p2p-node send service:myapi:v1 hello
  tar c folder | p2p-node send service:myapi:v1 - --type archive
  p2p-node send --peer-file ticket.txt hello
  P2P_NODE_PEER=\"$(ssh host p2p-node ticket)\" p2p-node send hello

Ends with 0 when the other program has the message; 5 if the peer is not found or not reached, 6 if it
refuses, 7 if time is over.";

pub(super) const LISTEN: &str = "\
Examples:
  p2p-node listen --service myapi:v1
  p2p-node listen --service myapi:v1 --count 1 --timeout 1m --payload-only > folder.tar

Ends with 0 after --count messages, or when it is stopped; 7 if time is over.";

pub(super) const CONNECT: &str = "\
Examples:
  p2p-node connect service:myapi:v1
  p2p-node connect -v --peer-file ticket.txt             every step, what is tried and why
  p2p-node connect -v service:myapi:v1 --watch 1m        and whether the path changes

Ends with 0 when the link is up, and stays up as long as it is watched; 5 if the peer is not found, not
reached or lost again, 6 if it refuses or is not who it should be, 7 if time is over.";

pub(super) const PING: &str = "\
Examples:
  p2p-node ping service:myapi:v1
  p2p-node ping --peer-file ticket.txt --count 10

Ends with 0 if any answer came, else with 5.";

pub(super) const NETCHECK: &str = "\
Examples:
  p2p-node netcheck
  p2p-node netcheck service:myapi:v1
  p2p-node netcheck --json --peer-file ticket.txt
  p2p-node netcheck --lifetime

Ends within five seconds, with what is known by then; with --lifetime in two minutes more. The exit code is
0 if UDP comes back and the peer that is named, if one is, may be reached; 4 if no UDP comes back; 5 if the
peer is not found, or no way leads to it from this network.";

pub(super) const ID: &str = "\
Examples:
  p2p-node id
  p2p-node id --identity ./bob.key";

pub(super) const TICKET: &str = "\
Examples:
  p2p-node ticket
  p2p-node ticket --addrs 192.168.1.20:41641 [2001:db8::9]:41641
  P2P_NODE_CONNECT=\"$(ssh host p2p-node ticket)\" p2p-node";

pub(super) const DEMO: &str = "\
Examples:
  p2p-node demo
  p2p-node demo --nat symmetric --peer-nat full-cone --rtt 200
  p2p-node demo --nat symmetric --peer-nat symmetric     (cannot be opened, and says why)";

pub(super) const TESTNET: &str = "\
Examples:
  p2p-node testnet
  p2p-node testnet --bind 192.168.1.20 --nodes 40";

pub(super) const SCHEMA: &str = "\
Examples:
  p2p-node schema > p2p-stdio.schema.json
  p2p-node schema --proto ./proto";

pub(super) const COMPLETIONS: &str = "\
Examples:
  p2p-node completions bash > ~/.local/share/bash-completion/completions/p2p-node
  p2p-node completions fish > ~/.config/fish/completions/p2p-node.fish";

pub(super) const MAN: &str = "\
Examples:
  p2p-node man | man -l -
  p2p-node man ~/.local/share/man/man1";
