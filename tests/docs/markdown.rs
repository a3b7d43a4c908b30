//! What stands in a document: blocks, links, headings and tables.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A document of the repository.
pub(crate) struct Document {
    /// From the root of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the repository.
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Document {
    /// The document at `path`.
    pub(crate) fn read(path: &str) -> Self {
        Self { path: path.to_owned(), text: text(path) }
    }

    /// The documents at the root of the repository, and those of its folders.
    pub(crate) fn all() -> Vec<Self> {
        let folders = ["", "benches/", "python/"];
        let in_folder = |folder: &str| -> Vec<String> {
            let Ok(entries) = fs::read_dir(root().join(folder)) else {
                return Vec::new();
            };
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let documents = names.filter(|name| name.ends_with(".md"));
            documents.map(|name| format!("{folder}{name}")).collect()
        };
        let mut paths: Vec<String> = folders.into_iter().flat_map(in_folder).collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// The contents of the fenced blocks of this kind; `""` are those of none.
    pub(crate) fn blocks(&self, kind: &str) -> Vec<String> {
        let mut blocks = Vec::new();
        let mut open: Option<(String, String)> = None;
        for line in self.text.lines() {
            open = match (line.strip_prefix("```"), open) {
                (Some(kind), None) => Some((kind.trim().to_owned(), String::new())),
                (Some(_), Some((found, block))) => {
                    if found == kind {
                        blocks.push(block);
                    }
                    None
                }
                (None, Some((kind, block))) => Some((kind, block + line + "\n")),
                (None, None) => None,
            };
        }
        assert!(open.is_none(), "{}: a block without an end", self.path);
        blocks
    }

    /// The rows of the table whose first column is headed so, without the head.
    pub(crate) fn table(&self, heading: &str) -> Vec<Vec<String>> {
        let head = format!("| {heading} |");
        let rows = self
            .text
            .lines()
            .skip_while(|line| !line.starts_with(&head))
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        rows.map(|row| {
            let cells = row.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
    }

    /// The targets of the links that are no address on the web.
    pub(crate) fn links(&self) -> Vec<String> {
        let prose = self.prose();
        let targets = prose.split("](").skip(1);
        let targets = targets.filter_map(|rest| rest.split_once(')'));
        targets
            .map(|(target, _)| target.to_owned())
            .filter(|target| !target.contains("://"))
            .collect()
    }

    /// Why a link leads nowhere, if it does not.
    pub(crate) fn broken(&self, link: &str) -> Option<&'static str> {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let folder = Path::new(&self.path).parent().unwrap();
        let path = match file {
            "" => self.path.clone(),
            file => folder.join(file).to_str().unwrap().to_owned(),
        };
        if !root().join(&path).exists() {
            return Some("there is no such file");
        }
        let is_there = anchor.is_empty() || Self::read(&path).anchors().contains(&anchor.into());
        (!is_there).then_some("there is no such heading")
    }

    /// What the headings can be linked by.
    fn anchors(&self) -> Vec<String> {
        let prose = self.prose();
        let headings = prose.lines().filter(|line| line.starts_with('#'));
        headings
            .map(|heading| {
                let heading = heading.trim_start_matches('#').trim().to_lowercase();
                let kept =
                    heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
                kept.map(|c| if c == ' ' { '-' } else { c }).collect()
            })
            .collect()
    }

    /// The text without its blocks.
    fn prose(&self) -> String {
        let outside = self.text.split("```").step_by(2);
        outside.collect::<Vec<_>>().join("\n")
    }

    /// What stands in single backticks.
    pub(crate) fn quoted(&self) -> Vec<String> {
        let prose = self.prose();
        let quoted = prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        quoted.map(ToOwned::to_owned).collect()
    }
}

/// The commands in a block, without the comments behind them.
pub(crate) fn commands(block: &str) -> Vec<String> {
    let lines = block.lines().map(|line| match line.split_once("  #") {
        Some((command, _)) => command.trim().to_owned(),
        None => line.trim().to_owned(),
    });
    lines.filter(|line| !line.is_empty()).collect()
}
