//! How many messages the program behind stdout wants to have.

use crate::failure::{Code, Failure};

/// Counts what `listen`, `credit` and `hello` allow.
#[derive(Debug)]
pub(super) struct Intake {
    listens: bool,
    /// Messages that may still be told; `None` if the program does not count.
    credit: Option<u64>,
    told: u64,
}

impl Default for Intake {
    fn default() -> Self {
        Self { listens: true, credit: None, told: 0 }
    }
}

impl Intake {
    /// Whether a message may be told now. Those that may not wait inside the node.
    pub(super) fn is_open(&self) -> bool {
        self.listens && self.credit != Some(0)
    }

    /// A message is told.
    pub(super) fn handle_message(&mut self) {
        self.told = self.told.saturating_add(1);
        if let Some(credit) = &mut self.credit {
            *credit = credit.saturating_sub(1);
        }
    }

    /// The program counts from here on. What was told before it could say so counts, too.
    pub(super) fn handle_first_credit(&mut self, messages: u32) {
        self.credit = Some(u64::from(messages).saturating_sub(self.told));
    }

    /// So many more.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when the program does not count.
    pub(super) fn handle_credit(&mut self, messages: u32) -> Result<(), Failure> {
        let Some(credit) = &mut self.credit else {
            return Err(Failure::new(Code::InvalidArgument, "no credit is needed")
                .because("the session's hello had none")
                .hint(r#"{"cmd":"hello","protocol":1,"credit":1024}, as the first command"#));
        };
        *credit = credit.saturating_add(u64::from(messages));
        Ok(())
    }

    /// Messages are wanted, or not.
    pub(super) fn handle_listen(&mut self, enabled: bool) {
        self.listens = enabled;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells as many messages as may be told, 100 at most.
    fn tell(intake: &mut Intake) -> usize {
        (0..100).take_while(|_| intake.is_open().then(|| intake.handle_message()).is_some()).count()
    }

    #[test]
    fn without_credit_everything_is_told() {
        let mut intake = Intake::default();
        assert_eq!(tell(&mut intake), 100);
        assert_eq!(intake.handle_credit(5).unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn no_more_is_told_than_was_allowed() {
        let mut intake = Intake::default();
        intake.handle_message();
        intake.handle_first_credit(3);
        assert_eq!(tell(&mut intake), 2);
        intake.handle_credit(4).unwrap();
        intake.handle_credit(1).unwrap();
        assert_eq!(tell(&mut intake), 5);
        assert_eq!(tell(&mut intake), 0);
    }

    #[test]
    fn nothing_is_told_while_nobody_listens() {
        let mut intake = Intake::default();
        intake.handle_listen(false);
        assert_eq!(tell(&mut intake), 0);
        intake.handle_listen(true);
        assert_eq!(tell(&mut intake), 100);
    }
}
