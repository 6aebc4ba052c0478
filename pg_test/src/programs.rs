//! The PostgreSQL programs that the tests run, and the directory they run in.
//!
//! PostgreSQL refuses to run as root, so servers started by root run as the user `postgres`. Programs and data are in a
//! directory which that user can reach, as the clone need not be.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

const SERVER_USER: &str = "postgres";

/// Stops the servers and removes the directory once its standard input closes, which happens however this process ends.
const CLEANUP: &str = r#"
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

/// The directory of everything that this test process creates.
pub(crate) fn base() -> &'static Path {
    static BASE: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (dir, _cleanup) = BASE.get_or_init(|| {
        // Short, as the path of a socket has at most 107 bytes.
        let dir = tempfile::Builder::new()
            .prefix("pgp.")
            .tempdir_in("/tmp")
            .expect("a temporary directory")
            .keep();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).expect("to open the directory");
        let cleanup = Command::new("sh")
            .args(["-c", CLEANUP])
            .arg(&dir)
            // In a process group of its own, so that it survives the terminal's Ctrl-C, which is when it is needed.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        (dir, cleanup)
    });
    dir
}

/// The programs of a PostgreSQL that has the extension: those that `make test` has prepared, or else a new copy.
pub(crate) fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        if let Some(dir) = std::env::var_os("PG_PRESENCE_BINDIR") {
            return dir.into();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/prefix");
        let copied = Command::new(script)
            .arg("debug")
            .arg(base().join("pg"))
            .stderr(Stdio::inherit())
            .output()
            .expect("bash");
        assert!(copied.status.success(), "the extension does not build");
        String::from_utf8(copied.stdout).expect("a path").trim_end().into()
    })
}

/// The user and group that servers run as, if not ours.
fn server_user() -> Option<(u32, u32)> {
    let id = |args: &[&str]| -> u32 {
        let output = Command::new("id").args(args).output().expect("id");
        let number = String::from_utf8(output.stdout).expect("a number");
        number
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("no user {SERVER_USER}, and PostgreSQL refuses to run as root"))
    };
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| (id(&["-u"]) == 0).then(|| (id(&["-u", SERVER_USER]), id(&["-g", SERVER_USER]))))
}

/// Returns a PostgreSQL program, to be run as the servers' user without our environment.
pub(crate) fn program(name: &str) -> Command {
    as_server_user(&programs().join(name))
}

/// Returns any program, likewise.
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

/// Runs a program and returns its output; panics with that if the program fails.
pub(crate) fn run(command: &mut Command) -> String {
    let done = command.output().expect("to run");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{command:?}: {}\n{stdout}{stderr}", done.status);
    stdout.into_owned()
}

/// Returns the major version of the servers.
pub fn server_major() -> u32 {
    static MAJOR: OnceLock<u32> = OnceLock::new();
    *MAJOR.get_or_init(|| {
        let version = run(program("postgres").arg("--version"));
        let number = version.trim_start_matches("postgres (PostgreSQL) ");
        let digits = number.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().unwrap_or_else(|_| panic!("a version: {version}"))
    })
}

/// The setting that has queries run in a parallel worker, by its name in this version.
pub fn force_parallel() -> &'static str {
    match server_major() {
        ..=15 => "force_parallel_mode = on",
        _ => "debug_parallel_query = on",
    }
}

/// Whether the server has a module that is not part of PostgreSQL's core.
pub fn has_module(name: &str) -> bool {
    let directory = run(program("pg_config").arg("--pkglibdir"));
    Path::new(directory.trim_end()).join(format!("{name}.so")).exists()
}

/// Returns where `pg_test/bin/setup tests` installs what is not in the system's directories.
pub fn tools() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    cache.join("pg_presence/tools")
}

/// Returns where a program of another package is: on the PATH, or where `pg_test/bin/setup tests` unpacks it.
pub fn installed(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), tools().join("bin")])
        .map(|dir| dir.join(name))
        .find(|program| program.exists())
        .unwrap_or_else(|| panic!("no {name}, which pg_test/bin/setup tests installs"))
}

/// Creates a directory in [`base`], owned by the servers' user.
pub(crate) fn new_directory(name: &str) -> PathBuf {
    let dir = base().join(name);
    std::fs::create_dir(&dir).expect("a new directory");
    if let Some((uid, gid)) = server_user() {
        chown(&dir, Some(uid), Some(gid)).expect("chown");
    }
    dir
}

/// An initialized data directory to copy, which takes a tenth of the time of initdb.
pub(crate) fn initialized_data() -> &'static Path {
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
