//! How many messages a second the bridge carries: `cargo bench --bench stdio`.
//!
//! `session` is all of it but a node: a writer, a pipe, the bridge, a pipe, and a reader that only counts.
//! `reader` and `events` are its codecs alone.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

mod echo;

use std::{
    io::{self, PipeReader, Read, Write},
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use p2p_node::{
    bridge::{Io, Notation, Options, output::Output, reader::Reader, run},
    entropy::Entropy,
    node::{Role, clock::Clock},
    proto::{
        Message,
        stdio::{self, command},
    },
    time::UnixMillis,
};
use prost::Message as _;

/// Messages of one session.
const COUNT: usize = 50_000;

const NOTATIONS: [(&str, Notation); 2] = [("frames", Notation::Frames), ("lines", Notation::Lines)];

fn message(number: usize, size: usize) -> Message {
    Message {
        id: format!("{number:016x}"),
        r#type: "t".to_owned(),
        payload: vec![b'x'; size].into(),
        timestamp: 1_763_820_000_123,
        ..Message::default()
    }
}

fn command(notation: Notation, number: usize, size: usize) -> Vec<u8> {
    let peer = echo::bob().to_string();
    match notation {
        Notation::Frames => {
            let message = Some(message(number, size));
            let verb = Some(command::Verb::Send(command::Send { peer, message }));
            let id = u64::try_from(number + 1).unwrap();
            stdio::Command { id, timeout_ms: 0, verb }.encode_length_delimited_to_vec()
        }
        Notation::Lines | Notation::Terminal(_) => format!(
            "{{\"cmd\":\"send\",\"id\":{number},\"peer\":\"{peer}\",\"message\":{{\"id\":\"{number:016x}\",\
             \"type\":\"t\",\"payload\":\"{}\"}}}}\n",
            "x".repeat(size)
        )
        .into_bytes(),
    }
}

fn options(notation: Notation) -> Options {
    let clock = Clock::starting_at(UnixMillis(1_763_820_000_000));
    Options::new(notation, Role::Server, Entropy::from_seed(1), clock)
}

/// Counts events until there are `count`.
fn count_events(notation: Notation, mut stdout: PipeReader, count: usize) {
    let mut buffer = vec![0; 256 * 1024];
    let (mut seen, mut skip, mut length, mut bits) = (0, 0_usize, 0_usize, 0);
    while seen < count {
        let size = stdout.read(&mut buffer).unwrap();
        assert!(size > 0, "stdout ended after {seen} events");
        let mut chunk = buffer.get(..size).unwrap();
        if let Notation::Lines = notation {
            seen += chunk.split(|&byte| byte == b'\n').count() - 1;
            continue;
        }
        while let Some((&byte, rest)) = chunk.split_first() {
            if skip > 0 {
                let skipped = skip.min(chunk.len());
                skip -= skipped;
                chunk = chunk.get(skipped..).unwrap();
                continue;
            }
            chunk = rest;
            length |= usize::from(byte & 0x7f) << bits;
            bits += 7;
            if byte & 0x80 == 0 {
                (skip, length, bits) = (length, 0, 0);
                seen += 1;
            }
        }
    }
}

/// Runs a session: `input` is written to its stdin, `arriving` messages arrive; ends after `count` events.
fn session(notation: Notation, input: Vec<u8>, arriving: usize, count: usize) -> Duration {
    let (stdin, mut writer) = io::pipe().unwrap();
    let (reader, stdout) = io::pipe().unwrap();
    let began = Instant::now();
    let bridge = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let (started, hands) = echo::start();
            let (_signals, signals) = tokio::sync::mpsc::channel(1);
            let io = Io { input: stdin, output: stdout, signals };
            tokio::spawn(async move {
                for number in 0..arriving {
                    if hands.messages.send(hands.arriving(message(number, 100))).await.is_err() {
                        return;
                    }
                }
                std::future::pending::<()>().await;
            });
            run(io, options(notation), async { Ok(started) }).await
        });
    });
    let feeder = thread::spawn(move || {
        writer.write_all(&input).unwrap();
        writer
    });
    // `hello` and `ready` come first.
    count_events(notation, reader, count + 2);
    let took = began.elapsed();
    drop(feeder.join().unwrap());
    bridge.join().unwrap();
    took
}

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    group.sample_size(10).throughput(Throughput::Elements(u64::try_from(COUNT).unwrap()));
    for (name, notation) in NOTATIONS {
        let input: Vec<u8> = (0..COUNT).flat_map(|n| command(notation, n, 100)).collect();
        group.bench_function(BenchmarkId::new("send 100 B", name), |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds).map(|_| session(notation, input.clone(), 0, COUNT)).sum()
            });
        });
        group.bench_function(BenchmarkId::new("receive 100 B", name), |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds).map(|_| session(notation, Vec::new(), COUNT, COUNT)).sum()
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("session, large");
    group.sample_size(10).throughput(Throughput::Bytes(3 * (16 << 20)));
    for (name, notation) in NOTATIONS {
        let input: Vec<u8> = (0..3).flat_map(|n| command(notation, n, 16 << 20)).collect();
        group.bench_function(BenchmarkId::new("send 16 MiB", name), |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds).map(|_| session(notation, input.clone(), 0, 3)).sum()
            });
        });
    }
    group.finish();
}

fn codecs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(1_000));
    for (name, notation) in NOTATIONS {
        let input: Vec<u8> = (0..1_000).flat_map(|n| command(notation, n, 100)).collect();
        group.bench_function(BenchmarkId::new("reader", name), |bencher| {
            bencher.iter(|| {
                let (mut reader, mut inputs) = (Reader::new(notation), Vec::new());
                reader.read(&mut &input[..], &mut inputs, usize::MAX);
                assert_eq!(inputs.len(), 1_000);
                inputs
            });
        });
        let message = message(7, 100);
        let event = Output::Message { peer: echo::bob(), message: &message };
        group.bench_function(BenchmarkId::new("events", name), |bencher| {
            bencher.iter(|| (0..1_000).map(|_| event.encode(notation).len()).sum::<usize>());
        });
    }
    group.finish();
}

criterion_group!(benches, codecs, sessions);
criterion_main!(benches);
