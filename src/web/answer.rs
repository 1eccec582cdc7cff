//! Answers: whole bodies and streams.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    body::{Frame, SizeHint},
    header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::error;

/// What an answer carries.
#[derive(Debug)]
pub enum Body {
    /// All of it; taken when sent.
    Whole(Option<Bytes>),
    /// Piece by piece until the other end is dropped.
    Stream(mpsc::Receiver<Bytes>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(pieces) => {
                pieces.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// An answer with a body of some type.
pub fn body(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    respond(status, content_type, Body::Whole(Some(body.into())))
}

/// An answer without a body.
pub fn nothing(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = status;
    response
}

/// A plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    body(status, "text/plain; charset=utf-8", text)
}

/// A sentence on a line of its own, with the headers that Go's servers give to errors.
pub fn sentence(status: StatusCode, sentence: impl std::fmt::Display) -> Response<Body> {
    let mut response = text(status, format!("{sentence}\n"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// As Go's servers say it.
pub fn not_found() -> Response<Body> {
    sentence(StatusCode::NOT_FOUND, "404 page not found")
}

/// A value as JSON.
pub fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => body(StatusCode::OK, "application/json", bytes),
        Err(error) => {
            error!(%error, "an answer could not be written as JSON");
            sentence(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written as JSON")
        }
    }
}

/// Server-sent events.
pub fn events(pieces: mpsc::Receiver<Bytes>) -> Response<Body> {
    respond(StatusCode::OK, "text/event-stream", Body::Stream(pieces))
}

fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
