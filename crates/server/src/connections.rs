//! Connections, each of which costs memory and a file descriptor: counted, and not more than so
//! many on a port.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use axum::serve::Listener;
use futures::Stream;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

/// What is counted of a port's connections.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    /// Those that are open.
    pub open: Gauge<u64, AtomicU64>,
    /// Those that were closed at once, since there were too many.
    pub refused: Counter,
}

/// A listener whose connections are counted. Beyond the most that may be open it closes new ones at
/// once: left unaccepted, they would wait for an answer that nobody knows will come.
#[derive(Debug)]
pub struct Counted {
    listener: TcpListener,
    room: Arc<Semaphore>,
    connections: Connections,
}

impl Counted {
    /// Takes connections from `listener`, at most `most` at a time.
    pub fn new(listener: TcpListener, most: usize, connections: Connections) -> Self {
        let room = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { listener, room, connections }
    }

    /// The connections, one after the other.
    pub fn stream(self) -> impl Stream<Item = io::Result<Connection>> {
        futures::stream::unfold(self, async |mut listener| {
            let (connection, _) = listener.accept().await;
            Some((Ok(connection), listener))
        })
    }
}

impl Listener for Counted {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let (stream, peer) = Listener::accept(&mut self.listener).await;
            let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
                self.connections.refused.inc();
                continue;
            };
            // The end of an answer would otherwise wait until the peer has acknowledged what came
            // before it, which it puts off by 40 ms. Without it, the connection works all the same.
            let _ = stream.set_nodelay(true);
            self.connections.open.inc();
            let open = self.connections.open.clone();
            return (Connection { stream, _place: Place { _permit: place, open } }, peer);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection's place among those that are open, given back when it ends.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    open: Gauge<u64, AtomicU64>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// A connection that is counted while it is open.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    _place: Place,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
