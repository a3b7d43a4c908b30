//! The comparisons: each round does the same work over both, in turns, and counts one ratio.

use std::time::Duration;

use crate::{
    linked::Linked,
    nodes::Nodes,
    raw::{Raw, median},
};

/// Prints the table of `rounds` rounds of each comparison.
pub(crate) fn print(rounds: usize) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let rows = runtime.block_on(async {
        [socket_rows(rounds).await, link_rows(rounds).await, node_rows(rounds).await].concat()
    });
    println!("# Over the shared socket and over quinn alone, medians of {rounds} rounds\n");
    println!("| what | quinn alone | ours | ratio of speeds, median (least – most) |");
    println!("|---|---|---|---|");
    for row in rows {
        println!("{row}");
    }
    println!();
}

/// Every measurement has a connection of its own: which of the two threads a task stays on is settled
/// when it begins, and decides more than anything else how long a wake-up takes.
async fn socket_rows(rounds: usize) -> Vec<String> {
    let raw = Raw::over_quinns_sockets;
    let shared = Raw::over_the_shared_socket;
    vec![
        Comparison::new(
            rounds,
            async || raw().await.bulk(BULK_SIZE).await,
            async || shared().await.bulk(BULK_SIZE).await,
        )
        .await
        .row("shared socket: 256 MiB one way", mebibytes),
        Comparison::new(
            rounds,
            async || on_one_thread(async || per_ping(raw().await.ping_pong(PINGS).await)),
            async || on_one_thread(async || per_ping(shared().await.ping_pong(PINGS).await)),
        )
        .await
        .row("shared socket: 100 bytes and back, p50", microseconds),
    ]
}

async fn link_rows(rounds: usize) -> Vec<String> {
    let raw = Raw::over_quinns_sockets;
    vec![
        Comparison::new(
            rounds,
            async || raw().await.bulk(BULK_SIZE).await,
            async || {
                let linked = Linked::new().await;
                linked.messages(BULK_SIZE >> 20, 1 << 20).await * f64::from(1 << 20)
            },
        )
        .await
        .row("link: 256 messages of 1 MiB with receipts, against a stream", mebibytes),
        Comparison::new(
            rounds,
            async || raw().await.bulk(BULK_SIZE).await,
            async || {
                let linked = Linked::new().await;
                linked.messages(BULK_SIZE >> 16, 64 << 10).await * f64::from(64 << 10)
            },
        )
        .await
        .row("link: 4,096 messages of 64 KiB with receipts, against a stream", mebibytes),
        Comparison::new(
            rounds,
            async || raw().await.writes(MESSAGES).await,
            async || Linked::new().await.messages(MESSAGES, 100).await,
        )
        .await
        .row("link: messages of 100 bytes with receipts, against writes of 100 bytes", thousands),
        Comparison::new(
            rounds,
            async || on_one_thread(async || per_ping(raw().await.ping_pong(PINGS).await)),
            async || on_one_thread(async || per_ping(Linked::new().await.ping_pong(PINGS).await)),
        )
        .await
        .row("link: 100 bytes to receipt, p50, against an echo", microseconds),
    ]
}

async fn node_rows(rounds: usize) -> Vec<String> {
    let raw = Raw::over_quinns_sockets;
    vec![
        Comparison::new(
            rounds,
            async || raw().await.bulk(BULK_SIZE).await,
            async || {
                let speed = Nodes::new().await.messages(BULK_SIZE >> 20, 1 << 20).await;
                speed * f64::from(1 << 20)
            },
        )
        .await
        .row("node: 256 messages of 1 MiB with receipts, against a stream", mebibytes),
        Comparison::new(
            rounds,
            async || raw().await.writes(MESSAGES).await,
            async || Nodes::new().await.messages(MESSAGES, 100).await,
        )
        .await
        .row("node: messages of 100 bytes with receipts, against writes of 100 bytes", thousands),
        Comparison::new(
            rounds,
            async || on_one_thread(async || per_ping(raw().await.ping_pong(PINGS).await)),
            async || on_one_thread(async || per_ping(Nodes::new().await.requests(PINGS).await)),
        )
        .await
        .row("node: request of 100 bytes and its reply, p50, against an echo", microseconds),
    ]
}

fn mebibytes(speed: f64) -> String {
    format!("{:.0} MiB/s", speed / f64::from(1 << 20))
}

fn thousands(speed: f64) -> String {
    format!("{:.0} k/s", speed / 1e3)
}

fn microseconds(speed: f64) -> String {
    format!("{:.0} µs", 1e6 / speed)
}

/// Does `work` on a thread of its own, without others to wake: how long the system takes to wake a thread
/// is another figure, five times as large, and up to luck.
fn on_one_thread(work: impl AsyncFn() -> f64 + Send) -> f64 {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
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

    fn row(mut self, what: &str, show: impl Fn(f64) -> String) -> String {
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
