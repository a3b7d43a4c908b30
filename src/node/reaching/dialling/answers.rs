//! What a dial needs where ports have to be guessed: sockets, the peer's answer, which is looked for where
//! the offer lies, and a record that vouches for our own addresses.

use crate::{
    datagram::Family,
    dht::{item::Item, location::Name, record::PeerRecord},
    nat::volley::Leave,
    node::{
        driver::{DialId, Driver, Outcome},
        network::extra::Holder,
    },
};

impl Driver {
    /// Opens a socket for the volley of a dial.
    pub(super) fn open_for_dial(&mut self, id: DialId, family: Family) {
        let socket = self.open_extra(family, Holder::Dial(id)).map(|socket| socket.index);
        self.tell_dial(id, |dial, now| dial.handle_socket(socket, now));
    }

    /// Says how many datagrams the volley of a dial may send.
    pub(super) fn give_leave(&mut self, id: DialId, leave: Leave) {
        let now = self.clock.now();
        let granted = self.extra.grant(Holder::Dial(id), leave, now);
        self.tell_dial(id, |dial, now| dial.handle_leave(granted, now));
    }

    /// Looks how far our NAT has counted, for the next offer of a dial.
    pub(super) fn count_for_dial(&mut self, id: DialId) {
        if !self.look_at_ports() {
            let hint = self.port_hint();
            self.tell_dial(id, |dial, now| dial.handle_counted(hint, now));
        }
    }

    /// Our offer lies in the DHT as `item`: looks there for the peer's answer, if it would be of use.
    pub(super) fn await_answer(&mut self, id: DialId, item: &Item) {
        let Some(entry) = self.dialling.dials.get(&id) else { return };
        let (name, Some(rendezvous)) = (entry.name.clone(), self.rendezvous.clone()) else {
            return;
        };
        let at = item.target();
        if !entry.dial.wants_answer() || entry.answers.contains_key(&at) {
            return;
        }
        let slots: Vec<_> = name.inbox().into_iter().filter(|slot| slot.target == at).collect();
        let (outcomes, ours) = (self.outcomes(), item.seq());
        let look = self.spawn(async move {
            let mut watch = rendezvous.watch(slots);
            while let Some((_, item)) = watch.next().await {
                if item.seq() > ours {
                    let answered = Outcome::Answered(id, item.seq(), item.value().to_vec());
                    // A driver that is gone needs no answer.
                    let _ = outcomes.send(answered).await;
                }
            }
        });
        if let Some(entry) = self.dialling.dials.get_mut(&id) {
            entry.answers.insert(at, look);
        }
    }

    /// Takes in what lies in the place of our offer.
    pub(in crate::node) fn handle_answered(&mut self, id: DialId, seq: i64, sealed: &[u8]) {
        if let Some(entry) = self.dialling.dials.get_mut(&id) {
            // The next offer may take the place of the answer.
            entry.offer_seq = Some(seq);
        }
        self.tell_dial(id, |dial, now| dial.handle_answer(sealed, now));
    }

    /// Publishes where we are, if the peer will have to send much there, and needs more than our word in an
    /// offer for it. Who shares a secret with us takes our word.
    pub(super) fn vouch(&mut self, id: DialId) {
        let entry = self.dialling.dials.get(&id);
        let is_needed =
            entry.is_some_and(|entry| entry.dial.wants_answer() && entry.admission.is_none());
        let gathered = self.addresses.gathered();
        let (Some(rendezvous), true) = (self.rendezvous.clone(), is_needed) else { return };
        if self.dialling.vouched_for.as_ref() == Some(&gathered) || self.is_published() {
            return;
        }
        let (identity, name, made_at) =
            (&self.config.identity, Name::Peer(self.us), self.clock.unix());
        let record = PeerRecord {
            peer: self.us,
            made_at,
            candidates: gathered.candidates.clone(),
            nat: gathered.nat,
            helpers: Vec::new(),
        };
        let value = record.seal(identity, &name.sealing_key(), &mut self.entropy);
        let seq = i64::try_from(made_at.0).unwrap_or(i64::MAX);
        let item = Item::sign(&name.own_record_key(identity), seq, value);
        self.dialling.vouched_for = Some(gathered);
        self.spawn(async move {
            match rendezvous.put(item, None).await {
                Ok(stored) => tracing::debug!(nodes = stored.nodes, "our record vouches for us"),
                Err(error) => tracing::debug!(%error, "our record could not be published"),
            }
        });
    }
}
