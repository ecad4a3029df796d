//! Queries and answers of DNS (RFC 1035), SRV records included (RFC 2782). Pure.

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Aliases in a row that are followed.
const ALIASES_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
    Srv,
}

impl Kind {
    fn code(self) -> TYPE {
        match self {
            Kind::A => TYPE::A,
            Kind::Aaaa => TYPE::AAAA,
            Kind::Srv => TYPE::SRV,
        }
    }
}

/// The records that answer a query.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub addresses: Vec<IpAddr>,
    pub services: Vec<Service>,
    /// The shortest of all that led to them, in seconds; `None` without records.
    pub ttl: Option<u32>,
}

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// In lower case, without a final dot.
    pub target: String,
}

/// Why a message gives no records.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It answers another query, or none: wait for the right one.
    Unrelated,
    /// It did not fit into the datagram: ask over TCP.
    Truncated,
    /// The server has no answer.
    Server(String),
}

/// A query for the records of one kind.
pub fn query(id: u16, name: &str, kind: Kind) -> Result<Vec<u8>, String> {
    let invalid = |e| format!("{name} cannot be asked for: {e}");
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(invalid)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind.code()), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(invalid)
}

/// The answer to [`query`]. A name that does not exist has no records.
pub fn answer(message: &[u8], id: u16, name: &str, kind: Kind) -> Result<Records, Failure> {
    // What belongs to another query is not worth an error, however malformed it is.
    let ours = simple_dns::header_buffer::id(message).is_ok_and(|theirs| theirs == id);
    if !ours || !simple_dns::header_buffer::has_flags(message, PacketFlag::RESPONSE).unwrap_or(false) {
        return Err(Failure::Unrelated);
    }
    if simple_dns::header_buffer::has_flags(message, PacketFlag::TRUNCATION).unwrap_or(false) {
        return Err(Failure::Truncated);
    }
    let packet = Packet::parse(message).map_err(|e| Failure::Server(format!("malformed answer: {e}")))?;
    let asked = |question: &Question| text(&question.qname) == name && question.qtype == QTYPE::TYPE(kind.code());
    match (packet.rcode(), packet.questions.as_slice()) {
        (RCODE::NoError | RCODE::NameError, [question]) if asked(question) => {}
        (RCODE::NoError | RCODE::NameError, _) => return Err(Failure::Unrelated),
        // Such an answer need not repeat the question.
        (rcode, _) => return Err(Failure::Server(rcode_text(rcode))),
    }
    Ok(records(&packet, name))
}

fn rcode_text(rcode: RCODE) -> String {
    match rcode {
        RCODE::FormatError => "FORMERR".to_owned(),
        RCODE::ServerFailure => "SERVFAIL".to_owned(),
        RCODE::NotImplemented => "NOTIMP".to_owned(),
        RCODE::Refused => "REFUSED".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The records of a name, or of the name that it is an alias for.
fn records(packet: &Packet, name: &str) -> Records {
    let mut aliases = HashMap::new();
    for record in &packet.answers {
        if let RData::CNAME(target) = &record.rdata {
            aliases.insert(text(&record.name), (text(&target.0), record.ttl));
        }
    }
    let (mut owner, mut ttl) = (name.to_owned(), u32::MAX);
    for _ in 0..ALIASES_MAX {
        let Some((target, lives)) = aliases.get(&owner) else { break };
        (owner, ttl) = (target.clone(), ttl.min(*lives));
    }
    let mut found = Records::default();
    for record in packet.answers.iter().filter(|record| text(&record.name) == owner) {
        match &record.rdata {
            RData::A(A { address }) => found.addresses.push(Ipv4Addr::from(*address).into()),
            RData::AAAA(AAAA { address }) => found.addresses.push(Ipv6Addr::from(*address).into()),
            // RFC 2782: a target of "." says that the service is not there.
            RData::SRV(srv) if !text(&srv.target).is_empty() => found.services.push(Service {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: text(&srv.target),
            }),
            _ => continue,
        }
        ttl = ttl.min(record.ttl);
        found.ttl = Some(ttl);
    }
    found
}

fn text(name: &Name) -> String {
    name.to_string().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{CNAME, SRV};

    fn name(text: &str) -> Name<'_> {
        Name::new(text).unwrap()
    }

    fn record<'a>(owner: &'a str, ttl: u32, rdata: RData<'a>) -> ResourceRecord<'a> {
        ResourceRecord::new(name(owner), CLASS::IN, ttl, rdata)
    }

    fn a(last: u8) -> RData<'static> {
        RData::A(A { address: u32::from_be_bytes([10, 0, 0, last]) })
    }

    fn reply(kind: Kind, answers: Vec<ResourceRecord<'_>>, change: impl Fn(&mut Packet)) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        let question = Question::new(name("App.Internal"), kind.code().into(), CLASS::IN.into(), false);
        packet.questions.push(question);
        packet.answers = answers;
        change(&mut packet);
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn read(kind: Kind, answers: Vec<ResourceRecord<'_>>) -> Records {
        answer(&reply(kind, answers, |_| {}), 7, "app.internal", kind).unwrap()
    }

    #[test]
    fn a_query_asks_for_one_name_and_recursion() {
        let bytes = query(0x1234, "app.internal", Kind::Srv).unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.id(), packet.questions.len()), (0x1234, 1));
        assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED) && !packet.has_flags(PacketFlag::RESPONSE));
        // Header, name, type 33, class IN.
        assert_eq!(&bytes[12..], b"\x03app\x08internal\x00\x00\x21\x00\x01");
        assert!(query(1, &"x".repeat(64), Kind::A).is_err());
    }

    #[test]
    fn addresses_have_the_shortest_ttl() {
        let both = read(Kind::A, vec![record("app.internal", 30, a(1)), record("APP.internal", 20, a(2))]);
        assert_eq!(both.ttl, Some(20));
        assert_eq!(both.addresses, ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap()));
        let six = record("app.internal", 9, RData::AAAA(AAAA { address: 1 }));
        assert_eq!(read(Kind::Aaaa, vec![six]).addresses, ["::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(read(Kind::A, vec![]), Records::default());
    }

    #[test]
    fn aliases_are_followed_and_count() {
        let alias = |owner, ttl, to| record(owner, ttl, RData::CNAME(CNAME(name(to))));
        let chain = vec![alias("app.internal", 300, "b.c"), record("c.d", 60, a(9)), alias("b.c", 5, "c.d")];
        let found = read(Kind::A, chain);
        assert_eq!((found.addresses.len(), found.ttl), (1, Some(5)));
        assert_eq!(read(Kind::A, vec![record("other.internal", 60, a(9))]), Records::default(), "not asked for");
        let circle = vec![alias("app.internal", 1, "b.c"), alias("b.c", 1, "app.internal"), record("x.y", 1, a(1))];
        assert_eq!(read(Kind::A, circle), Records::default());
    }

    #[test]
    fn services_have_priority_weight_and_port() {
        let srv = |priority, target| {
            let srv = SRV { priority, weight: 5, port: 9000, target: name(target) };
            record("app.internal", 60, RData::SRV(srv))
        };
        let found = read(Kind::Srv, vec![srv(10, "One.internal"), srv(20, "two.internal"), srv(0, "")]);
        let targets: Vec<_> = found.services.iter().map(|one| (one.priority, one.target.as_str())).collect();
        assert_eq!(targets, [(10, "one.internal"), (20, "two.internal")], "the root means that there is none");
        assert_eq!((found.services[0].weight, found.services[0].port, found.ttl), (5, 9000, Some(60)));
    }

    #[test]
    fn other_answers_are_told_apart() {
        let good = reply(Kind::A, vec![record("app.internal", 1, a(1))], |_| {});
        assert_eq!(answer(&good, 8, "app.internal", Kind::A), Err(Failure::Unrelated), "another id");
        assert_eq!(answer(&good, 7, "app.internal", Kind::Aaaa), Err(Failure::Unrelated), "another type");
        assert_eq!(answer(&good, 7, "app.external", Kind::A), Err(Failure::Unrelated), "another name");
        let ours = query(7, "app.internal", Kind::A).unwrap();
        assert_eq!(answer(&ours, 7, "app.internal", Kind::A), Err(Failure::Unrelated), "a query");
        let cut = reply(Kind::A, vec![], |packet| packet.set_flags(PacketFlag::TRUNCATION));
        assert_eq!(answer(&cut, 7, "app.internal", Kind::A), Err(Failure::Truncated));
        for (rcode, expected) in [
            (RCODE::ServerFailure, Err(Failure::Server("SERVFAIL".into()))),
            (RCODE::Refused, Err(Failure::Server("REFUSED".into()))),
            (RCODE::NameError, Ok(Records::default())),
        ] {
            let bytes = reply(Kind::A, vec![], |packet| *packet.rcode_mut() = rcode);
            assert_eq!(answer(&bytes, 7, "app.internal", Kind::A), expected);
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_no_answer() {
        let good = reply(Kind::A, vec![record("app.internal", 1, a(1))], |_| {});
        for cut in 0..good.len() {
            assert!(answer(&good[..cut], 7, "app.internal", Kind::A).is_err(), "{cut}");
        }
    }
}
