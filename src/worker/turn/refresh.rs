//! What happens in an established session because its credentials end: the moments of its warning
//! and of its end, and new credentials that its client has sent. They are judged by policy; what
//! that must ask is asked while the session goes on.

use super::Turn;
use crate::policy::ask::{Answer, Answers};
use crate::policy::auth::{Refresh, Refreshed, Refreshing, Renewal, Warning};
use crate::policy::{ClientCert, Facts};
use crate::proto::Side;
use crate::proto::end::Cause;
use crate::proto::http1::{Field, Request};
use crate::proto::interface::Event;
use crate::proto::relay::{OwnFrame, TakenMessage};
use crate::worker::closings::Reason;
use crate::worker::conn::Conn;
use crate::worker::sys::Sys;
use std::sync::Arc;

/// What became of new credentials, as the metrics count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Refused,
    Ended,
    TooMany,
}

impl<S: Sys> Turn<'_, '_, S> {
    /// They may have been revoked while the handshake was under way; and they may end.
    pub(super) fn check_credentials(&mut self, revoked: bool) {
        let identity = self.pair.info.as_ref().and_then(|info| info.identity.as_deref());
        if revoked || identity.is_some_and(|identity| self.res.core.snapshot.revoked.covers(identity, self.res.now)) {
            self.hear(Event::CredentialsEnded(Cause::Revoked));
        } else {
            self.watch_credentials();
        }
    }

    /// The credentials of the session end at a time that is new: it is closed then, and warned
    /// before.
    pub(super) fn watch_credentials(&mut self) {
        let Some(info) = &self.pair.info else { return };
        let left_ms = info.identity.as_ref().and_then(|identity| identity.left_ms(self.res.unix_now()));
        let Some(left_ms) = left_ms else { return };
        let before_ms = self.renewal().and_then(|renewal| renewal.warning.as_ref()).map(|warning| warning.before_ms);
        let ends_at = self.res.now.saturating_add(left_ms);
        self.res.closings.add(self.key, Reason::Expired, ends_at);
        match before_ms {
            None => {}
            Some(before_ms) if before_ms < left_ms => {
                self.res.closings.add(self.key, Reason::Warning, ends_at - before_ms);
            }
            // They have ended: the Close says so.
            Some(_) if left_ms == 0 => {}
            Some(_) => self.warn(),
        }
    }

    /// The credentials of the session end soon: its client learns it.
    pub(super) fn warn(&mut self) {
        let unix_now = self.res.unix_now();
        let left_ms = self.pair.info.as_ref().and_then(|info| info.identity.as_ref()?.left_ms(unix_now));
        let warning: Option<&Warning> = self.renewal().and_then(|renewal| renewal.warning.as_ref());
        let Some((left_ms, warning)) = left_ms.zip(warning) else { return };
        let text = warning.text(left_ms).into();
        if self.say(text) {
            self.res.core.tally.credential_warnings += 1;
        }
    }

    /// The client has sent new credentials.
    pub(super) fn refresh(&mut self, message: &TakenMessage) {
        if !self.res.refreshes.entry(self.key).or_default().may_begin(self.res.now) {
            // Without an answer: it could be larger than what asks for it.
            return self.count(Outcome::TooMany);
        }
        let credential = self.rules().and_then(|refresh| refresh.form.credential(&message.0));
        match (credential, self.res.refreshes.get_mut(&self.key)) {
            (Some(credential), Some(refreshing)) => {
                refreshing.begin(credential);
                self.judge_refresh(&Answers::default());
            }
            _ => self.refused(),
        }
    }

    /// What policy asked about new credentials is answered.
    pub(super) fn on_refresh_answer(&mut self, answer: Answer) {
        self.res.refresh_calls.remove(&self.key);
        let question = self.res.refreshes.get_mut(&self.key).and_then(Refreshing::take_question);
        if let Some(question) = question {
            self.judge_refresh(&Answers::with(Some((&question, answer))));
        }
    }

    fn judge_refresh(&mut self, answers: &Answers) {
        let mut answers = answers.clone();
        loop {
            match self.judge_shown(&answers).unwrap_or(Refreshed::Refused) {
                Refreshed::Ask(check) => {
                    let Some(refreshing) = self.res.refreshes.get_mut(&self.key) else { return };
                    refreshing.ask(check.clone(), &answers);
                    match self.ask(&check) {
                        Ok(None) => return,
                        Ok(Some(call)) => {
                            self.res.refresh_calls.insert(self.key, call);
                            return;
                        }
                        // It is known, or cannot be asked.
                        Err(answer) => {
                            let Some(refreshing) = self.res.refreshes.get_mut(&self.key) else { return };
                            let Some(question) = refreshing.take_question() else { return };
                            answers = Answers::with(Some((&question, answer)));
                        }
                    }
                }
                refreshed => return self.refreshed(refreshed),
            }
        }
    }

    /// Asks policy about the credentials that were sent: by the route as it is now, for keys that a
    /// reload has removed do not count any more. `None` where it is gone, or asks for nothing.
    fn judge_shown(&mut self, answers: &Answers) -> Option<Refreshed> {
        let random = u64::from_ne_bytes(self.res.random());
        let info = self.pair.info.as_ref()?;
        let route = self.res.core.snapshot.routes.named(&info.route.as_ref()?.name)?;
        let (auth, client) = (route.auth.as_ref()?, info.identity.as_ref()?);
        let shown = self.res.refreshes.get(&self.key)?.credential()?;
        let text = |bytes| str::from_utf8(bytes).unwrap_or_default();
        let (target, host) = (text(info.target()), text(info.host()));
        let (path, query) = target.split_at_checked(target.find('?').unwrap_or(target.len()))?;
        // For the servers that are asked with the head of a request.
        let authorization = [b"Bearer ", shown].concat();
        let fields = vec![
            Field { name: "Host", value: host.as_bytes() },
            Field { name: "Authorization", value: &authorization },
        ];
        let request = Request { is_http10: false, method: "GET", target, path, query, host, fields };
        let conn = self.pair.conns[Side::Downstream].as_ref()?;
        let cert = conn.peer_cert();
        let facts = Facts {
            shown: Some(shown),
            client: info.client(),
            request_id: text(info.id()),
            secure: !Conn::is_plain(conn),
            cert: cert.as_ref().map(|cert| ClientCert { subject: &cert.subject, sha256: &cert.sha256 }),
            now: self.res.now,
            unix_ms: self.res.unix_now(),
            random,
            ..Facts::new(&request, info.peer.ip().to_canonical())
        };
        Some(auth.refresh(client, &facts, (answers, &self.res.core.snapshot.revoked)))
    }

    fn refreshed(&mut self, refreshed: Refreshed) {
        if let Some(refreshing) = self.res.refreshes.get_mut(&self.key) {
            refreshing.end();
        }
        match refreshed {
            Refreshed::Extended(identity) => {
                let info = self.pair.info.as_ref().map(|info| info.with_identity(identity));
                self.pair.info = info.map(Arc::new);
                self.count(Outcome::Accepted);
                if let Some(text) = self.rules().and_then(|refresh| refresh.accepted.clone()) {
                    self.say(text);
                }
                self.watch_credentials();
            }
            Refreshed::Ended(cause) => {
                self.count(Outcome::Ended);
                self.hear(Event::CredentialsEnded(cause));
            }
            Refreshed::Refused | Refreshed::Ask(_) => self.refused(),
        }
    }

    fn refused(&mut self) {
        self.count(Outcome::Refused);
        if let Some(text) = self.rules().and_then(|refresh| refresh.refused.clone()) {
            self.say(text);
        }
    }

    /// The session is over: nothing waits for an answer about it.
    pub(super) fn end_refresh(&mut self) {
        if self.res.refreshes.is_empty() {
            return;
        }
        self.res.refreshes.remove(&self.key);
        if let Some(call) = self.res.refresh_calls.remove(&self.key) {
            let (calls, mut io) = self.res.calls();
            calls.cancel(call, &mut io);
        }
    }

    fn hear(&mut self, event: Event) {
        self.eventful = true;
        if let Some(session) = &mut self.pair.session {
            session.on_event(event, self.res.now);
        }
    }

    /// A message of ours to the client; `false` if none can be sent any more.
    fn say(&mut self, text: Arc<str>) -> bool {
        self.eventful = true;
        let session = self.pair.session.as_mut();
        session.is_some_and(|session| session.send_toward(Side::Downstream, OwnFrame::Text(text)))
    }

    fn count(&mut self, outcome: Outcome) {
        self.res.core.tally.credential_refreshes[outcome as usize] += 1;
    }

    fn renewal(&self) -> Option<&Renewal> {
        self.pair.info.as_ref()?.route.as_ref()?.renewal.as_ref()
    }

    fn rules(&self) -> Option<&Refresh> {
        self.renewal()?.refresh.as_ref()
    }
}
