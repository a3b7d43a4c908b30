//! The comparisons: each round does the same work over both, in turns, and counts one ratio.

use std::time::Duration;

use crate::{
    linked::Linked,
    nodes::Nodes,
    raw::{Raw, median},
};

/// Prints the table of `rounds` rounds of each comparison whose name contains `filter`.
pub(crate) fn print(rounds: usize, filter: &str) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("# Over the shared socket and over quinn alone, medians of {rounds} rounds\n");
    println!("| what | quinn alone | ours | ratio of speeds, median (least – most) |");
    println!("|---|---|---|---|");
    let table = Table { rounds, filter };
    runtime.block_on(async {
        table.socket_rows().await;
        table.link_rows().await;
        table.node_rows().await;
    });
    println!();
}

/// What is measured how often. Each row is printed as soon as it is known.
///
/// Every measurement has a connection of its own: which of the two threads a task stays on is settled
/// when it begins, and decides more than anything else how long a wake-up takes.
struct Table<'a> {
    rounds: usize,
    filter: &'a str,
}

impl Table<'_> {
    async fn socket_rows(&self) {
        let shared = Raw::over_the_shared_socket;
        self.against_stream("shared socket: 256 MiB one way", async || {
            shared().await.bulk(BULK_SIZE).await
        })
        .await;
        self.against_echo("shared socket: 100 bytes and back, p50", async || {
            shared().await.ping_pong(PINGS).await
        })
        .await;
    }

    async fn link_rows(&self) {
        self.against_stream(
            "link: 256 messages of 1 MiB with receipts, against a stream",
            async || {
                let linked = Linked::new().await;
                linked.messages(BULK_SIZE >> 20, 1 << 20).await * f64::from(1 << 20)
            },
        )
        .await;
        self.against_stream(
            "link: 4,096 messages of 64 KiB with receipts, against a stream",
            async || {
                let linked = Linked::new().await;
                linked.messages(BULK_SIZE >> 16, 64 << 10).await * f64::from(64 << 10)
            },
        )
        .await;
        self.against_writes(
            "link: messages of 100 bytes with receipts, against writes of 100 bytes",
            async || Linked::new().await.messages(MESSAGES, 100).await,
        )
        .await;
        self.against_echo("link: 100 bytes to receipt, p50, against an echo", async || {
            Linked::new().await.ping_pong(PINGS).await
        })
        .await;
    }

    async fn node_rows(&self) {
        self.against_stream(
            "node: 256 messages of 1 MiB with receipts, against a stream",
            async || {
                let nodes = Nodes::new().await;
                nodes.messages(BULK_SIZE >> 20, 1 << 20).await * f64::from(1 << 20)
            },
        )
        .await;
        self.against_writes(
            "node: messages of 100 bytes with receipts, against writes of 100 bytes",
            async || Nodes::new().await.messages(MESSAGES, 100).await,
        )
        .await;
        self.against_echo(
            "node: request of 100 bytes and its reply, p50, against an echo",
            async || Nodes::new().await.requests(PINGS).await,
        )
        .await;
    }

    /// Bytes a second of `ours`, and of a stream over quinn alone.
    async fn against_stream(&self, what: &str, ours: impl AsyncFn() -> f64) {
        let alone = async || Raw::over_quinns_sockets().await.bulk(BULK_SIZE).await;
        self.row(what, mebibytes, alone, ours).await;
    }

    /// Messages a second of `ours`, and writes over quinn alone.
    async fn against_writes(&self, what: &str, ours: impl AsyncFn() -> f64) {
        let alone = async || Raw::over_quinns_sockets().await.writes(MESSAGES).await;
        self.row(what, thousands, alone, ours).await;
    }

    /// The time that `ours` takes, and an echo over quinn alone, both on one thread.
    async fn against_echo(&self, what: &str, ours: impl AsyncFn() -> Duration + Sync) {
        let echo = async || Raw::over_quinns_sockets().await.ping_pong(PINGS).await;
        let alone = async || on_one_thread(async || per_ping(echo().await));
        let ours = async || on_one_thread(async || per_ping(ours().await));
        self.row(what, microseconds, alone, ours).await;
    }

    async fn row(
        &self,
        what: &str,
        show: fn(f64) -> String,
        alone: impl AsyncFn() -> f64,
        ours: impl AsyncFn() -> f64,
    ) {
        if what.contains(self.filter) {
            let comparison = Comparison::new(self.rounds, alone, ours).await;
            println!("{}", comparison.row(what, show));
        }
    }
}

fn mebibytes(speed: f64) -> String {
    format!("{:.0} MiB/s", speed / f64::from(1 << 20))
}

fn thousands(speed: f64) -> String {
    format!("{:.0} k/s", speed / 1e3)
}

fn microseconds(speed: f64) -> String {
    format!("{:.1} µs", 1e6 / speed)
}

/// Does `work` on a thread of its own, without others to wake: how long the system takes to wake a thread
/// is another figure, five times as large, and up to luck.
fn on_one_thread(work: impl AsyncFn() -> f64 + Sync) -> f64 {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(work())
        });
        thread.join().unwrap()
    })
}

/// Latencies as speeds, so that all ratios mean the same.
fn per_ping(time: Duration) -> f64 {
    1.0 / time.as_secs_f64()
}

/// Speeds over quinn alone and over ours, in the order of the rounds.
struct Comparison {
    alone: Vec<f64>,
    ours: Vec<f64>,
}

impl Comparison {
    /// Measures in turns; who is first changes from round to round.
    async fn new(rounds: usize, alone: impl AsyncFn() -> f64, ours: impl AsyncFn() -> f64) -> Self {
        let mut comparison = Self { alone: Vec::new(), ours: Vec::new() };
        for round in 0..rounds {
            if round % 2 == 0 {
                comparison.alone.push(alone().await);
                comparison.ours.push(ours().await);
            } else {
                comparison.ours.push(ours().await);
                comparison.alone.push(alone().await);
            }
        }
        comparison
    }

    fn row(mut self, what: &str, show: fn(f64) -> String) -> String {
        let pairs = self.ours.iter().zip(&self.alone);
        let mut ratios: Vec<f64> = pairs.map(|(ours, alone)| ours / alone).collect();
        let ratio = median(&mut ratios);
        let (alone, ours) = (median(&mut self.alone), median(&mut self.ours));
        format!(
            "| {what} | {} | {} | {ratio:.2} ({:.2} – {:.2}) |",
            show(alone),
            show(ours),
            ratios[0],
            ratios[ratios.len() - 1],
        )
    }
}

/// Half a second or more of work, so that a scheduler's whim does not show.
const BULK_SIZE: usize = 256 << 20;

const MESSAGES: usize = 200_000;

const PINGS: usize = 2_000;
