//! Reads server-sent events, within bounds.
//!
//! Only what a stream of documents needs: `data` is kept, `event`, `id` and `retry` are passed over (the documents
//! carry their own ids). See the HTML standard, section 9.2, for the format.

/// Something that arrived whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// An event with its data.
    Event(Vec<u8>),
    /// A comment: a sign of life.
    Comment,
}

/// An event, or a line, has more bytes than are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {max_bytes} bytes")]
pub struct TooLarge {
    /// The bound.
    pub max_bytes: usize,
}

/// Puts events together from chunks of bytes that are cut anywhere.
#[derive(Debug)]
pub struct Parser {
    max_bytes: usize,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// The data of the event that has not ended yet; `None` before its first line.
    data: Option<Vec<u8>>,
    /// The last byte was a carriage return: a line feed right after it belongs to it.
    after_return: bool,
}

impl Parser {
    /// A parser that holds at most `max_bytes` of one event.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, line: Vec::new(), data: None, after_return: false }
    }

    /// What `chunk` completes, in order. After an error the stream is of no further use.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Received>, TooLarge> {
        let mut received = Vec::new();
        let mut rest = chunk;
        if self.after_return && !rest.is_empty() {
            self.after_return = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.hold(&rest[..end])?;
            received.extend(self.end_line());
            let is_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if is_return {
                self.after_return = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
        }
        self.hold(rest)?;
        Ok(received)
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if held + bytes.len() > self.max_bytes {
            return Err(TooLarge { max_bytes: self.max_bytes });
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Option<Received> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.data.take().map(Received::Event);
        }
        let (field, value) = match line.iter().position(|&byte| byte == b':') {
            Some(0) => return Some(Received::Comment),
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &[][..]),
        };
        if field == b"data" {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &str) -> Received {
        Received::Event(data.as_bytes().to_vec())
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = "retry: 1000\n\n: alive\nid: a:1\nevent: snapshot\ndata: {\"ä\":1}\n\ndata:x\r\ndata:  y\r\n\r\ndata\r\rnope\n\n";
        let expected = [Received::Comment, event("{\"ä\":1}"), event("x\n y"), event("")];
        for cut in 1..text.len() {
            let mut parser = Parser::new(1_000);
            let received: Vec<_> =
                text.as_bytes().chunks(cut).flat_map(|chunk| parser.push(chunk).unwrap()).collect();
            assert_eq!(received, expected, "cut every {cut} bytes");
        }
    }

    #[test]
    fn what_has_not_ended_is_not_an_event() {
        let mut parser = Parser::new(1_000);
        assert_eq!(parser.push(b"data: half\n").unwrap(), []);
        assert_eq!(parser.push(b"\n").unwrap(), [event("half")]);
    }

    #[test]
    fn one_event_is_bounded_many_are_not() {
        let mut parser = Parser::new(16);
        for _ in 0..100 {
            assert_eq!(parser.push(b"data: 0123456789\n\n").unwrap(), [event("0123456789")]);
        }
        for endless in [&b"data: 0123456789012345\n\n"[..], b"data: 01234567\ndata: 01234567\n"] {
            assert_eq!(Parser::new(16).push(endless), Err(TooLarge { max_bytes: 16 }));
        }
        let mut parser = Parser::new(16);
        let drips: Result<Vec<_>, _> = (0..17).map(|_| parser.push(b"x")).collect();
        assert!(drips.is_err());
    }
}
