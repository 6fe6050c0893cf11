//! [`Proxy`]: a network that fails when told to.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::{JoinHandle, spawn};

/// A port that leads to another, until dropped.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<Network>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// The way to a port of this machine, where something may listen sooner or later.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let network = Network { port, ..Network::default() };
        let mut proxy = Self { address, network: Arc::new(network), acceptor: None };
        proxy.listen(listener);
        proxy
    }

    /// Where it listens, whenever it does.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections, at both ends; new ones are taken as before.
    pub fn cut(&self) {
        for stream in self.network.streams.lock().unwrap().drain(..) {
            if let Some(stream) = stream.upgrade() {
                // Its peer may have closed it.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Lets no byte and no end pass, either way, on connections that are open and on new ones.
    ///
    /// Of what was sent before, some may still pass.
    pub fn hold(&self) {
        *self.network.held.lock().unwrap() = true;
    }

    /// Lets pass what was held, and whatever follows.
    pub fn release(&self) {
        *self.network.held.lock().unwrap() = false;
        self.network.released.notify_all();
    }

    /// Closes so many of the next connections as soon as they are open.
    pub fn refuse_next(&self, connections: usize) {
        self.network.refusals.store(connections, SeqCst);
    }

    /// Listens no more, so that connecting fails; connections that are open stay.
    pub fn refuse(&mut self) {
        self.network.refuses.store(true, SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            // It looks only when a connection comes.
            drop(TcpStream::connect(self.address).unwrap());
            acceptor.join().unwrap();
        }
    }

    /// Listens again, at the same port.
    pub fn accept(&mut self) {
        self.network.refuses.store(false, SeqCst);
        self.listen(TcpListener::bind(self.address).unwrap());
    }

    fn listen(&mut self, listener: TcpListener) {
        let network = self.network.clone();
        self.acceptor = Some(spawn(move || network.accept_from(&listener)));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
        self.cut();
        self.release();
    }
}

/// What the threads share.
#[derive(Default)]
struct Network {
    port: u16,
    streams: Mutex<Vec<Weak<TcpStream>>>,
    held: Mutex<bool>,
    released: Condvar,
    refusals: AtomicUsize,
    refuses: AtomicBool,
}

impl Network {
    fn accept_from(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            let client = client.unwrap();
            if self.refuses.load(SeqCst) {
                return;
            }
            let refusal = self.refusals.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            if refusal.is_err() {
                self.connect(client);
            }
        }
    }

    /// Opens the second half of the way; while there is no server, the first one closes.
    fn connect(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else {
            return;
        };
        let [client, server] = [client, server].map(Arc::new);
        let mut streams = self.streams.lock().unwrap();
        streams.retain(|it| it.strong_count() > 0);
        for (from, to) in [(&client, &server), (&server, &client)] {
            from.set_nodelay(true).unwrap();
            streams.push(Arc::downgrade(from));
            let (network, from, to) = (self.clone(), from.clone(), to.clone());
            spawn(move || network.pass_on(&from, &to));
        }
    }

    /// Passes on what comes one way, and then its end.
    fn pass_on(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut bytes = [0; 16 * 1024];
        loop {
            let length = from.read(&mut bytes).unwrap_or(0);
            let held = self.held.lock().unwrap();
            drop(self.released.wait_while(held, |held| *held).unwrap());
            if length == 0 || to.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        // The other end may have closed it.
        let _ = to.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::Lines;
    use crate::redis::Redis;

    #[test]
    fn a_cut_ends_what_is_open_and_nothing_later() {
        let redis = Redis::start();
        let proxy = Proxy::to(redis.port());
        let mut open = connected(&proxy);
        proxy.cut();
        assert!(open.ends());
        connected(&proxy);
    }

    #[test]
    fn held_connections_are_silent_and_lose_nothing() {
        let redis = Redis::start();
        let proxy = Proxy::to(redis.port());
        let mut open = connected(&proxy);
        proxy.hold();
        let mut new = Lines::connect(proxy.address());
        for connection in [&mut open, &mut new] {
            connection.send("PING");
            assert!(connection.is_silent());
        }
        proxy.release();
        assert_eq!((open.read().as_str(), new.read().as_str()), ("+PONG", "+PONG"));
    }

    #[test]
    fn a_held_connection_can_be_cut() {
        let redis = Redis::start();
        let proxy = Proxy::to(redis.port());
        let mut open = connected(&proxy);
        proxy.hold();
        open.send("PING");
        assert!(open.is_silent());
        proxy.cut();
        assert!(open.ends());
    }

    #[test]
    fn as_many_connections_as_told_are_closed_at_once() {
        let redis = Redis::start();
        let proxy = Proxy::to(redis.port());
        let mut open = connected(&proxy);
        proxy.refuse_next(2);
        for _ in 0..2 {
            assert!(Lines::connect(proxy.address()).ends());
        }
        connected(&proxy);
        assert_eq!(open.ask("PING"), "+PONG");
    }

    #[test]
    fn nobody_connects_from_a_refusal_until_it_accepts() {
        let redis = Redis::start();
        let mut proxy = Proxy::to(redis.port());
        let mut open = connected(&proxy);
        proxy.refuse();
        assert!(TcpStream::connect(proxy.address()).is_err());
        assert_eq!(open.ask("PING"), "+PONG");
        proxy.accept();
        connected(&proxy);
    }

    #[test]
    fn a_server_that_ends_ends_its_connections() {
        let mut redis = Redis::start();
        let proxy = Proxy::to(redis.port());
        let mut open = connected(&proxy);
        redis.kill();
        assert!(open.ends());
        assert!(Lines::connect(proxy.address()).ends());
        redis.restart();
        connected(&proxy);
    }

    /// A connection on which the server has answered.
    fn connected(proxy: &Proxy) -> Lines {
        let mut lines = Lines::connect(proxy.address());
        assert_eq!(lines.ask("PING"), "+PONG");
        lines
    }
}
