//! A bound on how slowly a peer may take what is sent to it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream whose writes fail when the peer takes too little for too long: less than `min_bytes` within `limit`, and
/// not all there is. Whoever writes has to flush, as that tells that there is no more.
pub(super) struct WriteBound<S> {
    stream: S,
    limit: Duration,
    min_bytes: usize,
    /// While the peer has not taken all there is.
    behind: Option<Behind>,
}

struct Behind {
    /// Runs until `limit` is over.
    limit: Pin<Box<Sleep>>,
    /// Bytes, since it runs.
    taken: usize,
}

impl<S> WriteBound<S> {
    pub(super) fn new(stream: S, limit: Duration, min_bytes: usize) -> Self {
        Self { stream, limit, min_bytes, behind: None }
    }

    fn written(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &poll {
            Poll::Pending => return self.wait(context),
            Poll::Ready(Ok(bytes)) => {
                self.behind = self.behind.take().and_then(|behind| {
                    let taken = behind.taken + bytes;
                    (taken < self.min_bytes).then_some(Behind { taken, ..behind })
                });
            }
            Poll::Ready(Err(_)) => {}
        }
        poll
    }

    fn flushed(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if poll.is_pending() {
            return self.wait(context);
        }
        self.behind = None;
        poll
    }

    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let limit = self.limit;
        let behind = self.behind.get_or_insert_with(|| Behind { limit: Box::pin(sleep(limit)), taken: 0 });
        behind.limit.as_mut().poll(context).map(|()| {
            self.behind = None;
            Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes too little of what is sent to it"))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteBound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteBound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.flushed(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.flushed(context, poll)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Takes so many bytes each second, for ever.
    async fn take(mut peer: DuplexStream, bytes_a_second: usize) {
        let mut taken = vec![0; bytes_a_second];
        loop {
            sleep(Duration::from_secs(1)).await;
            peer.read_exact(&mut taken).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_cut_off() {
        let (stream, mut peer) = tokio::io::duplex(4);
        let mut bound = WriteBound::new(stream, LIMIT, 4);
        let began = Instant::now();
        bound.write_all(b"1234").await.unwrap();
        assert_eq!(bound.write(b"5").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 10);

        // What it takes in time starts the time anew.
        let (sent, ()) = tokio::join!(bound.write_all(b"56789abc"), async {
            for _ in 0..2 {
                sleep(Duration::from_secs(7)).await;
                peer.read_exact(&mut [0; 4]).await.unwrap();
            }
        });
        sent.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_trickles_is_cut_off() {
        let (stream, peer) = tokio::io::duplex(16);
        let mut bound = WriteBound::new(stream, LIMIT, 16);
        let trickling = tokio::spawn(take(peer, 1));
        let began = Instant::now();
        let error = bound.write_all(&[b'x'; 1_000]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, LIMIT));
        trickling.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_is_not() {
        let (stream, peer) = tokio::io::duplex(16);
        let mut bound = WriteBound::new(stream, LIMIT, 16);
        let taking = tokio::spawn(take(peer, 2));
        bound.write_all(&[b'x'; 1_000]).await.unwrap();
        taking.abort();

        // Nor is one that takes less because there is no more.
        let (stream, peer) = tokio::io::duplex(4);
        let mut bound = WriteBound::new(stream, LIMIT, 16);
        let taking = tokio::spawn(take(peer, 1));
        for _ in 0..100 {
            bound.write_all(b"document").await.unwrap();
            bound.flush().await.unwrap();
        }
        taking.abort();
    }
}
