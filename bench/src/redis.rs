//! A temporary Redis or Valkey server, and its clients.

use std::{
    io::{Read, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use pg_presence_test::wait_until;

use crate::{ids::id_text, interleave::Client, progress, random::Random};

/// Name, program to look for on the PATH, and the name to run it by. Debian's server packages start a service. Its
/// tools packages do not, but contain the same executable, which acts as the server if run by that name.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("Redis", "redis-check-rdb", "redis-server"),
    ("Valkey", "valkey-check-rdb", "valkey-server"),
];

/// A server on a unix socket of its own, killed when dropped.
pub struct Redis {
    pub name: &'static str,
    socket: PathBuf,
    server: Child,
}

impl Redis {
    /// Starts a server of each program that is installed.
    pub fn start_all(directory: &Path) -> Vec<Redis> {
        PROGRAMS
            .iter()
            .filter_map(|(name, program, run_as)| {
                let program = std::env::split_paths(&std::env::var_os("PATH")?)
                    .map(|directory| directory.join(program))
                    .find(|program| program.exists())?;
                Some(Redis::start(name, &program, run_as, directory))
            })
            .collect()
    }

    fn start(name: &'static str, program: &Path, run_as: &str, directory: &Path) -> Redis {
        let socket = directory.join(run_as);
        let server = Command::new(program)
            .arg0(run_as)
            .arg("--unixsocket")
            .arg(&socket)
            // No TCP port.
            .args(["--port", "0"])
            // No snapshots: their process would run during the turns of other variants.
            .args(["--save", ""])
            // Clients are notified of expired keys.
            .args(["--notify-keyspace-events", "Ex"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("start Redis");
        let redis = Redis { name, socket, server };
        wait_until("Redis to accept connections", || {
            UnixStream::connect(&redis.socket).is_ok()
        });
        redis
    }

    /// Loads sessions with the numbers below `sessions`.
    pub fn load(&self, sessions: u64) {
        let began = Instant::now();
        for operation in [Operation::Add, Operation::Expire] {
            let mut client = self.client(operation, 1000);
            for from in (0..sessions).step_by(1000) {
                client.send((from..sessions.min(from + 1000)).collect());
            }
        }
        progress(&format!(
            "loaded {} in {:.1} s",
            self.name,
            began.elapsed().as_secs_f64()
        ));
    }

    /// Returns the name and version that the server reports.
    pub fn version(&self) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("connect to Redis");
        stream.write_all(b"INFO server\r\n").expect("write to Redis");
        let mut reply = vec![0; 4096];
        let n = stream.read(&mut reply).expect("read from Redis");
        let reply = String::from_utf8_lossy(&reply[..n]).into_owned();
        let version = |field: &str| {
            let line = reply.lines().find(|line| line.starts_with(field));
            line.and_then(|line| line.split(':').nth(1)).map(str::to_owned)
        };
        let version = version("valkey_version").or_else(|| version("redis_version"));
        format!("{} {}", self.name, version.unwrap_or_default())
    }

    /// Connects a client that performs an operation over and over, `pipelined` of them at a time.
    pub fn client(&self, operation: Operation, pipelined: u64) -> RedisClient {
        let stream = UnixStream::connect(&self.socket).expect("connect to Redis");
        RedisClient {
            stream,
            pid: i32::try_from(self.server.id()).expect("a process id"),
            operation,
            pipelined,
            sessions: 0,
            out: Vec::new(),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What a client does for a session.
#[derive(Clone, Copy)]
pub enum Operation {
    /// `ZADD`: one sorted set by time, which `ZRANGEBYSCORE` sweeps.
    Add,
    /// `SET … EX 300`: a key per session, whose expiry is notified.
    Expire,
    /// `ZRANGEBYSCORE` that finds no session due.
    Sweep,
}

/// A client of Redis that performs one operation over and over.
pub struct RedisClient {
    stream: UnixStream,
    pid: i32,
    operation: Operation,
    pipelined: u64,
    sessions: u64,
    out: Vec<u8>,
}

impl RedisClient {
    /// Sets the number of sessions that the client chooses from.
    pub fn among(self, sessions: u64) -> RedisClient {
        RedisClient { sessions, ..self }
    }

    fn send(&mut self, sessions: Vec<u64>) {
        self.out.clear();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_millis()
            .to_string();
        for session in &sessions {
            let id = id_text(*session);
            match self.operation {
                Operation::Add => command(&mut self.out, &["ZADD", "presence", &now, &id]),
                Operation::Expire => command(&mut self.out, &["SET", &id, "1", "EX", "300"]),
                Operation::Sweep => {
                    command(&mut self.out, &["ZRANGEBYSCORE", "presence", "0", "1000"]);
                }
            }
        }
        self.stream.write_all(&self.out).expect("write to Redis");
        // The reply to each of these commands is one line.
        let mut replies = 0;
        let mut chunk = [0; 65536];
        while replies < sessions.len() {
            let n = self.stream.read(&mut chunk).expect("read from Redis");
            assert!(n > 0, "Redis closed the connection");
            assert!(!chunk[..n].contains(&b'-'), "{}", String::from_utf8_lossy(&chunk[..n]));
            replies += chunk[..n].iter().filter(|byte| **byte == b'\n').count();
        }
    }
}

fn command(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

impl Client for RedisClient {
    fn call(&mut self, random: &mut Random) -> u64 {
        let sessions = (0..self.pipelined).map(|_| random.below(self.sessions)).collect();
        self.send(sessions);
        self.pipelined
    }

    fn pid(&self) -> i32 {
        self.pid
    }
}
