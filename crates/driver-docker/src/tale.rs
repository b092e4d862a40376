//! What the engine tells without an end, read line by line: its events, and how a pull comes on.
//!
//! They come from a peer that may be anything: a proxy between us, or an engine that is not well. What is not understood
//! breaks the stream, and a line that has no end is not kept for ever. bollard would keep it, and read all of it again with
//! each piece.

use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use hyper::body::Body;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Of one line. An event carries all labels of its container, and those of its image: some kilobytes.
const LINE_MAX_BYTES: usize = 1024 * 1024;
/// So much of what makes no sense is shown.
const SHOWN_MAX_CHARS: usize = 80;

/// Why nothing more can be heard.
#[derive(Debug, Error)]
pub(crate) enum Broken<E: std::error::Error> {
    #[error("the engine ended it")]
    Ended,
    #[error("it ended within a line")]
    EndedWithin,
    #[error("it broke off: {0}")]
    Cut(E),
    #[error("it tells {shown:?}, which cannot be understood: {reason}")]
    Nonsense { shown: String, reason: serde_json::Error },
    #[error("it tells a line of more than {LINE_MAX_BYTES} bytes")]
    TooLong,
}

/// What is told, in its order.
pub(crate) struct Tale<B, T> {
    body: B,
    tells: PhantomData<fn() -> T>,
    /// What has come and is not yet a whole line: a line's bound and what comes at once, at most.
    read: BytesMut,
    /// So much of it has no end of a line.
    searched: usize,
}

impl<B, T> Tale<B, T>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
    T: DeserializeOwned,
{
    pub(crate) fn new(body: B) -> Self {
        Self { body, tells: PhantomData, read: BytesMut::new(), searched: 0 }
    }

    /// All that is told, until the engine ends it or it breaks.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<T, Broken<B::Error>>> {
        stream::unfold(Some(self), |tale| async {
            let mut tale = tale?;
            match tale.next().await {
                Err(Broken::Ended) => None,
                Err(broken) => Some((Err(broken), None)),
                told => Some((told, Some(tale))),
            }
        })
    }

    /// The next that is told. Nothing is lost by giving up the wait for it.
    pub(crate) async fn next(&mut self) -> Result<T, Broken<B::Error>> {
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

    use futures_util::StreamExt as _;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;
    use crate::told::{Actor, Told};

    fn tale(
        pieces: &[&'static [u8]],
    ) -> Tale<impl Body<Data = Bytes, Error = Infallible> + Unpin + use<>, Told> {
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
    async fn as_a_stream_it_ends_with_the_last_line_or_after_what_breaks_it() {
        const EVENT: &[u8] = b"{\"Action\":\"die\",\"Actor\":{\"ID\":\"b\"}}\n";
        for (pieces, breaks) in [(vec![EVENT, EVENT], false), (vec![EVENT, EVENT, b"{\"Act"], true)] {
            let told: Vec<_> = tale(&pieces).into_stream().collect().await;
            let (good, broken) = told.split_at(2);
            assert!(good.iter().all(Result::is_ok), "{good:?}");
            assert_eq!(broken.len(), usize::from(breaks), "{broken:?}");
        }
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
