//! The flags for what people see: how much is logged, and in which colours.

use std::io::IsTerminal;

use clap::{ArgAction, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::values;

/// What people see.
#[derive(Debug)]
pub(crate) struct LogArgs {
    /// What to log.
    pub(crate) filter: EnvFilter,
    /// Whether to paint.
    pub(crate) colour: Colour,
}

/// When to paint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(super) struct LogFlags {
    /// What to log on stderr: error, warn, info, debug, trace, or a filter like p2p_node=debug
    /// [default: RUST_LOG, else warn]
    #[arg(long, value_name = "LEVEL", global = true, value_parser = values::filter, env = "P2P_NODE_LOG")]
    log: Option<String>,
    /// Log more: -v for info, -vv for debug, -vvv for trace
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// When to use colours; in auto, NO_COLOR and CLICOLOR_FORCE have a say
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        value_enum,
        default_value = "auto",
        hide_possible_values = true,
        env = "P2P_NODE_COLOR"
    )]
    color: Colour,
}

impl LogFlags {
    /// What the flags mean; `log_is_typed` tells a typed `--log` from an inherited one, and `spent` says how many
    /// `-v` mean something else to the command.
    pub(super) fn read(&self, log_is_typed: bool, spent: u8) -> LogArgs {
        let rust_log = std::env::var("RUST_LOG").ok();
        LogArgs {
            filter: self.filter(log_is_typed, spent, rust_log),
            colour: self.colour_of_environment(),
        }
    }

    fn filter(&self, log_is_typed: bool, spent: u8, rust_log: Option<String>) -> EnvFilter {
        let verbose = match self.verbose.saturating_sub(spent) {
            0 => None,
            1 => Some("info"),
            2 => Some("debug"),
            _ => Some("trace"),
        };
        let (typed, inherited) = match log_is_typed {
            true => (self.log.as_deref(), None),
            false => (None, self.log.as_deref()),
        };
        let chosen = typed.or(verbose).or(inherited).or(rust_log.as_deref());
        EnvFilter::builder().parse_lossy(chosen.unwrap_or(DEFAULT_FILTER))
    }

    fn colour_of_environment(&self) -> Colour {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (none, force) = (set("NO_COLOR"), set("CLICOLOR_FORCE"));
        let is_dumb = set("TERM").is_none_or(|terminal| terminal == "dumb");
        self.color.settle(none.is_some(), force.is_some_and(|force| force != "0"), is_dumb)
    }
}

impl Colour {
    /// With the environment's say: no-color.org, and bixense.com/clicolors.
    fn settle(self, no_color: bool, force: bool, is_dumb: bool) -> Self {
        match self {
            Self::Always | Self::Never => self,
            Self::Auto if no_color => Self::Never,
            Self::Auto if force => Self::Always,
            Self::Auto if is_dumb => Self::Never,
            Self::Auto => Self::Auto,
        }
    }

    /// Whether to paint on `output`.
    pub(crate) fn is_for(self, output: &impl IsTerminal) -> bool {
        match self {
            Self::Auto => output.is_terminal(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// What a person should look at. What the DHT's and STUN's libraries say of strangers' bytes is not.
const DEFAULT_FILTER: &str = "warn,mainline=off,stun_types=error";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_level_wins_over_verbosity_and_that_over_the_environment() {
        let filter = |log: Option<&str>, verbose, typed, rust_log: Option<&str>| {
            let flags = LogFlags { log: log.map(str::to_owned), verbose, color: Colour::Auto };
            flags.filter(typed, 0, rust_log.map(str::to_owned)).to_string()
        };
        assert_eq!(filter(Some("error"), 1, true, Some("trace")), "error");
        assert_eq!(filter(Some("error"), 1, false, Some("trace")), "info");
        assert_eq!(filter(Some("error"), 0, false, Some("trace")), "error");
        assert_eq!(filter(None, 0, false, Some("trace")), "trace");
        assert_eq!(filter(None, 0, false, None), "stun_types=error,mainline=off,warn");
    }

    #[test]
    fn a_v_that_the_command_takes_for_itself_logs_nothing() {
        let filter = |verbose| {
            let flags = LogFlags { log: None, verbose, color: Colour::Auto };
            flags.filter(false, 1, None).to_string()
        };
        assert_eq!(filter(0), filter(1));
        assert_eq!([filter(2), filter(3)], ["info", "debug"]);
    }

    #[test]
    fn a_typed_choice_of_colours_wins_and_no_color_wins_over_force() {
        for (no_color, force, is_dumb, expected) in [
            (false, false, false, Colour::Auto),
            (true, false, false, Colour::Never),
            (true, true, false, Colour::Never),
            (false, true, true, Colour::Always),
            (false, false, true, Colour::Never),
        ] {
            assert_eq!(Colour::Auto.settle(no_color, force, is_dumb), expected);
            for typed in [Colour::Always, Colour::Never] {
                assert_eq!(typed.settle(no_color, force, is_dumb), typed);
            }
        }
    }
}
