//! A throw-away server: a database cluster, in PostgreSQL's words.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use postgres::{Client, Config, NoTls};

use crate::process::{signal, try_signal};
use crate::programs::{as_server_user, initialized_data, new_directory, program, programs, run};
use crate::wait::wait_until;

/// The settings of every server, unless a test overrides them. The odd time zone reveals times written in local time by
/// mistake. fsync is off because no test crashes the operating system.
const SETTINGS: &[(&str, &str)] = &[
    ("shared_preload_libraries", "pg_presence"),
    ("listen_addresses", ""),
    ("max_connections", "200"),
    ("max_worker_processes", "100"),
    ("max_prepared_transactions", "10"),
    ("wal_level", "logical"),
    ("shared_buffers", "32MB"),
    ("fsync", "off"),
    ("timezone", "Asia/Kathmandu"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %b %d "),
];

/// How to stop a server.
#[derive(Clone, Copy, Debug)]
pub enum Shutdown {
    Smart,
    Fast,
    Immediate,
    /// `kill -9` of the postmaster.
    Kill,
}

/// One server, stopped and its files removed when dropped.
pub struct Cluster {
    dir: PathBuf,
    /// The server's program.
    postgres: PathBuf,
    postmaster: Mutex<Option<Child>>,
    /// Whether it outlives the test, so that databases have to be dropped.
    pub(crate) is_shared: bool,
}

impl Cluster {
    /// Returns the server that most tests share, with every setting of the extension at its default.
    pub fn shared() -> &'static Cluster {
        static SHARED: LazyLock<Cluster> = LazyLock::new(|| {
            let mut cluster = Cluster::private(&[]);
            cluster.is_shared = true;
            cluster
        });
        &SHARED
    }

    /// Returns the server that tests of timeouts share: a session times out after five seconds.
    pub fn shared_short_timeout() -> &'static Cluster {
        static SHARED: LazyLock<Cluster> = LazyLock::new(|| {
            let mut cluster = Cluster::private(&[
                ("presence.active_timeout", "5s"),
                ("presence.heartbeat_interval", "1s"),
                ("presence.flush_interval", "1s"),
            ]);
            cluster.is_shared = true;
            cluster
        });
        &SHARED
    }

    /// Starts a server for this test alone, with these settings.
    pub fn private(settings: &[(&str, &str)]) -> Cluster {
        Cluster::private_of(programs(), settings)
    }

    /// As [`private`](Self::private), of another build of the extension: of the programs in this directory, which are of the
    /// same major version.
    pub fn private_of(programs: &Path, settings: &[(&str, &str)]) -> Cluster {
        let cluster = Cluster::create(programs);
        run(as_server_user(Path::new("cp"))
            .arg("-R")
            .arg(initialized_data())
            .arg(cluster.data()));
        cluster.configure(SETTINGS);
        cluster.configure(settings);
        cluster.start();
        cluster
    }

    /// Starts a streaming standby of this server.
    pub fn standby(&self) -> Cluster {
        let standby = Cluster::create(programs());
        run(program("pg_basebackup")
            .args([
                "--checkpoint=fast",
                "--write-recovery-conf",
                "--no-sync",
                "--username=postgres",
                "--host",
            ])
            .arg(&self.dir)
            .arg("--pgdata")
            .arg(standby.data()));
        standby.configure(&[("unix_socket_directories", standby.dir.to_str().expect("UTF-8"))]);
        standby.start();
        standby
    }

    /// A server whose directory is still empty.
    fn create(programs: &Path) -> Cluster {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let dir = new_directory(&NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
        Cluster {
            dir,
            postgres: programs.join("postgres"),
            postmaster: Mutex::new(None),
            is_shared: false,
        }
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Sets one of the debug build's clocks, the file `presence_test.<name>` in the data directory, in microseconds.
    pub fn set_clock(&self, name: &str, micros: i64) {
        let file = self.data().join(format!("presence_test.{name}"));
        // Renamed, so that nobody reads half of it.
        let new = file.with_extension("new");
        fs::write(&new, micros.to_string()).expect("a file for the clock");
        fs::rename(new, file).expect("a file for the clock");
    }

    /// The directory of the server's socket, for `host` in a connection string.
    pub fn socket_directory(&self) -> &Path {
        &self.dir
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Returns the server's log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Returns the server's log line by line, as it may not fit into memory.
    pub fn log_lines(&self) -> impl Iterator<Item = String> + use<> {
        let log = BufReader::new(File::open(self.log_file()).expect("the log"));
        log.split(b'\n')
            .map(|line| String::from_utf8_lossy(&line.expect("a line")).into_owned())
    }

    /// Adds settings to postgresql.conf; they take effect with the next start or [`reload`](Self::reload).
    pub fn configure(&self, settings: &[(&str, &str)]) {
        let path = self.data().join("postgresql.conf");
        let mut text = fs::read_to_string(&path).expect("postgresql.conf");
        for (name, value) in settings {
            writeln!(text, "{name} = '{}'", value.replace('\'', "''")).expect("to write to memory");
        }
        fs::write(path, text).expect("to write postgresql.conf");
    }

    /// Changes one setting of the running server; sessions use it from their next statement on.
    pub fn set(&self, name: &str, value: &str) {
        self.configure(&[(name, value)]);
        self.reload();
        let sql = "SELECT coalesce(error, 'needs a restart') FROM pg_file_settings WHERE NOT applied AND name = $1
                   AND seqno = (SELECT max(seqno) FROM pg_file_settings WHERE name = $1)";
        let failure = self
            .connect("postgres")
            .query_opt(sql, &[&name])
            .expect("the file's settings");
        if let Some(row) = failure {
            panic!("{name} = {value}: {}", row.get::<_, String>(0));
        }
    }

    /// Makes the server reload its settings, and waits until it has.
    pub fn reload(&self) {
        // A new session reports the postmaster's load time.
        let loaded = || -> String {
            self.connect("postgres")
                .query_one("SELECT pg_conf_load_time()::text", &[])
                .expect("the time")
                .get(0)
        };
        let before = loaded();
        signal("HUP", self.pid());
        wait_until("a reload", || loaded() != before);
    }

    /// Starts the server and waits until it accepts connections.
    pub fn start(&self) {
        let mut postmaster = self.postmaster.lock().expect("no panic while starting");
        assert!(postmaster.is_none(), "already started");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("a log file");
        // After kill -9 the last children keep the old shared memory block in use for a moment.
        wait_until("the server starts", || {
            let logged = self.log().len();
            let mut child = as_server_user(&self.postgres)
                // Clients are not to notice it.
                .env("RUST_BACKTRACE", "1")
                .arg("-D")
                .arg(self.data())
                .arg("-k")
                .arg(&self.dir)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a file handle"))
                .stderr(log.try_clone().expect("a file handle"))
                .spawn()
                .expect("postgres");
            let mut exited = false;
            wait_until("the server accepts connections", || {
                exited = child.try_wait().expect("the child's status").is_some();
                exited || self.config("postgres", "postgres").connect(NoTls).is_ok()
            });
            if exited {
                let logged = self.log().split_off(logged);
                assert!(
                    logged.contains("is still in use"),
                    "the server does not start:\n{logged}"
                );
                return false;
            }
            *postmaster = Some(child);
            true
        });
    }

    /// Stops the server and waits until it has exited.
    pub fn stop(&self, how: Shutdown) {
        let mut postmaster = self.postmaster.lock().expect("no panic while stopping");
        let mut child = postmaster.take().expect("a running server");
        let pid = i32::try_from(child.id()).expect("a process id");
        let name = match how {
            Shutdown::Smart => "TERM",
            Shutdown::Fast => "INT",
            Shutdown::Immediate => "QUIT",
            Shutdown::Kill => "KILL",
        };
        signal(name, pid);
        wait_until("the server exits", || {
            child.try_wait().expect("the child's status").is_some()
        });
    }

    /// Has the server exit at once, without waiting for it: what ends clients that wait for it in vain.
    pub fn abandon(&self) {
        let Ok(postmaster) = self.postmaster.lock() else { return };
        if let Some(pid) = postmaster.as_ref().and_then(|child| i32::try_from(child.id()).ok()) {
            try_signal("QUIT", &[pid]);
        }
    }

    /// Stops and starts the server.
    pub fn restart(&self, how: Shutdown) {
        self.stop(how);
        self.start();
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> i32 {
        let postmaster = self.postmaster.lock().expect("no panic");
        i32::try_from(postmaster.as_ref().expect("a running server").id()).expect("a process id")
    }

    /// Returns how to connect to a database as a role.
    pub fn config(&self, database: &str, role: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.dir).user(role).dbname(database);
        config
    }

    /// Connects as superuser.
    pub fn connect(&self, database: &str) -> Client {
        self.config(database, "postgres").connect(NoTls).expect("to connect")
    }

    /// Returns a client program (psql, pg_dump, pgbench…) that connects to a database as superuser.
    pub fn program(&self, name: &str, database: &str) -> Command {
        let mut command = program(name);
        command
            .env("PGHOST", &self.dir)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database);
        command
    }

    /// Returns the server's files (data, WAL, log) that contain this text.
    pub fn files_with(&self, text: &str) -> String {
        let found = Command::new("grep").args(["-rlaF", "-e", text]).arg(&self.dir).output();
        String::from_utf8(found.expect("grep").stdout).expect("UTF-8")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
        self.abandon();
        if let Ok(Some(child)) = self.postmaster.get_mut() {
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
