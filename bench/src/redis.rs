//! A throw-away Redis or Valkey, and connections to it.

use std::{
    io::{Read, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use pg_presence_test::wait_until;

use crate::{contest::Line, ids::id_text, random::Random, say};

/// The programs that may be here. Debian's packages of the servers come with a service; those of the tools do not, and
/// hold the same program, which serves when it is called as the server.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("Redis", "redis-check-rdb", "redis-server"),
    ("Valkey", "valkey-check-rdb", "valkey-server"),
];

/// A server on a socket of its own, stopped when dropped.
pub struct Redis {
    pub name: &'static str,
    socket: PathBuf,
    server: Child,
}

impl Redis {
    /// One of each that is installed.
    pub fn all(directory: &Path) -> Vec<Redis> {
        PROGRAMS
            .iter()
            .filter_map(|(name, program, called)| {
                let program = std::env::split_paths(&std::env::var_os("PATH")?)
                    .map(|place| place.join(program))
                    .find(|program| program.exists())?;
                Some(Redis::start(name, &program, called, directory))
            })
            .collect()
    }

    fn start(name: &'static str, program: &Path, called: &str, directory: &Path) -> Redis {
        let socket = directory.join(called);
        let server = Command::new(program)
            .arg0(called)
            .arg("--unixsocket")
            .arg(&socket)
            // Reached by the socket only.
            .args(["--port", "0"])
            // No snapshots: kinder to it, and their process would run during others' turns.
            .args(["--save", ""])
            // What tells a client that a key has expired.
            .args(["--notify-keyspace-events", "Ex"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server of Redis");
        let redis = Redis {
            name,
            socket,
            server,
        };
        wait_until("Redis answers", || {
            UnixStream::connect(&redis.socket).is_ok()
        });
        redis
    }

    /// Loads as many sessions as said.
    pub fn load(&self, sessions: u64) {
        let began = Instant::now();
        for does in [Does::Add, Does::Expire] {
            let mut line = self.line(does, 1000);
            for from in (0..sessions).step_by(1000) {
                line.send((from..sessions.min(from + 1000)).collect());
            }
        }
        say(&format!(
            "{} loaded in {:.1} s",
            self.name,
            began.elapsed().as_secs_f64()
        ));
    }

    /// What the server says it is.
    pub fn version(&self) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("the socket");
        stream.write_all(b"INFO server\r\n").expect("to ask");
        let mut answer = vec![0; 4096];
        let n = stream.read(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
        let version = |field: &str| {
            let line = answer.lines().find(|line| line.starts_with(field));
            line.and_then(|line| line.split(':').nth(1))
                .map(str::to_owned)
        };
        let version = version("valkey_version").or_else(|| version("redis_version"));
        format!("{} {}", self.name, version.unwrap_or_default())
    }

    /// A connection that does one thing, so many at a time.
    pub fn line(&self, does: Does, pipelined: u64) -> RedisLine {
        let stream = UnixStream::connect(&self.socket).expect("the socket");
        RedisLine {
            stream,
            pid: i32::try_from(self.server.id()).expect("a process id"),
            does,
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

/// What a connection does for a session.
#[derive(Clone, Copy)]
pub enum Does {
    /// `ZADD`: one sorted set by time, swept by `ZRANGEBYSCORE`.
    Add,
    /// `SET … EX 300`: a key per session, whose expiry is told.
    Expire,
    /// `ZRANGEBYSCORE` that finds nobody overdue.
    Sweep,
}

/// A connection to Redis.
pub struct RedisLine {
    stream: UnixStream,
    pid: i32,
    does: Does,
    pipelined: u64,
    sessions: u64,
    out: Vec<u8>,
}

impl RedisLine {
    /// The same, for any of these sessions.
    pub fn among(self, sessions: u64) -> RedisLine {
        RedisLine { sessions, ..self }
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
            match self.does {
                Does::Add => command(&mut self.out, &["ZADD", "presence", &now, &id]),
                Does::Expire => command(&mut self.out, &["SET", &id, "1", "EX", "300"]),
                Does::Sweep => {
                    command(&mut self.out, &["ZRANGEBYSCORE", "presence", "0", "1000"]);
                }
            }
        }
        self.stream.write_all(&self.out).expect("to write to Redis");
        // Every answer here is one line.
        let mut answers = 0;
        let mut chunk = [0; 65536];
        while answers < sessions.len() {
            let n = self.stream.read(&mut chunk).expect("to read from Redis");
            assert!(n > 0, "Redis has closed the connection");
            assert!(
                !chunk[..n].contains(&b'-'),
                "{}",
                String::from_utf8_lossy(&chunk[..n])
            );
            answers += chunk[..n].iter().filter(|byte| **byte == b'\n').count();
        }
    }
}

fn command(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

impl Line for RedisLine {
    fn once(&mut self, random: &mut Random) -> u64 {
        let sessions = (0..self.pipelined)
            .map(|_| random.below(self.sessions))
            .collect();
        self.send(sessions);
        self.pipelined
    }

    fn pid(&self) -> i32 {
        self.pid
    }
}
