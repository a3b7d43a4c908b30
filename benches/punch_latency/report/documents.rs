//! Where the report stands: the part of `benches/README.md` between its marks, and the heat map.

use super::{figures::Figures, heat_map, neighbours, tables, targets};

/// From the root of the repository.
pub(crate) const FIGURES: &str = "benches/figures.tsv";
/// The document that has the tables.
pub(crate) const README: &str = "benches/README.md";
/// The picture that the documents show.
pub(crate) const HEAT_MAP: &str = "benches/heat_map.svg";

/// Makes Markdown.
type Part = fn(&Figures) -> String;

/// The parts of the document that are written by a program.
const PARTS: [(&str, Part); 3] =
    [("targets", targets::all), ("neighbours", neighbours::all), ("tables", tables::all)];

/// The document with the parts that `figures` make in place of those that are there.
///
/// # Errors
///
/// The mark that is missing.
pub(crate) fn written(document: &str, figures: &Figures) -> Result<String, String> {
    let mut text = document.to_owned();
    for (name, part) in PARTS {
        let [begin, end] = marks(name);
        let (before, rest) = text.split_once(&begin).ok_or_else(|| format!("no {begin}"))?;
        let (_, after) = rest.split_once(&end).ok_or_else(|| format!("no {end}"))?;
        text = format!("{before}{begin}\n\n{}\n{end}{after}", part(figures));
    }
    Ok(text)
}

/// All of it, for a terminal.
pub(crate) fn printed(figures: &Figures) -> String {
    let parts = PARTS.map(|(name, part)| format!("## punch_latency: {name}\n\n{}", part(figures)));
    parts.join("\n")
}

/// Some rows, for a terminal: median / 90th / 99th percentile.
pub(crate) fn listed(figures: &Figures) -> String {
    tables::list(figures)
}

/// The heat map that `figures` make.
pub(crate) fn heat_map(figures: &Figures) -> String {
    heat_map::draw(figures)
}

/// Comments, which readers do not see.
fn marks(name: &str) -> [String; 2] {
    [
        format!(
            "<!-- punch_latency {name}: written by `cargo bench --bench punch_latency -- --record` -->"
        ),
        format!("<!-- punch_latency {name}: end -->"),
    ]
}
