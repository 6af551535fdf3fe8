//! A DNS client over UDP.

use std::net::UdpSocket;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};

/// Asks `server`; returns the response code and the answers' data as text, sorted.
pub fn ask(server: &str, name: &str, rtype: RecordType) -> (ResponseCode, Vec<String>) {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii(name).expect("name"), rtype));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    socket.send_to(&query.to_bytes().expect("encode"), server).expect("send");
    let mut buffer = [0; 4096];
    let n = socket.recv(&mut buffer).expect("a DNS answer");
    let answer = Message::from_bytes(&buffer[..n]).expect("decode");
    let mut data: Vec<String> = answer.answers.iter().map(|r| text(&r.data)).collect();
    data.sort();
    (answer.metadata.response_code, data)
}

fn text(data: &RData) -> String {
    match data {
        RData::SRV(srv) => format!("{} {}", srv.port, srv.target),
        other => other.to_string(),
    }
}
