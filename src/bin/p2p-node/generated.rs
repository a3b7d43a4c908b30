//! What the program tells of itself: completions for shells, the manual, and the schema of its protocol.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap_complete::Shell;
use clap_mangen::Man;
use p2p_node::{
    bridge::{
        self,
        exit::{self, exit_code},
    },
    failure::{Code, Failure},
};

use crate::{args, exit::complain};

/// Prints the JSON Schema; or the protobuf files, if they are wanted; or writes those into a folder.
#[allow(clippy::option_option, reason = "a flag with an argument that may be left out")]
pub(crate) fn schema(proto: Option<Option<PathBuf>>) -> ExitCode {
    let Some(proto) = proto else {
        return print(format!("{:#}\n", bridge::schema()).as_bytes());
    };
    let Some(directory) = proto else {
        let files = bridge::PROTO.map(|(name, text)| format!("// {name}\n\n{text}"));
        return print(files.join("\n").as_bytes());
    };
    let write = |(name, text)| fs::write(directory.join(name), text);
    let written =
        fs::create_dir_all(&directory).and_then(|()| bridge::PROTO.into_iter().try_for_each(write));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => not_written(&directory.display().to_string(), &error),
    }
}

/// Prints the script that completes arguments in `shell`.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    let mut command = args::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&script)
}

/// Prints the manual page, or writes the pages of all commands into `directory`.
pub(crate) fn man(directory: Option<&Path>) -> ExitCode {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        return match Man::new(args::command()).render(&mut page) {
            Ok(()) => print(&page),
            Err(error) => not_written("the manual", &error),
        };
    };
    let written = fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(args::command(), directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => not_written(&directory.display().to_string(), &error),
    }
}

fn print(text: &[u8]) -> ExitCode {
    match io::stdout().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever has read enough closes the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(exit::INTERNAL),
    }
}

fn not_written(what: &str, error: &io::Error) -> ExitCode {
    let failure = Failure::new(Code::ConfigInvalid, format!("{what} cannot be written"))
        .because(error.to_string())
        .hint("name a folder of your own");
    complain(&failure);
    ExitCode::from(exit_code(failure.code))
}
