//! Open files: how many extra sockets the system lets this process have.

use p2p_node::node::environment::{EXTRA_SOCKETS_MAX, ExtraSockets};

/// Extra sockets, as many as are of use and as the limit on open files allows, which is raised as far as the
/// system lets us.
pub(crate) fn extra_sockets() -> ExtraSockets {
    let sockets = ExtraSockets::system();
    let room = usize::try_from(files_max()).unwrap_or(usize::MAX).saturating_sub(FILES_FOR_OTHERS);
    ExtraSockets { count_max: room.min(EXTRA_SOCKETS_MAX), ..sockets }
}

#[cfg(unix)]
fn files_max() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        // Some systems say more than they grant.
        Err(_) => limit.current,
    };
    current.unwrap_or(u64::MAX)
}

#[cfg(not(unix))]
const fn files_max() -> u64 {
    u64::MAX
}

/// Files that are not extra sockets: the node's own sockets, the outbox, pipes, name lookups.
const FILES_FOR_OTHERS: usize = 64;
