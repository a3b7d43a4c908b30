//! Whether a link carries a session, and what the peer says of its own before it does.
//!
//! The peer may be the first to let its session go over the link. What it says then is kept: a resume and
//! the latest ack.

use crate::{
    proto::wire::Resume,
    transport::session::{Carrier, Rejected},
};

/// The state of a link towards sessions.
#[derive(Debug)]
pub(super) enum Carrying {
    /// No session of ours has come yet; what the peer's has said.
    NotYet { resume: Option<Resume>, delivered: Option<u64> },
    /// A session of ours has come. It may have gone on to another link.
    By(Carrier),
}

impl Carrying {
    pub(super) fn new() -> Self {
        Self::NotYet { resume: None, delivered: None }
    }

    /// The session that has come, if one has.
    pub(super) fn carrier(&self) -> Option<Carrier> {
        match self {
            Self::NotYet { .. } => None,
            Self::By(carrier) => Some(carrier.clone()),
        }
    }

    /// A session of ours has come: hears what the peer's has said.
    pub(super) fn begin(&mut self, carrier: Carrier) -> Result<(), Rejected> {
        match std::mem::replace(self, Self::By(carrier.clone())) {
            Self::NotYet { resume, delivered } => {
                resume.map_or(Ok(()), |resume| carrier.handle_resume(&resume))?;
                delivered.map_or(Ok(()), |delivered| carrier.handle_ack(delivered))
            }
            Self::By(_) => Ok(()),
        }
    }

    /// Takes in the peer's resume.
    pub(super) fn handle_resume(&mut self, found: Resume) -> Result<(), Rejected> {
        match self {
            Self::NotYet { resume: Some(_), .. } => {
                Err(Rejected::Violation("a second resume".to_owned()))
            }
            Self::NotYet { resume, .. } => {
                *resume = Some(found);
                Ok(())
            }
            Self::By(carrier) => carrier.handle_resume(&found),
        }
    }

    /// Takes in the peer's ack.
    pub(super) fn handle_ack(&mut self, found: u64) -> Result<(), Rejected> {
        match self {
            Self::NotYet { resume: None, .. } => {
                Err(Rejected::Violation("an ack before the resume".to_owned()))
            }
            Self::NotYet { delivered, .. } => {
                *delivered = Some(found.max(delivered.unwrap_or(0)));
                Ok(())
            }
            Self::By(carrier) => carrier.handle_ack(found),
        }
    }
}
