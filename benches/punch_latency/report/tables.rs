//! The figures as Markdown: one table for each question.

use std::{fmt::Write, time::Duration};

use super::{
    figures::{Figures, Moment, ROUND_TRIP, Row, Scene, Spread},
    side::{Pair, Side},
};

/// A heading, what its table says, and what each cell of the matrix holds.
struct Question {
    heading: &'static str,
    cell: fn(&Row) -> String,
}

/// All tables of the matrix and of the places beside it.
pub(crate) fn all(figures: &Figures) -> String {
    let mut text = String::new();
    let by_helper = [
        Question {
            heading: "By a helper: until the path is open",
            cell: |row| times(row, Moment::Path),
        },
        Question {
            heading: "By a helper: until the link is up",
            cell: |row| times(row, Moment::Link),
        },
        Question {
            heading: "By a helper: until the server's program has the first message",
            cell: |row| times(row, Moment::Message),
        },
        Question { heading: "By a helper: datagrams", cell: datagrams },
    ];
    let by_inbox = [
        Question {
            heading: "By the inbox alone: until the server has read the offer",
            cell: |row| times(row, Moment::Offer),
        },
        Question {
            heading: "By the inbox alone: until the path is open",
            cell: |row| times(row, Moment::Path),
        },
        Question {
            heading: "By the inbox alone: until the link is up",
            cell: |row| times(row, Moment::Link),
        },
        Question { heading: "By the inbox alone: datagrams", cell: datagrams },
    ];
    let _ = writeln!(text, "{}\n", legend(figures.seeds()));
    for (scene, questions) in [(Scene::Helper, &by_helper[..]), (Scene::Inbox, &by_inbox)] {
        for question in questions {
            let _ = writeln!(text, "### {}\n", question.heading);
            let _ = writeln!(text, "{}", matrix(figures, scene, question.cell));
        }
    }
    let beside = BESIDE.map(|(heading, above, scenes)| {
        format!("### {heading}\n\n{above}\n\n{}", in_milliseconds(figures, scenes))
    });
    text += &beside.join("\n");
    text
}

fn legend(seeds: usize) -> String {
    format!(
        "\
Whole nodes on the simulated internet, in virtual time, {} ms between the peers, {seeds} dials in each cell with the same seeds
everywhere. Client down, server across. Times are in **round trips since the client had the server's record**: median / 99th
percentile, or once where they are the same. ✗: no dial was linked, and the program was told so after that time (median).
*n of {seeds}*: the others were not linked. Datagrams are those of the client + the server, from the dial's begin until a second after
link or failure: medians, in brackets the most of any dial if they are more.",
        ROUND_TRIP.as_millis()
    )
}

/// A row for each client, a column for each server.
fn matrix(figures: &Figures, scene: Scene, cell: fn(&Row) -> String) -> String {
    let mut text = head(std::iter::once("").chain(Side::ALL.map(Side::short)));
    for client in Side::ALL {
        let cells = Side::ALL.map(|server| {
            let row = figures.row(scene, Pair { client, server });
            row.map_or_else(|| NOTHING.to_owned(), cell)
        });
        text += &line(std::iter::once(format!("**{}**", client.short())).chain(cells));
    }
    text
}

fn times(row: &Row, moment: Moment) -> String {
    match (row.has_a_way(), row.at(moment)) {
        (true, Some(spread)) => {
            format!("{}{}", pair_of(spread, |time| round_trips(time, 2)), of_all(row))
        }
        // Nobody had to be told of the client.
        (true, None) => NOTHING.to_owned(),
        (false, _) => told(row, |time| round_trips(time, 1)),
    }
}

fn datagrams(row: &Row) -> String {
    let [client, server] = row.datagrams;
    let median = format!("{} + {}", client.median, server.median);
    let most = format!("{} + {}", client.most, server.most);
    match median == most {
        true => median,
        false => format!("{median} ({most})"),
    }
}

/// A scene beside the matrix: what stands above its table.
const BESIDE: [(&str, &str, &[Scene]); 3] = [
    (
        "Two hosts of one network, two homes of one carrier",
        "A helper is up. In milliseconds since the record was known: median / 90th / 99th percentile.",
        &[Scene::SameLan, Scene::OneCarrier],
    ),
    (
        "While 15 % of the datagrams are lost",
        "\
Of everything on the client's access line, each way, from before its first look at its own NAT; 54 ms between the peers; a helper is
up. In milliseconds since the record was known: median / 90th / 99th percentile.",
        &[Scene::Loss],
    ),
    (
        "A path that is blocked at first",
        "\
Nothing passes between the two for 20 to 23 s from the dial's begin; a helper is up, and the program waits for 120 s. In
milliseconds since the block ended: median / 90th / 99th percentile.",
        &[Scene::Blocked],
    ),
];

/// The rows of these scenes.
fn in_milliseconds(figures: &Figures, scenes: &[Scene]) -> String {
    let mut text = head(["", "linked", "path", "link", "answer to the first message", "datagrams"]);
    for row in figures.rows.iter().filter(|row| scenes.contains(&row.scene)) {
        let name = match row.scene {
            Scene::SameLan => {
                "one network; its router does not hairpin, nobody hears multicast".into()
            }
            Scene::OneCarrier => "two homes of one carrier, which hairpins".into(),
            Scene::Helper | Scene::Inbox | Scene::Loss | Scene::Blocked => row.pair.to_string(),
        };
        let time = |moment| match row.has_a_way() {
            true => at(row, moment, |spread| three_of(spread, milliseconds)),
            false => told(row, milliseconds),
        };
        let [path, link, echo] = [Moment::Path, Moment::Link, Moment::Echo].map(time);
        text += &line([name, linked(row), path, link, echo, datagrams(row)]);
    }
    text
}

/// One line for each row, in milliseconds, whatever the scene.
pub(crate) fn list(figures: &Figures) -> String {
    let mut text =
        head(["", "linked", "path", "link", "first message", "answer", "told", "datagrams"]);
    for row in &figures.rows {
        let name = format!("{}: {}", row.scene.key(), row.pair);
        let moments = [Moment::Path, Moment::Link, Moment::Message, Moment::Echo, Moment::Told];
        let times = moments.map(|moment| at(row, moment, |spread| three_of(spread, milliseconds)));
        text += &line([name, linked(row)].into_iter().chain(times).chain([datagrams(row)]));
    }
    text
}

/// What stands where there is nothing to say.
pub(super) const NOTHING: &str = "–";

/// The head of a table, and the line below it.
pub(super) fn head(cells: impl IntoIterator<Item = &'static str>) -> String {
    let cells: Vec<_> = cells.into_iter().map(ToOwned::to_owned).collect();
    let rule = "|---".repeat(cells.len());
    format!("{}{rule}|\n", line(cells))
}

pub(super) fn line(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<_> = cells.into_iter().collect();
    format!("| {} |\n", cells.join(" | "))
}

/// What `row` says of a moment, if it came to it.
pub(super) fn at(row: &Row, moment: Moment, show: fn(Spread<Duration>) -> String) -> String {
    row.at(moment).map_or_else(|| NOTHING.to_owned(), show)
}

pub(super) fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_micros().saturating_add(500) / 1_000;
    match milliseconds {
        0..1_000 => milliseconds.to_string(),
        _ => format!("{},{:03}", milliseconds / 1_000, milliseconds % 1_000),
    }
}

pub(super) fn round_trips(time: Duration, digits: usize) -> String {
    format!("{:.digits$}", time.as_secs_f64() / ROUND_TRIP.as_secs_f64())
}

/// Median and 99th percentile; once where they are the same.
pub(super) fn pair_of(spread: Spread<Duration>, show: impl Fn(Duration) -> String) -> String {
    once_if_same(&[spread.median, spread.ninety_ninth].map(show))
}

/// Median, 90th and 99th percentile; once where they are the same.
fn three_of(spread: Spread<Duration>, show: fn(Duration) -> String) -> String {
    once_if_same(&[spread.median, spread.ninetieth, spread.ninety_ninth].map(show))
}

fn once_if_same(shown: &[String]) -> String {
    match shown {
        [first, others @ ..] if others.iter().all(|other| other == first) => first.clone(),
        all => all.join(" / "),
    }
}

fn told(row: &Row, show: fn(Duration) -> String) -> String {
    let at = row.at(Moment::Told).map(|at| show(at.median));
    format!("✗ {}", at.as_deref().unwrap_or(NOTHING))
}

/// How many were linked, unless all were.
fn of_all(row: &Row) -> String {
    match row.opened == row.dials {
        true => String::new(),
        false => format!(", *{} of {}*", row.opened, row.dials),
    }
}

pub(super) fn linked(row: &Row) -> String {
    format!("{} of {}", row.opened, row.dials)
}
