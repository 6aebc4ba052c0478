//! The PostgreSQL programs the tests run, and the directory they run in.
//!
//! PostgreSQL refuses to run as root, so root's servers belong to the user
//! `postgres`; programs and data live in a directory that user can reach, which
//! the clone need not be.

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

const SERVER_USER: &str = "postgres";

/// Stops the servers and removes the directory once its standard input closes,
/// which happens however this process ends.
const GUARD: &str = r#"
    cat >/dev/null
    inside() {
        for cwd in /proc/[0-9]*/cwd; do
            case $(readlink "$cwd") in "$0"/*) pid=${cwd%/cwd}; echo "${pid#/proc/}" ;; esac
        done
    }
    for data in "$0"/*/data; do
        read -r pid <"$data/postmaster.pid" && [ "$(readlink "/proc/$pid/cwd")" = "$data" ] && kill -QUIT "$pid"
    done
    for _ in 1 2 3 4 5 6 7 8 9 10; do [ -n "$(inside)" ] || break; sleep 0.5; done
    left=$(inside)
    [ -z "$left" ] || kill -KILL $left
    rm -rf "$0"
"#;

/// The directory of everything this test process makes.
pub(crate) fn base() -> &'static Path {
    static BASE: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (dir, _guard) = BASE.get_or_init(|| {
        // Short, because the path of a socket has at most 107 bytes.
        let dir = tempfile::Builder::new()
            .prefix("pgp.")
            .tempdir_in("/tmp")
            .expect("a temporary directory")
            .keep();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755))
            .expect("to open the directory");
        let guard = Command::new("sh")
            .args(["-c", GUARD])
            .arg(&dir)
            // Not stopped by the terminal's Ctrl-C, which is when it is needed.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        (dir, guard)
    });
    dir
}

/// The programs of a PostgreSQL that has the extension: those `make test` has
/// prepared, else made now.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        if let Some(dir) = std::env::var_os("PG_PRESENCE_BINDIR") {
            return dir.into();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/prefix");
        let made = Command::new(script)
            .arg("debug")
            .arg(base().join("pg"))
            .stderr(Stdio::inherit())
            .output()
            .expect("bash");
        assert!(made.status.success(), "the extension does not build");
        String::from_utf8(made.stdout)
            .expect("a path")
            .trim_end()
            .into()
    })
}

/// Whom the servers run as, where that is not us.
fn server_user() -> Option<(u32, u32)> {
    let id = |args: &[&str]| -> u32 {
        let said = Command::new("id").args(args).output().expect("id");
        let number = String::from_utf8(said.stdout).expect("a number");
        number.trim().parse().unwrap_or_else(|_| {
            panic!("no user {SERVER_USER}, and PostgreSQL refuses to run as root")
        })
    };
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| {
        (id(&["-u"]) == 0).then(|| (id(&["-u", SERVER_USER]), id(&["-g", SERVER_USER])))
    })
}

/// A PostgreSQL program, to be run as the servers' user with nothing of our environment.
pub(crate) fn program(name: &str) -> Command {
    as_server_user(&programs().join(name))
}

/// Any program, likewise.
pub(crate) fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .current_dir(base())
        .process_group(0);
    if let Ok(path) = std::env::var("PATH") {
        command.env("PATH", path);
    }
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// Runs a program to its end; panics with what it said when it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let done = command.output().expect("to run");
    let (said, complained) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(
        done.status.success(),
        "{command:?}: {}\n{said}{complained}",
        done.status
    );
    said.into_owned()
}

/// A new directory in [`base`], the servers' user's own.
pub(crate) fn new_directory(name: &str) -> PathBuf {
    let dir = base().join(name);
    std::fs::create_dir(&dir).expect("a new directory");
    if let Some((uid, gid)) = server_user() {
        chown(&dir, Some(uid), Some(gid)).expect("chown");
    }
    dir
}

/// An initialised data directory to copy: that takes a tenth of what initdb takes.
pub(crate) fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let data = new_directory("template").join("data");
        run(program("initdb")
            .args([
                "--no-sync",
                "--no-locale",
                "--encoding=UTF8",
                "--auth=trust",
                "--username=postgres",
                "--pgdata",
            ])
            .arg(&data));
        data
    })
}

/// Sends a signal, by the name that `kill` knows, to a process of a server.
pub fn signal(name: &str, pid: i32) {
    // The shell has a kill of its own; the program is not on every machine.
    run(Command::new("sh").args(["-c", &format!("kill -s {name} {pid}")]));
}

/// The same, unless the process has gone meanwhile.
pub fn signal_if_there(name: &str, pid: i32) {
    let kill = format!("kill -s {name} {pid} 2>/dev/null");
    let _ = Command::new("sh").args(["-c", &kill]).status();
}

/// The living children of a process.
pub fn children_of(pid: i32) -> Vec<i32> {
    let mut list = String::new();
    std::fs::File::open(format!("/proc/{pid}/task/{pid}/children"))
        .and_then(|mut file| file.read_to_string(&mut list))
        .map(|_| {
            list.split_whitespace()
                .filter_map(|child| child.parse().ok())
                .collect()
        })
        .unwrap_or_default()
}
