//! The notation for programs: `{"cmd":"send","id":7,…}`.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{
    Command, ID_RULE, Id, Rejected, Verb, credit, silence, simple_verb, text_id, timeout,
    unknown_command, unnamed, wrong, wrong_timeout,
};
use crate::{
    bridge::{
        fields::Fields,
        grammar::{self, COMMON_KEYS, CommandForm, ID_NUMBER_MAX},
        message::{self, Composer},
        recipient::{Known, Recipient},
    },
    failure::{Code, Failure},
    proto::Message,
};

/// Reads `text`, the part of `line` from its brace on.
pub(super) fn parse(text: &str, line: &Bytes, known: &mut Known) -> Result<Command, Rejected> {
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| {
        let failure = Failure::new(Code::BadRequest, "the line is not a JSON object")
            .because(error.to_string())
            .hint("{\"cmd\":\"list\",\"id\":1}, or a text command: list");
        unnamed(failure)
    })?;
    let id = fields.get("id").map(id).transpose().map_err(unnamed)?;
    let mut object = Object { fields: &fields, composer: Composer { line }, known };
    match object.timeout().and_then(|timeout| Ok((timeout, object.verb()?))) {
        Ok((timeout, verb)) => Ok(Command { id, timeout, verb }),
        Err(failure) => Err(Rejected { id, failure }),
    }
}

/// A command as it is written.
struct Object<'a> {
    fields: &'a Fields<'a>,
    composer: Composer<'a>,
    known: &'a mut Known,
}

impl Object<'_> {
    fn verb(&mut self) -> Result<Verb, Failure> {
        let cmd = self.fields.get("cmd").ok_or_else(|| {
            Failure::new(Code::BadRequest, "the command has no cmd")
                .hint("{\"cmd\":\"list\",\"id\":1}")
        })?;
        let cmd: String = read("cmd", "a string", cmd)?;
        let form = grammar::command(&cmd).ok_or_else(|| unknown_command(&cmd))?;
        let Some(keys) = form.keys else {
            return Err(Failure::new(Code::UnknownCommand, format!("{cmd} is a text command"))
                .hint(r#"{"cmd":"send","message":{"type":"text","payload":"hello"}}"#));
        };
        let verb = match form.cmd {
            "send" => Verb::Send { to: self.peer()?, message: self.message(form)? },
            "broadcast" => Verb::Broadcast { message: self.message(form)? },
            "request" => Verb::Request { to: self.peer()?, message: self.message(form)? },
            "reply" => {
                let to: String = self.needed(form, "to", "a string")?;
                let message = message::replying(self.message(form)?, &to)?;
                Verb::Send { to: self.peer()?, message }
            }
            "connect" => Verb::Connect { to: self.peer()? },
            "disconnect" => Verb::Disconnect { from: self.peer()? },
            "ping" => Verb::Ping { to: self.peer()? },
            "netcheck" => Verb::Netcheck {
                with: self.fields.get("peer").map(|_| self.peer()).transpose()?,
                lifetime: self.lifetime()?,
            },
            "listen" => Verb::Listen { enabled: self.needed(form, "enabled", "true or false")? },
            "credit" => credit(self.needed(form, "messages", "an integer")?)?,
            "cancel" => {
                let target = self.fields.get("target").ok_or_else(|| missing(form, "target"))?;
                Verb::Cancel { target: id(target)? }
            }
            "hello" => self.hello(form)?,
            cmd => simple_verb(cmd).ok_or_else(|| unknown_command(cmd))?,
        };
        let named = || COMMON_KEYS.iter().chain(keys).map(|key| key.name);
        let names = || ["cmd"].into_iter().chain(named());
        if let Some(name) = self.fields.first_beyond(names) {
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(wrong(format!("{cmd} has an unknown or repeated key {name:?}"))
                .hint(format!("{cmd} has the keys {known}")));
        }
        Ok(verb)
    }

    fn hello(&self, form: &CommandForm) -> Result<Verb, Failure> {
        let client = self.fields.get("client").map(|it| read("client", "a string", it));
        let credit = self.fields.get("credit").map(|it| read("credit", "an integer", it));
        Ok(Verb::Hello {
            protocol: self.needed(form, "protocol", "an integer")?,
            client: message::client(client.transpose()?.unwrap_or_default())?,
            credit: credit.transpose()?,
        })
    }

    fn lifetime(&self) -> Result<Option<Duration>, Failure> {
        let lifetime = self.fields.get("lifetime_ms");
        let millis = lifetime.map(|it| read::<u64>("lifetime_ms", "an integer", it)).transpose()?;
        millis.map(silence).transpose()
    }

    fn timeout(&self) -> Result<Option<Duration>, Failure> {
        let Some(millis) = self.fields.get("timeout_ms") else {
            return Ok(None);
        };
        let millis: u64 = serde_json::from_str(millis.get()).map_err(|_| wrong_timeout())?;
        timeout(millis).map(Some)
    }

    fn peer(&mut self) -> Result<Recipient, Failure> {
        match self.fields.get("peer") {
            Some(peer) => self.known.parse(&read::<String>("peer", "a string", peer)?),
            None => Ok(Recipient::Unnamed),
        }
    }

    fn message(&self, form: &CommandForm) -> Result<Message, Failure> {
        let message = self.fields.get("message").ok_or_else(|| {
            let cmd = form.cmd;
            wrong(format!("{cmd} needs a message"))
                .hint(format!(r#"{{"cmd":"{cmd}","message":{{"type":"text","payload":"hello"}}}}"#))
        })?;
        self.composer.written(message)
    }

    fn needed<T: DeserializeOwned>(
        &self,
        form: &CommandForm,
        name: &str,
        what: &str,
    ) -> Result<T, Failure> {
        let value = self.fields.get(name).ok_or_else(|| missing(form, name))?;
        read(name, what, value)
    }
}

fn missing(form: &CommandForm, name: &str) -> Failure {
    wrong(format!("{} needs {name}", form.cmd)).hint(format!("to type it: {}", form.usage))
}

fn id(value: &RawValue) -> Result<Id, Failure> {
    if let Ok(number) = serde_json::from_str::<u64>(value.get()) {
        return match number <= ID_NUMBER_MAX {
            true => Ok(Id::Number(number)),
            false => Err(wrong(ID_RULE).hint("write large ids as strings")),
        };
    }
    let text: String = serde_json::from_str(value.get()).map_err(|_| wrong(ID_RULE))?;
    text_id(text)
}

fn read<T: DeserializeOwned>(name: &str, what: &str, value: &RawValue) -> Result<T, Failure> {
    serde_json::from_str(value.get()).map_err(|_| wrong(format!("{name} is not {what}")))
}
