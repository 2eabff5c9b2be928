//! gRPC over HTTP/2 on a Unix socket, as far as CSI has it: calls with one message each way.
//!
//! The shape (from gRPC's "PROTOCOL-HTTP2"): a POST whose path is the method; both bodies are a byte that
//! says "not compressed", the length as four bytes, and the message; the status comes in the trailers, or,
//! of a call that failed, in the headers of an answer without a body.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinError;

/// The largest message that is taken: gRPC's own default.
const LARGEST: usize = 4 << 20;
/// What precedes a message.
const FRONT: usize = 5;
/// Calls at the same time on one connection.
const CALLS: u32 = 64;

/// How a call failed: gRPC's codes, as far as CSI uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Code {
    /// From its name in gRPC's documents.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "INVALID_ARGUMENT" => Self::InvalidArgument,
            "NOT_FOUND" => Self::NotFound,
            "ALREADY_EXISTS" => Self::AlreadyExists,
            "RESOURCE_EXHAUSTED" => Self::ResourceExhausted,
            "FAILED_PRECONDITION" => Self::FailedPrecondition,
            "OUT_OF_RANGE" => Self::OutOfRange,
            "INTERNAL" => Self::Internal,
            "UNAVAILABLE" => Self::Unavailable,
            _ => return None,
        })
    }
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    pub code: Code,
    pub message: String,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }
}

/// What answers calls. It may block: each call has a thread.
pub trait Service: Send + Sync + 'static {
    /// Answers a call of `method` (`/package.Service/Method`) with the bytes of a message.
    fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, Status>;
}

/// Reads a request, has it answered, and writes the answer.
pub fn answer<I, O>(
    message: &[u8],
    how: impl FnOnce(I) -> Result<O, Status>,
) -> Result<Vec<u8>, Status>
where
    I: Message + Default,
    O: Message,
{
    let request = I::decode(message)
        .map_err(|error| Status::invalid(format!("the request cannot be read: {error}")))?;
    how(request).map(|answer| answer.encode_to_vec())
}

/// Listens at a path, in the place of whatever was there before. There is never no socket at it.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Those who watch the folder leave out what begins with a dot.
    let draft = path.with_file_name(format!(".{name}"));
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&draft)?;
    std::fs::rename(&draft, path)?;
    Ok(listener)
}

/// Answers everybody who connects, for good.
pub async fn serve(listener: UnixListener, service: Arc<dyn Service>) -> io::Error {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = Arc::clone(&service);
                tokio::spawn(async move {
                    // Clients go as they like; what they asked for was answered or will be asked again.
                    if let Err(error) = connection(stream, service).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
            Err(error) => return error,
        }
    }
}

async fn connection(stream: UnixStream, service: Arc<dyn Service>) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(CALLS)
        .handshake(stream)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            if let Err(error) = exchange(request, respond, service).await {
                tracing::debug!(%error, "a call ended early");
            }
        });
    }
    Ok(())
}

async fn exchange(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    service: Arc<dyn Service>,
) -> Result<(), h2::Error> {
    let (parts, body) = request.into_parts();
    let method = parts.uri.path().to_owned();
    let outcome = match receive(body).await? {
        Ok(message) => work(service, method, message).await,
        Err(status) => Err(status),
    };
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    match outcome {
        Ok(message) => {
            let mut stream = respond.send_response(response, false)?;
            stream.send_data(framed(&message), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            stream.send_trailers(trailers)
        }
        Err(status) => {
            headers.insert("grpc-status", HeaderValue::from(status.code as u16));
            if let Ok(text) = HeaderValue::from_str(&quoted(&status.message)) {
                headers.insert("grpc-message", text);
            }
            respond.send_response(response, true).map(drop)
        }
    }
}

async fn work(
    service: Arc<dyn Service>,
    method: String,
    message: Bytes,
) -> Result<Vec<u8>, Status> {
    let name = method.clone();
    let work = tokio::task::spawn_blocking(move || service.call(&method, &message));
    let outcome = work.await.unwrap_or_else(|error: JoinError| {
        Err(Status::internal(format!("the call did not end: {error}")))
    });
    match &outcome {
        Ok(_) => tracing::debug!(method = name, "answered"),
        Err(status) => tracing::info!(method = name, code = ?status.code, %status, "refused"),
    }
    outcome
}

/// The message of a body.
async fn receive(mut body: RecvStream) -> Result<Result<Bytes, Status>, h2::Error> {
    let mut all = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        if all.len() + chunk.len() > LARGEST + FRONT {
            let text = format!("a request has more than {LARGEST} bytes");
            return Ok(Err(Status::new(Code::ResourceExhausted, text)));
        }
        body.flow_control().release_capacity(chunk.len())?;
        all.extend_from_slice(&chunk);
    }
    let all = all.freeze();
    Ok(match all.first_chunk::<FRONT>() {
        Some([0, length @ ..]) if u32::from_be_bytes(*length) as usize == all.len() - FRONT => {
            Ok(all.slice(FRONT..))
        }
        Some([1, ..]) => Err(Status::new(
            Code::Unimplemented,
            "the request is compressed",
        )),
        _ => Err(Status::invalid("the request is not one whole message")),
    })
}

fn framed(message: &[u8]) -> Bytes {
    let mut all = BytesMut::with_capacity(message.len() + FRONT);
    all.put_u8(0);
    // Our own messages are far from 4 GiB.
    all.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    all.put_slice(message);
    all.freeze()
}

/// As headers hold text: what is not plain is written as `%XX`.
fn quoted(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => all.push(char::from(byte)),
            // A string takes all that is written to it.
            _ => drop(write!(all, "%{byte:02X}")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_any_letters_fit_into_a_header() {
        let text = quoted("100 % of \"größe\"\n");
        assert_eq!(text, "100 %25 of \"gr%C3%B6%C3%9Fe\"%0A");
        assert!(HeaderValue::from_str(&text).is_ok());
    }

    #[test]
    fn a_message_has_its_length_in_front() {
        assert_eq!(&framed(b"abc")[..], b"\0\0\0\0\x03abc");
    }
}
