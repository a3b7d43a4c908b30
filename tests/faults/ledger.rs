//! What became of every message, from what all nodes printed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What one incarnation of a node sent, learned and received.
pub(crate) struct Record {
    name: &'static str,
    sent: u64,
    /// `delivered`, or the error's code, by number.
    answers: BTreeMap<u64, Vec<String>>,
    /// Ids of the messages that arrived, in their order.
    arrived: Vec<String>,
    /// Whether it said goodbye.
    ended_in_peace: bool,
}

impl Record {
    pub(crate) fn of(name: &'static str, sent: u64, events: &[Value]) -> Self {
        let mut answers: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        let mut arrived = Vec::new();
        for event in events {
            match event["event"].as_str().unwrap() {
                "ok" | "error" => {
                    if let Some(number) = event["id"].as_u64() {
                        let word =
                            event["state"].as_str().or_else(|| event["code"].as_str()).unwrap();
                        answers.entry(number).or_default().push(word.to_owned());
                    }
                }
                "message" => arrived.push(event["message"]["id"].as_str().unwrap().to_owned()),
                _ => {}
            }
        }
        let ended_in_peace = events.last().is_some_and(|event| event["event"] == "bye");
        Self { name, sent, answers, arrived, ended_in_peace }
    }
}

/// Codes under which a message may have arrived all the same.
const UNCERTAIN: [&str; 2] = ["delivery_unknown", "timeout"];

/// Delivered means arrived (says how many were); nothing arrives twice or out of order; whoever lives has learned of all.
pub(crate) fn check(seed: u64, records: &[Record]) -> usize {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let arrivals: Vec<&String> = records.iter().flat_map(|record| &record.arrived).collect();
    let arrived: BTreeSet<&String> = arrivals.iter().copied().collect();
    assert_eq!(arrivals.len(), arrived.len(), "seed {seed}: something arrived twice");
    for record in records {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for id in &record.arrived {
            let (from, number) = id.split_once('-').unwrap();
            let number: u64 = number.parse().unwrap();
            let before = last.insert(from, number);
            assert!(before < Some(number), "seed {seed}: {id} at {} out of order", record.name);
        }
        for number in 0..record.sent {
            let id = format!("{}-{number}", record.name);
            let answers = record.answers.get(&number).map(Vec::as_slice).unwrap_or_default();
            let has_arrived = arrived.contains(&id);
            match answers {
                [] => assert!(!record.ended_in_peace, "seed {seed}: nobody told of {id}"),
                [answer] if answer == "delivered" => {
                    assert!(has_arrived, "seed {seed}: {id} is said to be delivered");
                }
                [answer] => {
                    let may_have = UNCERTAIN.contains(&answer.as_str());
                    assert!(!has_arrived || may_have, "seed {seed}: {id} arrived, but: {answer}");
                }
                _ => panic!("seed {seed}: {id} has the answers {answers:?}"),
            }
            let word = answers.first().map_or("nothing, the sender was killed", String::as_str);
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    println!("seed {seed}: {counts:?}");
    counts.get("delivered").copied().unwrap_or_default()
}
