//! The picture in `main.rs`, built piece by piece.

use std::{any::Any, cell::Cell, env, fmt, fs, process::Command, rc::Rc, time::Duration};

use super::{
    command::run,
    namespace::{Namespace, sweep},
    nat::Nat,
    process::Process,
    user_nat::NatBox,
};

/// Everything above a home or a host. Whatever is below keeps what is above it alive.
pub struct KernelLab {
    core: Rc<Core>,
}

/// What lies between any two public addresses.
#[derive(Clone, Copy, Debug)]
pub struct Distance {
    pub round_trip: Duration,
    /// Of the packets in each direction.
    pub percent_lost: u8,
}

/// Why there can be no lab here.
#[derive(Debug)]
pub struct Skip(String);

struct Core {
    /// Declared first, so dropped first: it runs in the namespace.
    _delay: Option<Process>,
    namespace: Namespace,
    uplinks: Cell<u8>,
}

/// A router with a NAT on its outside: a home's, or a carrier's with homes behind it.
pub struct Router {
    shared: Rc<Shared>,
}

struct Shared {
    /// Declared first, so dropped first: it runs in the namespace.
    nat_box: Option<NatBox>,
    namespace: Namespace,
    /// Its address on the outside.
    address: String,
    /// The first three numbers of its inside addresses.
    network: &'static str,
    inside: Cell<u8>,
    _upstream: Upstream,
}

/// Whatever a namespace is connected to, kept for as long as the namespace.
type Upstream = Rc<dyn Any>;

/// A machine on which programs run.
pub struct Host {
    /// Its programs keep it, too.
    machine: Rc<Machine>,
}

struct Machine {
    namespace: Namespace,
    _upstream: Upstream,
}

impl KernelLab {
    /// A lab in which packets arrive at once.
    ///
    /// # Errors
    ///
    /// [`Skip`] if this machine or this user cannot have one.
    pub fn new() -> Result<Self, Skip> {
        check_means()?;
        sweep();
        Ok(Self::build(None))
    }

    /// A lab in which what separates people is their access lines: homes are this far from each other, and
    /// half as far from public hosts, which are close together.
    ///
    /// # Errors
    ///
    /// [`Skip`] if this machine or this user cannot have one.
    pub fn with_access_lines(round_trip: Duration) -> Result<Self, Skip> {
        check_means()?;
        sweep();
        // Every path between homes goes along two lines.
        let line = Distance { round_trip: round_trip / 2, percent_lost: 0 };
        Ok(Self::build(Some((line, Some(ACCESS)))))
    }

    /// A lab in which public addresses are this far from each other.
    ///
    /// # Errors
    ///
    /// [`Skip`] if this machine or this user cannot have one.
    pub fn with(distance: Distance) -> Result<Self, Skip> {
        check_means()?;
        sweep();
        Ok(Self::build(Some((distance, None))))
    }

    fn build(distance: Option<(Distance, Option<&str>)>) -> Self {
        let namespace = Namespace::new("core");
        namespace.set("net.ipv4.ip_forward=1");
        // What nobody has is lost without a word, as it is out there.
        namespace.ip("route add blackhole default");
        let delay = distance.map(|(distance, access)| keep_apart(&namespace, distance, access));
        Self { core: Rc::new(Core { _delay: delay, namespace, uplinks: Cell::new(0) }) }
    }

    /// A host without NAT, with all of these addresses.
    pub fn public_host(&self, addresses: &[&str]) -> Host {
        let namespace = Namespace::new("public");
        self.core.connect(&namespace, addresses);
        Host::new(namespace, self.upstream())
    }

    /// Loses what the public addresses send to each other.
    pub fn block(&self, one: &str, other: &str) {
        self.core.namespace.load_rules(&format!(
            "table ip blocked {{
                chain forward {{
                    type filter hook forward priority filter
                    ip saddr {one} ip daddr {other} drop
                    ip saddr {other} ip daddr {one} drop
                }}
            }}"
        ));
    }

    /// Takes every [`Self::block`] back.
    pub fn unblock(&self) {
        self.core.namespace.load_rules("delete table ip blocked");
    }

    /// A home with a public address of its own.
    pub fn home(&self, nat: Nat) -> Router {
        self.router("home", nat, HOME)
    }

    /// A carrier that gives its customers addresses from its own private network.
    pub fn carrier(&self, nat: Nat) -> Router {
        self.router("carrier", nat, CARRIER)
    }

    fn upstream(&self) -> Upstream {
        Rc::<Core>::clone(&self.core)
    }

    fn router(&self, label: &str, nat: Nat, network: &'static str) -> Router {
        let namespace = Namespace::new(label);
        let address = format!("203.0.113.{}", self.core.uplinks.get() + 1);
        self.core.connect(&namespace, &[&address]);
        Router::new(namespace, nat, (address, network), self.upstream())
    }
}

/// Where the public addresses of routers are.
const ACCESS: &str = "203.0.113.0/24";

/// What the inside addresses of homes and of carriers begin with.
const HOME: &str = "192.168.1";
const CARRIER: &str = "100.64.0";

/// The core's own address, the same on every link: the next hop of all who are connected to it.
const NEXT_HOP: &str = "192.0.2.1";

impl Core {
    /// Connects the interface `wan` of `outside`, which gets these public addresses.
    fn connect(&self, outside: &Namespace, addresses: &[&str]) {
        let number = self.uplinks.get() + 1;
        self.uplinks.set(number);
        let (core, link) = (&self.namespace, format!("up{number}"));
        core.ip(&format!("link add {link} type veth peer name wan netns {}", outside.name()));
        core.ip(&format!("addr add {NEXT_HOP}/32 dev {link}"));
        core.ip(&format!("link set {link} up"));
        outside.ip("link set wan up");
        for address in addresses {
            outside.ip(&format!("addr add {address}/32 dev wan"));
            // The kernel may still be busy removing a host that had the address before.
            core.ip(&format!("route replace {address}/32 dev {link}"));
        }
        outside.ip(&format!("route add {NEXT_HOP} dev wan"));
        outside.ip(&format!("route add default via {NEXT_HOP} dev wan"));
    }
}

impl Router {
    fn new(
        namespace: Namespace,
        nat: Nat,
        (address, network): (String, &'static str),
        upstream: Upstream,
    ) -> Self {
        namespace.set("net.ipv4.ip_forward=1");
        namespace.ip("link add lan type bridge");
        // Frames inside the home are none of the firewall's business.
        namespace.set("net.bridge.bridge-nf-call-iptables=0");
        namespace.ip(&format!("addr add {network}.1/24 dev lan"));
        namespace.ip("link set lan up");
        let inside = format!("{network}.0/24");
        namespace.load_rules(&nat.rules(&inside));
        let nat_box = match nat {
            Nat::InUserSpace(nat) => Some(NatBox::start(&namespace, nat, &address, &inside)),
            Nat::Masquerade
            | Nat::AddressRestricted
            | Nat::FullCone
            | Nat::FullyRandom
            | Nat::Block { .. } => None,
        };
        Self {
            shared: Rc::new(Shared {
                nat_box,
                namespace,
                address,
                network,
                inside: Cell::new(0),
                _upstream: upstream,
            }),
        }
    }

    /// A host on the inside.
    pub fn host(&self) -> Host {
        let namespace = Namespace::new("host");
        self.connect(&namespace);
        Host::new(namespace, self.upstream())
    }

    /// Its address on the outside.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Its NAT, if that is one in user space: the kernel's own cannot be told to forget.
    pub fn any_nat_box(&self) -> Option<&NatBox> {
        self.shared.nat_box.as_ref()
    }

    /// Its NAT, which is one in user space.
    ///
    /// # Panics
    ///
    /// If it is the kernel's own.
    pub fn nat_box(&self) -> &NatBox {
        self.any_nat_box().expect("the story needs a NAT in user space")
    }

    /// Lets everybody in by this port, to the same port of the first host.
    pub fn forward_port(&self, port: u16) {
        self.shared.namespace.load_rules(&format!(
            "table ip forwarded {{
                chain admit {{
                    type nat hook prerouting priority dstnat
                    iifname wan udp dport {port} dnat to {}.20
                }}
            }}",
            self.shared.network
        ));
    }

    /// Makes it forget UDP flows after this silence.
    pub fn forget_after(&self, seconds: u32) {
        for timer in ["udp_timeout", "udp_timeout_stream"] {
            self.shared.namespace.set(&format!("net.netfilter.nf_conntrack_{timer}={seconds}"));
        }
    }

    /// Takes the line to the internet away.
    pub fn unplug(&self) {
        self.shared.namespace.ip("link set wan down");
    }

    /// A home on the inside, if this is a carrier.
    pub fn home(&self, nat: Nat) -> Self {
        let namespace = Namespace::new("home");
        let address = self.connect(&namespace);
        Self::new(namespace, nat, (address, HOME), self.upstream())
    }

    fn upstream(&self) -> Upstream {
        Rc::<Shared>::clone(&self.shared)
    }

    /// Connects the interface `wan` of `inside`, which gets the next inside address: this.
    fn connect(&self, inside: &Namespace) -> String {
        let number = self.shared.inside.get();
        self.shared.inside.set(number + 1);
        let (router, network, link) =
            (&self.shared.namespace, self.shared.network, format!("in{number}"));
        router.ip(&format!("link add {link} type veth peer name wan netns {}", inside.name()));
        router.ip(&format!("link set {link} master lan"));
        router.ip(&format!("link set {link} up"));
        let address = format!("{network}.{}", 20 + number);
        inside.ip(&format!("addr add {address}/24 dev wan"));
        inside.ip("link set wan up");
        inside.ip(&format!("route add default via {network}.1"));
        address
    }
}

impl Host {
    fn new(namespace: Namespace, upstream: Upstream) -> Self {
        let machine = Machine { namespace, _upstream: upstream };
        Self { machine: Rc::new(machine) }
    }

    /// Takes its interface away, and gives it one in the network of `router`: another Wi-Fi.
    pub fn move_to(&self, router: &Router) {
        self.machine.namespace.ip("link delete wan");
        router.connect(&self.machine.namespace);
    }

    /// Gives its interface another inside address of the same network.
    pub fn renumber(&self, address: &str, next_hop: &str) {
        let namespace = &self.machine.namespace;
        namespace.ip("addr flush dev wan");
        namespace.ip(&format!("addr add {address}/24 dev wan"));
        namespace.ip(&format!("route add default via {next_hop}"));
    }

    /// The name of its namespace.
    pub fn name(&self) -> &str {
        self.machine.namespace.name()
    }

    /// Datagrams that its programs have sent so far.
    pub fn datagrams_sent(&self) -> u64 {
        let arguments = format!("netns exec {} cat /proc/net/snmp", self.name());
        let counters = run("ip", &arguments, "").unwrap_or_else(|complaint| panic!("{complaint}"));
        // A line of names, then one of values; after the title, `OutDatagrams` is the fourth.
        let udp = counters.lines().filter(|line| line.starts_with("Udp:")).nth(1);
        let sent = udp.and_then(|values| values.split(' ').nth(4)?.parse().ok());
        sent.unwrap_or_else(|| panic!("no counters of UDP in {counters}"))
    }

    /// Starts a program on it; the program ends with the returned value.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Process {
        let machine = Rc::<Machine>::clone(&self.machine);
        // By its files there a client finds a server on the same machine without any network.
        let own = machine.namespace.directory();
        let mut command = command_in(self.name(), program, arguments);
        Process::start(command.env("XDG_RUNTIME_DIR", own), machine)
    }
}

/// Starts a program that belongs to the lab in a namespace.
pub fn start_in(namespace: &Namespace, program: &str, arguments: &[&str]) -> Process {
    // Whoever holds it keeps the namespace, not the other way round.
    Process::start(&mut command_in(namespace.name(), program, arguments), Rc::new(()))
}

fn command_in(namespace: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]).args(arguments);
    command
}

/// Sends every packet that crosses the core through a program that holds it for a while, or loses it.
///
/// With a network of access lines the distance is that along each of them.
fn keep_apart(core: &Namespace, distance: Distance, access: Option<&str>) -> Process {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/delay.py");
    let delay_ms = (distance.round_trip / 2).as_millis().to_string();
    let percent_lost = distance.percent_lost.to_string();
    let arguments = [script, &delay_ms, &percent_lost].into_iter().chain(access);
    let arguments: Vec<&str> = arguments.collect();
    let delay = start_in(core, "python3", &arguments);
    delay.wait_for("ready", Duration::from_secs(10));
    core.ip("link set delay0 up");
    core.ip("route add default dev delay0 table 100");
    core.ip("rule add iif delay0 lookup main pref 10");
    core.ip("rule add lookup 100 pref 20");
    delay
}

/// A lab, or, where there can be none, `None` and the reason on stderr.
///
/// # Panics
///
/// If there can be none under `CI=true`, where nothing is skipped.
pub fn or_skip(lab: Result<KernelLab, Skip>) -> Option<KernelLab> {
    lab.map_err(|skip| {
        assert!(env::var("CI").as_deref() != Ok("true"), "{skip}");
        eprintln!("SKIPPED: {skip}");
    })
    .ok()
}

fn check_means() -> Result<(), Skip> {
    let user = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
    if !user.is_ok_and(|uid| uid == 0) {
        return Err(Skip("network namespaces need root".into()));
    }
    for (program, question) in [
        ("ip", "-V"),
        ("nft", "--version"),
        ("python3", "--version"),
        // A container's root is often not allowed to make namespaces.
        ("unshare", "--net true"),
    ] {
        run(program, question, "").map_err(Skip)?;
    }
    Ok(())
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no lab of network namespaces here: {}", self.0)
    }
}
