//! What schedules have met, apart from faults: each kind counts once a schedule.

macro_rules! met {
    ($($kind:ident $name:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Met { $($kind,)* }

        pub const MET: &[&str] = &[$($name),*];
    };
}

met! {
    Call "a call was made";
    Service "a service was asked";
    AskedAndAdmitted "a session was admitted after questions";
    Denied "an answer denied a session";
    Failed "a question failed at once";
    Expired "a question had no answer in time";
    LeftDuringCall "a client left while a call was under way";
    LeftDuringService "a client left while a service was asked";
    LateAnswer "a service answered after its session had ended";
    DownInSession "the endpoint of an established session went down";
    RemovedInSession "the endpoint of an established session was removed";
    RemovedInHandshake "the endpoint of a handshake was removed";
    OrderInSession "the endpoint of an established session was drained or forced down";
    ClosedForEndpoint "a session was closed because its endpoint was down";
    KeptOnEndpoint "a session stayed on an endpoint that was down";
    ReloadInSession "the configuration was replaced in an established session";
    ReloadInHandshake "the configuration was replaced in a handshake";
    CameBack "a client came back to the endpoint of its cookie";
    Moved "a client with a cookie got another endpoint, and another cookie";
    Retried "a request was sent to another endpoint after a failure";
    RetriesSpent "the retries were used up";
    Shadow "a shadow was opened";
    ShadowCut "a shadow was cut";
    NoneLeft "no endpoint was available";
    Ejected "an endpoint was ejected";
    Tried "an ejected endpoint was tried again";
    Full "no endpoint had room";
    Pinged "a peer was pinged";
    Dead "a peer was found dead";
    Unproven "an authorization server refused a client, or its answer was no answer";
    Credentials "a client was admitted by an authorization server";
    LeftDuringAuth "a client left while an authorization server was asked";
    RevokedInHandshake "credentials were revoked in a handshake";
    RevokedInSession "credentials were revoked between two frames";
    RevokedInFrame "credentials were revoked in the middle of a frame";
    ClosedAsRevoked "a session was closed because of revoked credentials";
    ClosedAsExpired "a session was closed because its credentials had ended";
    ClosedByLimit "a session was closed by a limit at once";
    ClosedByPatience "a session was closed by a limit that had paused it";
    HeldByLimit "a sender was paused by a limit on messages or control frames";
    Paused "a direction was paused";
    PausedBySplice "a direction was paused because of spliced bytes";
    Reused "a connection to a server carried several requests";
    Shared "a connection to a server carried requests of several clients";
    Ahead "a client sent requests ahead";
    SentInChunks "the body of a request was sent in chunks";
    AnsweredInChunks "the body of a response was sent in chunks";
    Trailers "trailers passed";
    UntilEnd "a response ended with its connection";
    OfHead "a HEAD was answered";
    OldKept "an HTTP/1.0 client kept its connection";
    Upgraded "a WebSocket came behind other requests";
    Expected "a request with an expectation was answered";
    Early "a response came before the end of its request";
    Refused "a plain request was refused";
    TooLong "the body of a request was too long";
    BodyBroken "the body of a request was malformed";
    AnswerCut "a response was cut";
    NeverAnswered "a request was never answered";
    SentAgain "a request was sent again over a new connection";
    Lost "a request was lost with a kept connection";
    EndedIdle "a server ended a connection between two requests";
    SaidMore "a server said more than its response";
    SaidUnasked "a server spoke unasked";
    Crossed "what a server said unasked crossed with a request";
    LeftAsking "a client left within a request";
    LeftWaiting "a client left while it waited for a response";
    LeftAnswered "a client left within a response";
    ClientStalled "a client did nothing any more";
    SentElsewhere "a plain request was sent to another endpoint";
    NotReached "a server was not reached";
    Reloaded "the configuration was replaced while connections were kept";
    WentDown "an endpoint with kept connections went down";
    Stopped "the process stopped while a plain request was under way";
}

/// The first kind of plain HTTP.
pub const PLAIN: usize = Met::Reused as usize;

/// How many schedules met each kind.
#[derive(Debug, Clone)]
pub struct Coverage {
    pub counts: [u64; MET.len()],
    /// The kinds that this schedule has met.
    seen: [bool; MET.len()],
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage { counts: [0; MET.len()], seen: [false; MET.len()] }
    }
}

impl Coverage {
    /// A new schedule.
    pub fn begin(&mut self) {
        self.seen = [false; MET.len()];
    }

    pub fn meet(&mut self, met: Met) {
        let at = met as usize;
        self.counts[at] += u64::from(!std::mem::replace(&mut self.seen[at], true));
    }
}
