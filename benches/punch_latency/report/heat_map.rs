//! The matrix as a picture: an SVG that needs nothing but itself, for light and for dark pages.
//!
//! Colours go from light to dark as time goes on (ColorBrewer's YlGnBu, which people who see few colours can
//! tell apart, and print); what is never opened has no colour, but hatching.

use std::{fmt::Write, time::Duration};

use super::{
    figures::{Figures, Moment, ROUND_TRIP, Row, Scene},
    side::{Pair, Side},
    tables::{milliseconds, round_trips},
};

/// Draws the time to the path by a helper, for every pair.
pub(crate) fn draw(figures: &Figures) -> String {
    let mut svg = opening(figures.seeds());
    headings(&mut svg, figures.seeds());
    for (column, side) in (0..).zip(Side::ALL) {
        column_label(&mut svg, column, side);
    }
    for (line, client) in (0..).zip(Side::ALL) {
        row_label(&mut svg, line, client);
        for (column, server) in (0..).zip(Side::ALL) {
            if let Some(row) = figures.row(Scene::Helper, Pair { client, server }) {
                cell(&mut svg, (at_column(column), at_line(line)), row);
            }
        }
    }
    legend(&mut svg, figures);
    svg + "</svg>\n"
}

/// A class of times, and how it is drawn.
struct Shade {
    /// The longest time in it, in tenths of a round trip.
    tenths_max: u32,
    name: &'static str,
    fill: &'static str,
    /// The class of the text on it.
    ink: &'static str,
}

const SHADES: [Shade; 6] = [
    Shade { tenths_max: 10, name: "≤ 1 RTT", fill: "#d9f0c3", ink: "dark" },
    Shade { tenths_max: 16, name: "≤ 1.6", fill: "#8fd3bd", ink: "dark" },
    Shade { tenths_max: 25, name: "≤ 2.5", fill: "#4ab8c6", ink: "dark" },
    Shade { tenths_max: 50, name: "≤ 5", fill: "#1877a6", ink: "light" },
    Shade { tenths_max: 100, name: "≤ 10", fill: "#22529c", ink: "light" },
    Shade { tenths_max: u32::MAX, name: "longer", fill: "#0c2468", ink: "light" },
];

impl Shade {
    fn of(time: Duration) -> &'static Self {
        let fits = |shade: &&Self| time * 10 <= ROUND_TRIP.saturating_mul(shade.tenths_max);
        let [.., longest] = &SHADES;
        SHADES.iter().find(fits).unwrap_or(longest)
    }
}

/// In the units of the picture, which are pixels at its natural size.
const CELL: (u32, u32) = (88, 56);
const GAP: u32 = 3;
const LEFT: u32 = 176;
const TOP: u32 = 158;
/// Between sides that have one port for everybody and those that have one for each destination.
const GROUP_GAP: u32 = 9;
/// Sides of the first kind.
const GROUPED: u32 = 6;
const WIDTH: u32 = at_column(9) + CELL.0 + 26;
const HEIGHT: u32 = at_line(9) + CELL.1 + 118;

const fn at_column(column: u32) -> u32 {
    LEFT + column * (CELL.0 + GAP) + if column < GROUPED { 0 } else { GROUP_GAP }
}

const fn at_line(line: u32) -> u32 {
    TOP + line * (CELL.1 + GAP) + if line < GROUPED { 0 } else { GROUP_GAP }
}

fn opening(seeds: usize) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title description">
<title id="title">How long until a direct path is open, for every pair of NATs</title>
<desc id="description">Median of {seeds} dials each, by a helper. The same figures stand as a table in benches/README.md.</desc>
<style>
text {{ font-family: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; fill: #1f2933 }}
.page {{ fill: #ffffff; stroke: #d5dbe1 }}
.title {{ font-size: 21px; font-weight: 700 }}
.note {{ font-size: 12.5px; fill: #52606d }}
.axis {{ font-size: 13px; font-weight: 700 }}
.name {{ font-size: 12px }}
.group {{ stroke: #9aa5b1; stroke-width: 1.5; fill: none }}
.time {{ font-size: 15px; font-weight: 700; text-anchor: middle }}
.more {{ font-size: 10.5px; text-anchor: middle }}
.dark {{ fill: #0b2530 }}
.light {{ fill: #ffffff }}
.cell {{ stroke: none }}
.some {{ stroke: #e08a00; stroke-width: 3 }}
.closed {{ fill: #eceff2; stroke: #c3cbd3 }}
.hatch {{ stroke: #d3d9df; stroke-width: 2 }}
.middle {{ text-anchor: middle }}
.end {{ text-anchor: end }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e4e7eb }}
.page {{ fill: #12181f; stroke: #2c3642 }}
.note {{ fill: #9fb0c0 }}
.group {{ stroke: #5c6b7a }}
.cell {{ stroke: #4a5a6a }}
.dark {{ fill: #0b2530 }}
.light {{ fill: #ffffff }}
.closed {{ fill: #222b35; stroke: #3a4754 }}
.hatch {{ stroke: #2d3843 }}
}}
</style>
<defs><pattern id="hatching" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path class="hatch" d="M0 0V8"/></pattern></defs>
<rect class="page" x="0.5" y="0.5" width="{}" height="{}" rx="10"/>
"##,
        WIDTH - 1,
        HEIGHT - 1
    )
}

fn headings(svg: &mut String, seeds: usize) {
    text(svg, (26, 40), "title", "How long until a direct path is open");
    let milliseconds = ROUND_TRIP.as_millis();
    text(
        svg,
        (26, 63),
        "note",
        &format!(
            "Median of {seeds} dials for each pair of NATs, by real nodes on the simulated internet: {milliseconds} ms \
             between the peers, record known, a helper up."
        ),
    );
    let groups = [
        (0, GROUPED - 1, ["server: one port for everybody", "client: one port for everybody"]),
        (GROUPED, 9, ["symmetric server: a port for each peer", "symmetric client"]),
    ];
    for (first, last, [server, client]) in groups {
        let (left, right) = (at_column(first), at_column(last) + CELL.0);
        text(svg, (left.midpoint(right), 96), "axis middle", server);
        let _ = writeln!(svg, r#"<path class="group" d="M{left} 108v-5H{right}v5"/>"#);
        let (top, bottom) = (at_line(first), at_line(last) + CELL.1);
        let middle = top.midpoint(bottom);
        let _ = writeln!(
            svg,
            r#"<text class="axis middle" transform="translate(32 {middle}) rotate(-90)">{client}</text>"#
        );
        let _ = writeln!(svg, r#"<path class="group" d="M46 {top}h-5V{bottom}h5"/>"#);
    }
}

fn column_label(svg: &mut String, column: u32, side: Side) {
    let x = at_column(column) + CELL.0 / 2;
    match label(side) {
        [only, ""] => text(svg, (x, TOP - 14), "name middle", only),
        [first, second] => {
            text(svg, (x, TOP - 25), "name middle", first);
            text(svg, (x, TOP - 10), "name middle", second);
        }
    }
}

fn row_label(svg: &mut String, line: u32, side: Side) {
    let middle = at_line(line) + CELL.1 / 2;
    match label(side) {
        [only, ""] => text(svg, (LEFT - 12, middle + 4), "name end", only),
        [first, second] => {
            text(svg, (LEFT - 12, middle - 4), "name end", first);
            text(svg, (LEFT - 12, middle + 11), "name end", second);
        }
    }
}

/// The name in two lines, each narrow enough for a column.
const fn label(side: Side) -> [&'static str; 2] {
    match side {
        Side::Open => ["none", ""],
        Side::FullCone => ["full cone", ""],
        Side::AddressRestricted => ["address-", "restricted"],
        Side::PortRestricted => ["port-", "restricted"],
        Side::PortChanged => ["same, port", "changed"],
        Side::CarrierAndHome => ["home behind", "CGNAT"],
        Side::Sequential => ["sequential", ""],
        Side::SequentialShared => ["sequential,", "shared"],
        Side::Block => ["block of", "1,024"],
        Side::Random => ["random", ""],
    }
}

fn cell(svg: &mut String, (x, y): (u32, u32), row: &Row) {
    let (width, height) = CELL;
    let middle = x + width / 2;
    let linked = format!("{}/{}", row.opened, row.dials);
    let class = if row.is_partly_open() { "some" } else { "cell" };
    // Dials that were never linked count as the longest: where they are more than half, so is the median.
    let Some(path) = row.at(Moment::Path).filter(|_| row.opened * 2 > row.dials) else {
        closed(svg, (x, y), (width, height));
        if row.is_partly_open() {
            let _ = writeln!(
                svg,
                r#"<rect class="some" x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="none"/>"#
            );
        }
        let told = row.at(Moment::Told).map(|at| shortly(at.median)).unwrap_or_default();
        let never = if row.is_partly_open() { "mostly never" } else { "never" };
        text(svg, (middle, y + 20), "more", never);
        text(svg, (middle, y + 34), "more", &format!("told in {told}"));
        text(svg, (middle, y + 48), "more", &linked);
        return;
    };
    let shade = Shade::of(path.median);
    let _ = writeln!(
        svg,
        r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="{}"/>"#,
        shade.fill
    );
    let (time, more) = (format!("time {}", shade.ink), format!("more {}", shade.ink));
    text(svg, (middle, y + 20), &time, &format!("{} ms", milliseconds(path.median)));
    text(svg, (middle, y + 35), &more, &format!("{} RTT", round_trips(path.median, 1)));
    text(svg, (middle, y + 48), &more, &linked);
}

fn closed(svg: &mut String, (x, y): (u32, u32), (width, height): (u32, u32)) {
    for class in [r#"class="closed""#, r#"fill="url(#hatching)""#] {
        let _ = writeln!(
            svg,
            r#"<rect {class} x="{x}" y="{y}" width="{width}" height="{height}" rx="4"/>"#
        );
    }
}

fn legend(svg: &mut String, figures: &Figures) {
    let y = at_line(9) + CELL.1 + 28;
    text(svg, (LEFT - 12, y + 14), "axis end", "median time");
    let mut x = LEFT;
    for shade in &SHADES {
        let _ = writeln!(
            svg,
            r#"<rect class="cell" x="{x}" y="{y}" width="{}" height="20" rx="4" fill="{}"/>"#,
            CELL.0, shade.fill
        );
        text(svg, (x + CELL.0 / 2, y + 14), &format!("more {}", shade.ink), shade.name);
        x += CELL.0 + GAP;
    }
    x += GROUP_GAP;
    closed(svg, (x, y), (CELL.0, 20));
    text(svg, (x + CELL.0 + 8, y + 14), "name", "never: how soon the user is told");
    let note = "Virtual time: the same on any machine. A path is open when the client has heard from the server on it. \
                Below each time: dials that were linked.";
    text(svg, (26, y + 50), "note", note);
    let is_framed = |row: &Row| row.scene == Scene::Helper && row.is_partly_open();
    let framed = match figures.rows.iter().any(is_framed) {
        true => "Framed: some dials were not linked. ",
        false => "",
    };
    let made = "Drawn from benches/figures.tsv by: cargo bench --bench punch_latency -- --record";
    text(svg, (26, y + 70), "note", &format!("{framed}{made}"));
}

/// Narrow enough for a cell.
fn shortly(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{} ms", milliseconds(time)),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn text(svg: &mut String, (x, y): (u32, u32), class: &str, content: &str) {
    let _ = writeln!(svg, r#"<text class="{class}" x="{x}" y="{y}">{content}</text>"#);
}
