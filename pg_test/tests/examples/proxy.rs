//! A TCP proxy in front of a server, which can stop forwarding without closing a connection: what a firewall that forgets
//! a connection does, or a proxy that hangs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use pg_presence_test::Cluster;

/// Which connections are cut, as long as they are.
#[derive(Clone, Copy, PartialEq)]
pub enum Cut {
    Nothing,
    /// Those that have said LISTEN.
    Listeners,
    Everything,
}

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: PathBuf,
    cut: Mutex<Cut>,
    connections: Mutex<Vec<Arc<Connection>>>,
}

struct Connection {
    client: TcpStream,
    server: UnixStream,
    listens: AtomicBool,
    /// A connection that was cut stays cut.
    is_cut: AtomicBool,
}

impl Proxy {
    pub fn new(cluster: &Cluster) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            server: cluster.socket_directory().join(".s.PGSQL.5432"),
            cut: Mutex::new(Cut::Nothing),
            connections: Mutex::default(),
        });
        let proxy = Proxy {
            port,
            shared: shared.clone(),
        };
        // It ends with this process.
        thread::spawn(move || {
            for client in listener.incoming() {
                shared.accept(client.expect("a connection"));
            }
        });
        proxy
    }

    /// Cuts these connections, including those that are made until the next call. The old ones stay cut after it.
    pub fn cut(&self, which: Cut) {
        *self.shared.cut.lock().unwrap() = which;
        for connection in self.shared.connections.lock().unwrap().iter() {
            connection.cut(which);
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Shared>, client: TcpStream) {
        // While the server is down, the client is refused.
        let Ok(server) = UnixStream::connect(&self.server) else {
            return;
        };
        let connection = Arc::new(Connection {
            client: client.try_clone().expect("a file descriptor"),
            server: server.try_clone().expect("a file descriptor"),
            listens: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
        });
        // Keeps it open.
        self.connections.lock().unwrap().push(connection.clone());
        let (to_server, to_client) = (self.clone(), self.clone());
        let both = (connection.clone(), connection);
        thread::spawn(move || to_server.forward(&both.0, &both.0.client, &both.0.server));
        thread::spawn(move || to_client.forward(&both.1, &both.1.server, &both.1.client));
    }

    fn forward<From, To>(&self, connection: &Connection, mut from: &From, mut to: &To)
    where
        for<'a> &'a From: Read,
        for<'a> &'a To: Write,
    {
        let mut buffer = [0; 8192];
        while let Ok(size @ 1..) = from.read(&mut buffer) {
            if buffer[..size].windows(6).any(|word| word == b"LISTEN") {
                connection.listens.store(true, Ordering::SeqCst);
            }
            connection.cut(*self.cut.lock().unwrap());
            if connection.is_cut.load(Ordering::SeqCst) {
                return;
            }
            if to.write_all(&buffer[..size]).is_err() {
                break;
            }
        }
        if !connection.is_cut.load(Ordering::SeqCst) {
            let _ = connection.client.shutdown(Shutdown::Both);
            let _ = connection.server.shutdown(Shutdown::Both);
        }
    }
}

impl Connection {
    fn cut(&self, which: Cut) {
        let listens = which == Cut::Listeners && self.listens.load(Ordering::SeqCst);
        if listens || which == Cut::Everything {
            self.is_cut.store(true, Ordering::SeqCst);
        }
    }
}
