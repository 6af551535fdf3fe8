//! The hickory adapter: serves a [`Records`] snapshot over UDP and TCP to machines outside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::{Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};

use crate::records::{Data, Records, TTL, View};
use crate::resolve::{Answer, QueryType, Rcode};

/// An idle TCP client is dropped after this long.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers queued per TCP connection.
const TCP_RESPONSES: usize = 64;

/// The snapshot that the server answers from; `None` until the first sync, when it answers SERVFAIL.
#[derive(Clone, Default)]
pub struct SharedRecords(Arc<RwLock<Option<Arc<Records>>>>);

impl SharedRecords {
    /// Swaps in a new snapshot.
    pub fn set(&self, records: Arc<Records>) {
        *self.0.write() = Some(records);
    }
    /// The present snapshot.
    pub fn get(&self) -> Option<Arc<Records>> {
        self.0.read().clone()
    }
}

/// A running DNS server; stops when dropped.
pub struct DnsServer {
    address: SocketAddr,
    server: Server<Handler>,
}

impl DnsServer {
    /// Binds UDP and TCP on one address (port 0 picks one that is free for both) and serves `records`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(listen: SocketAddr, records: SharedRecords) -> std::io::Result<Self> {
        let (udp, tcp) = bind_both(listen).await?;
        let address = udp.local_addr()?;
        let mut server = Server::new(Handler { records });
        server.register_socket(udp);
        server.register_listener(tcp, TCP_TIMEOUT, TCP_RESPONSES);
        Ok(Self { address, server })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting and ends open connections.
    pub async fn stop(mut self) {
        if let Err(error) = self.server.shutdown_gracefully().await {
            tracing::warn!(%error, "DNS server did not stop cleanly");
        }
    }
}

/// One port for UDP and TCP: with port 0 the kernel's choice for UDP may be taken for TCP, so try a few.
async fn bind_both(listen: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    let mut attempts = if listen.port() == 0 { 16 } else { 1 };
    loop {
        attempts -= 1;
        let udp = UdpSocket::bind(listen).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if attempts == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

struct Handler {
    records: SharedRecords,
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut responder: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let (answers, authority, additionals) = match self.answer(request, &mut metadata) {
            Ok(sections) => sections,
            Err(code) => {
                metadata.response_code = code;
                (Vec::new(), Vec::new(), Vec::new())
            }
        };
        let response = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            answers.iter(),
            std::iter::empty(),
            authority.iter(),
            additionals.iter(),
        );
        match responder.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, client = %request.src(), "DNS answer was not sent");
                failed(metadata)
            }
        }
    }
}

fn failed(mut metadata: Metadata) -> ResponseInfo {
    metadata.response_code = ResponseCode::ServFail;
    hickory_proto::op::Header { metadata, counts: Default::default() }.into()
}

type Sections = (Vec<Record>, Vec<Record>, Vec<Record>);

impl Handler {
    fn answer(&self, request: &Request, metadata: &mut Metadata) -> Result<Sections, ResponseCode> {
        if request.metadata.op_code != OpCode::Query {
            return Err(ResponseCode::NotImp);
        }
        let info = request.request_info().map_err(|_| ResponseCode::FormErr)?;
        if info.query.query_class() != DNSClass::IN {
            return Err(ResponseCode::Refused);
        }
        let records = self.records.get().ok_or(ResponseCode::ServFail)?;
        let name = Name::from(info.query.name()).to_ascii();
        let answer = records.resolve(View::Outside, &name, query_type(info.query.query_type()));
        metadata.authoritative = answer.rcode != Rcode::Refused;
        metadata.response_code = match answer.rcode {
            Rcode::NoError => ResponseCode::NoError,
            Rcode::NxDomain => ResponseCode::NXDomain,
            Rcode::Refused => ResponseCode::Refused,
        };
        Ok(sections(&records, &answer))
    }
}

fn query_type(t: RecordType) -> QueryType {
    match t {
        RecordType::A => QueryType::A,
        RecordType::AAAA => QueryType::Aaaa,
        RecordType::CNAME => QueryType::Cname,
        RecordType::SRV => QueryType::Srv,
        RecordType::PTR => QueryType::Ptr,
        RecordType::TXT => QueryType::Txt,
        RecordType::NS => QueryType::Ns,
        RecordType::SOA => QueryType::Soa,
        RecordType::ANY => QueryType::Any,
        _ => QueryType::Other,
    }
}

fn sections(records: &Records, answer: &Answer) -> Sections {
    let zone = records.domain();
    let convert = |list: &[(String, Data)]| list.iter().filter_map(|(name, data)| record(zone, name, data)).collect();
    let answers: Vec<Record> = convert(&answer.answers);
    let negative = answers.is_empty() && answer.rcode != Rcode::Refused;
    let authority = if negative { record(zone, zone, &Data::Soa).into_iter().collect() } else { Vec::new() };
    (answers, authority, convert(&answer.additionals))
}

/// A name that cannot be encoded (an over-long label) is left out.
fn record(zone: &str, name: &str, data: &Data) -> Option<Record> {
    let parse = |n: &str| Name::from_ascii(format!("{n}.")).ok();
    let rdata = match data {
        Data::A(ip) => RData::A(A(*ip)),
        Data::Aaaa(ip) => RData::AAAA(AAAA(*ip)),
        Data::Cname(target) => RData::CNAME(CNAME(parse(target)?)),
        Data::Srv { port, target } => RData::SRV(SRV::new(0, 100, *port, parse(target)?)),
        Data::Ptr(target) => RData::PTR(PTR(parse(target)?)),
        Data::Txt(text) => RData::TXT(TXT::new(vec![text.clone()])),
        Data::Ns(target) => RData::NS(NS(parse(target)?)),
        Data::Soa => RData::SOA(SOA::new(
            parse(&format!("ns.dns.{zone}"))?,
            parse(&format!("hostmaster.{zone}"))?,
            1,
            7200,
            1800,
            86400,
            TTL,
        )),
    };
    Some(Record::from_rdata(parse(name)?, TTL, rdata))
}
