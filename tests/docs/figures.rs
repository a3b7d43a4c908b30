//! The tables and the heat map of punching are what the figures make, and nobody has touched them.

use crate::{
    markdown::text,
    report::{
        documents,
        figures::{Figures, Scene},
    },
};

/// What puts it right.
const REDRAW: &str = "cargo bench --bench punch_latency -- --redraw";

fn figures() -> Figures {
    Figures::decode(&text(documents::FIGURES)).unwrap()
}

#[test]
fn the_figures_are_of_every_pair_in_every_scene() {
    let figures = figures();
    assert_eq!(figures.encode(), text(documents::FIGURES));
    let expected = Scene::ALL
        .into_iter()
        .flat_map(|scene| scene.pairs().into_iter().map(move |pair| (scene, pair)));
    let found = figures.rows.iter().map(|row| (row.scene, row.pair));
    assert!(found.eq(expected));
    for row in &figures.rows {
        assert_eq!(row.dials, figures.seeds(), "{:?} {}", row.scene, row.pair);
        assert_eq!(row.opened == row.dials, row.codes.is_empty(), "{:?} {}", row.scene, row.pair);
    }
}

#[test]
fn the_tables_are_what_the_figures_make() {
    let document = text(documents::README);
    assert!(documents::written(&document, &figures()).unwrap() == document, "{REDRAW}");
}

#[test]
fn the_heat_map_is_what_the_figures_make() {
    assert!(documents::heat_map(&figures()) == text(documents::HEAT_MAP), "{REDRAW}");
}

/// Nothing is fetched when somebody looks at it, and nothing in it runs.
#[test]
fn the_heat_map_needs_nothing_but_itself() {
    let svg = text(documents::HEAT_MAP);
    let outside = svg.replace(r#"xmlns="http://www.w3.org/2000/svg""#, "");
    for word in ["http", "href", "<script", "<image", "@import", "@font-face", "url(h", "onload"] {
        assert!(!outside.contains(word), "{word}");
    }
    assert!(svg.contains("prefers-color-scheme: dark"));
}

/// A file that was touched by hand is no file of figures, or makes other tables.
#[test]
fn figures_that_were_cut_short_are_refused() {
    let whole = text(documents::FIGURES);
    let (head, rows) = whole.split_once('\n').unwrap();
    let row = rows.lines().next().unwrap();
    let (short, _) = row.rsplit_once('\t').unwrap();
    assert!(Figures::decode(&format!("{head}\n{row}\n")).is_ok());
    assert!(Figures::decode(&format!("{head}\n{short}\n")).is_err());
    assert!(Figures::decode(&format!("{head}\n{row}\t1\n")).is_err());
    assert!(Figures::decode(rows).is_err());
}
