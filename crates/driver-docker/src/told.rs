//! What the engine tells of its events, read line by line.
//!
//! It is the one answer of the engine's that has no end, from a peer that may be anything: a proxy between us, or an
//! engine that is not well. Whatever is not understood breaks the stream. It is asked for anew then, and all that may
//! have been missed is observed; an event that is left out instead would be missed without anybody's knowing.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use serde::Deserialize;
use thiserror::Error;

/// Of one event. It carries all labels of its container, and those of its image: some kilobytes.
const LINE_MAX_BYTES: usize = 1024 * 1024;
/// So much of what makes no sense is shown.
const SHOWN_MAX_CHARS: usize = 80;

/// One event, as far as anybody here asks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Told {
    #[serde(rename = "Action")]
    pub(crate) action: String,
    #[serde(rename = "Actor")]
    pub(crate) actor: Actor,
    /// When, by the engine's clock, in nanoseconds since 1970; 0 where it does not say.
    #[serde(rename = "timeNano", default)]
    pub(crate) at_ns: u64,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Actor {
    #[serde(rename = "ID")]
    pub(crate) id: String,
}

/// Why nothing more can be heard.
#[derive(Debug, Error)]
pub(crate) enum Broken<E: std::error::Error> {
    #[error("the engine ended it")]
    Ended,
    #[error("it ended within an event")]
    EndedWithin,
    #[error("it broke off: {0}")]
    Cut(E),
    #[error("it tells {shown:?}, which is no event: {reason}")]
    Nonsense { shown: String, reason: serde_json::Error },
    #[error("it tells of an event of more than {LINE_MAX_BYTES} bytes")]
    TooLong,
}

/// The events in the order in which they are told.
pub(crate) struct Tale<B> {
    body: B,
    /// What has come and is not yet a whole line: a line's bound and what comes at once, at most.
    read: BytesMut,
    /// So much of it has no end of a line.
    searched: usize,
}

impl<B> Tale<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    pub(crate) fn new(body: B) -> Self {
        Self { body, read: BytesMut::new(), searched: 0 }
    }

    /// The next event. Nothing is lost by giving up the wait for it.
    pub(crate) async fn next(&mut self) -> Result<Told, Broken<B::Error>> {
        loop {
            if let Some(line) = self.line() {
                return serde_json::from_slice(&line).map_err(|reason| {
                    let shown = String::from_utf8_lossy(&line).chars().take(SHOWN_MAX_CHARS).collect();
                    Broken::Nonsense { shown, reason }
                });
            }
            if self.read.len() > LINE_MAX_BYTES {
                return Err(Broken::TooLong);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(Broken::Cut(error)),
                None if self.read.is_empty() => return Err(Broken::Ended),
                None => return Err(Broken::EndedWithin),
            }
        }
    }

    /// Takes the first whole line of what has come.
    fn line(&mut self) -> Option<BytesMut> {
        let Some(end) = self.read[self.searched..].iter().position(|&byte| byte == b'\n') else {
            self.searched = self.read.len();
            return None;
        };
        let line = self.read.split_to(self.searched + end + 1);
        self.searched = 0;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    fn tale(pieces: &[&'static [u8]]) -> Tale<impl Body<Data = Bytes, Error = Infallible> + Unpin + use<>> {
        let frames: Vec<_> = pieces.iter().map(|&piece| Ok(Frame::data(Bytes::from_static(piece)))).collect();
        Tale::new(StreamBody::new(stream::iter(frames)))
    }

    fn told(action: &str, id: &str) -> Told {
        Told { action: action.to_owned(), actor: Actor { id: id.to_owned() }, at_ns: 0 }
    }

    #[tokio::test]
    async fn events_are_read_however_they_are_cut() {
        let mut tale = tale(&[
            br#"{"Type":"container","Action":"start","Ac"#,
            br#"tor":{"ID":"a","Attributes":{"image":"x\n"}}}"#,
            b"\n{\"Action\":\"die\",\"Actor\":{\"ID\":\"b\"}}\r\n{\"Action\":\"destroy\",\"Actor\":{\"ID\":\"b\"}}\n",
            b"{\"Action\":\"create\",\"Actor\"",
        ]);
        for expected in [told("start", "a"), told("die", "b"), told("destroy", "b")] {
            assert_eq!(tale.next().await.expect("it is an event"), expected);
        }
        let error = tale.next().await.expect_err("the last one is cut off");
        assert!(matches!(error, Broken::EndedWithin), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_event_breaks_the_stream() {
        let nonsense: [&[u8]; 9] = [
            b"<html>\n",
            b"\n",
            b"null\n",
            b"{}\n",
            b"[1,2]\n",
            b"\xff\xfe\n",
            b"{\"Action\":\"die\"}\n",
            b"{\"Action\":7,\"Actor\":{\"ID\":\"a\"}}\n",
            b"{\"Action\":\"die\",\"Actor\"\n",
        ];
        for line in nonsense {
            let error = tale(&[line]).next().await.expect_err("it is no event");
            assert!(matches!(error, Broken::Nonsense { .. }), "{error}");
        }
        let error = tale(&[]).next().await.expect_err("there is none");
        assert_eq!(error.to_string(), "the engine ended it");
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_kept_for_ever() {
        const PIECE: &[u8] = &[b' '; 64 * 1024];
        let pieces = vec![PIECE; 2 * LINE_MAX_BYTES / PIECE.len()];
        let mut tale = tale(&pieces);
        let error = tale.next().await.expect_err("it has no end");
        assert!(matches!(error, Broken::TooLong), "{error}");
        assert!(tale.read.len() <= LINE_MAX_BYTES + PIECE.len());
    }
}
