//! A machine that exists on paper: a directory with programs that stand in for the system's, which record how they are called.
//! What set-up promises of a user's machine is which commands it issues there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

pub const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Programs of the real machine, which only compute or work on files.
const REAL: &[&str] = &[
    "awk", "bash", "cat", "chmod", "cmp", "cp", "cut", "dirname", "env", "find", "flock", "grep", "head", "install",
    "ln", "make", "mkdir", "mktemp", "rm", "sed", "sh", "sleep", "sort", "tail", "tee", "touch", "tr", "uname",
];

/// Programs that need only be there.
const PRESENT: &[&str] = &["cc", "clang", "patchelf", "pkg-config"];

/// Records a call, and tells it on standard error, too, where set-up tells what it is about to do.
const RECORD: &str = r#"
    printf '%s\n' "${0##*/} $*" >>"$MACHINE/calls"
    printf '(%s)\n' "${0##*/} $*" >&2
"#;

/// What packages there are: `$MACHINE/packages` has a line for each installed one, with its version; `$MACHINE/owners` a file
/// and the package that it is of.
const DPKG_QUERY: &str = r#"
    for last; do :; done
    found=1
    case $1 in
        -W) while read -r name version; do
                [[ $name == $last ]] || continue
                found=0
                case $3 in *Status*) echo "installed $name" ;; *) echo "$version" ;; esac
            done <"$MACHINE/packages" ;;
        -S) while read -r file package; do
                [ "$file" = "$last" ] || continue
                found=0
                echo "$package: $file"
            done <"$MACHINE/owners" ;;
        -L) while read -r file package; do
                [ "$package" = "$last" ] || continue
                found=0
                echo "$file"
            done <"$MACHINE/owners" ;;
    esac
    exit $found
"#;

/// Simulates what `$MACHINE/simulate` prints, and "installs" the headers of a server.
const APT_GET: &str = r#"
    case " $* " in
        *" --print-uris "*) echo "'http://localhost/postgresql-15.deb' postgresql-15_15.20_all.deb 1"; exit ;;
        *" -s "*) [ ! -x "$MACHINE/simulate" ] || exec "$MACHINE/simulate" "$@"; exit 0 ;;
        *" install "*)
            for package; do
                major=${package#postgresql-server-dev-}
                [ "$major" = "$package" ] || "$MACHINE/headers" "${major%%=*}"
            done ;;
    esac
"#;

/// Unpacks a server, whatever the package.
const DPKG: &str = r#"
    [ "$1" = -x ] || exit 0
    "$MACHINE/server" "$3/usr" 15 15.20
    mkdir -p "$3/usr/include/postgresql/15/server" "$3/usr/lib/arch"
    touch "$3/usr/include/postgresql/15/server/postgres.h" "$3/usr/lib/arch/libc.so.6"
"#;

/// server USR MAJOR VERSION: a server below that directory.
const SERVER: &str = r#"
    bin=$1/lib/postgresql/$2/bin
    mkdir -p "$bin" "$1/lib/postgresql/$2/lib" "$1/share/postgresql/$2/extension"
    for program in postgres initdb psql; do
        printf '#!/bin/sh\nsleep 60\n' >"$bin/$program"
    done
    cat >"$bin/pg_config" <<END
#!/bin/sh
case \$1 in
    --version) echo "PostgreSQL $3" ;;
    --bindir) echo "$bin" ;;
    --includedir-server) echo "$1/include/postgresql/$2/server" ;;
    --pkglibdir) echo "$1/lib/postgresql/$2/lib" ;;
    --sharedir) echo "$1/share/postgresql/$2" ;;
esac
END
    chmod +x "$bin"/*
"#;

/// Builds nothing, but leaves files where cargo-pgrx does.
const CARGO: &str = r#"
    case "$*" in
        "pgrx --version") echo "cargo-pgrx 0.18.1" ;;
        *--out-dir*)
            echo "cargo $*" >>"$MACHINE/calls"
            for out; do :; done
            mkdir -p "$out/lib" "$out/share"
            touch "$out/lib/pg_presence.so" "$out/share/pg_presence.control" "$out/share/pg_presence--0.1.0.sql" ;;
    esac
"#;

/// What a script did.
pub struct Done {
    pub succeeded: bool,
    /// Both of its outputs.
    pub output: String,
    /// The calls of apt-get and sudo, and of cargo where it builds.
    pub calls: Vec<String>,
}

impl Done {
    /// The packages, with their versions, that apt-get was told to install.
    pub fn installed(&self) -> Vec<&str> {
        let installs = self
            .calls
            .iter()
            .filter(|call| call.starts_with("apt-get ") && call.contains(" install "));
        installs
            .flat_map(|call| call.split(' ').skip_while(|word| *word != "install").skip(1))
            .filter(|word| !word.starts_with('-'))
            .collect()
    }

    /// Asserts that it ended with one sentence that contains these words, before it had issued anything.
    #[track_caller]
    pub fn assert_refused_at_once(&self, words: &[&str]) {
        assert!(!self.succeeded, "{}", self.output);
        assert!(self.calls.is_empty(), "{:?}", self.calls);
        let lines: Vec<_> = self.output.lines().collect();
        let [line] = lines[..] else {
            panic!("one line: {}", self.output)
        };
        assert!(line.starts_with("error: "), "{line}");
        for word in words {
            assert!(line.contains(word), "{word} in: {line}");
        }
    }
}

pub struct Machine {
    dir: TempDir,
}

impl Machine {
    /// Returns the machine of a user with sudo who has everything but PostgreSQL.
    pub fn new() -> Self {
        let machine = Self {
            dir: TempDir::new().expect("a directory"),
        };
        for directory in ["bin", "real", "home", "cache"] {
            fs::create_dir(machine.path(directory)).unwrap();
        }
        let path = std::env::var_os("PATH").expect("a path");
        for name in REAL {
            let program = std::env::split_paths(&path)
                .map(|dir| dir.join(name))
                .find(|program| program.is_file());
            let program = program.unwrap_or_else(|| panic!("no {name}"));
            symlink(program, machine.path("real").join(name)).unwrap();
        }
        for name in PRESENT {
            machine.program(name, "");
        }
        machine.write("packages", "");
        machine.write("owners", "");
        machine.script("server", SERVER);
        machine.script(
            "headers",
            r#"mkdir -p "$MACHINE/usr/include/postgresql/$1/server"; touch "$MACHINE/usr/include/postgresql/$1/server/postgres.h""#,
        );
        machine.program("id", "[ \"$1\" = -u ] && echo 1000");
        machine.program("dpkg-query", DPKG_QUERY);
        machine.program("dpkg", DPKG);
        machine.program("apt-get", &format!("{APT_GET}{RECORD}"));
        machine.program(
            "apt-cache",
            "[ \"$*\" != \"show --no-all-versions postgresql\" ] || echo 'Depends: postgresql-15'",
        );
        machine.program("cargo", CARGO);
        machine.rust("1.95.0");
        // What it runs is recorded by itself; of the rest, nothing is meant for this machine.
        machine.program(
            "sudo",
            &format!("if [ \"$1\" = env ]; then exec \"$@\"; fi\n{RECORD}\n[ -t 0 ] || cat >/dev/null"),
        );
        machine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Creates an executable script.
    pub fn script(&self, name: &str, text: &str) {
        self.write(name, &format!("#!/usr/bin/env bash\n{text}\n"));
        fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Puts a program on the PATH.
    pub fn program(&self, name: &str, text: &str) {
        self.script(&format!("bin/{name}"), text);
    }

    pub fn without(self, name: &str) -> Self {
        fs::remove_file(self.path("bin").join(name)).unwrap();
        self
    }

    pub fn rust(&self, version: &str) {
        self.program("rustc", &format!("echo 'rustc {version} (59807616e 2026-04-14)'"));
    }

    fn append(&self, name: &str, line: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        self.write(name, &format!("{text}{line}\n"));
    }

    pub fn package(&self, name: &str, version: &str) {
        self.append("packages", &format!("{name} {version}"));
    }

    pub fn owner(&self, file: &Path, package: &str) {
        self.append("owners", &format!("{} {package}", file.display()));
    }

    /// Installs a server, as from no package; returns its pg_config.
    pub fn server(&self, major: u32, version: &str) -> PathBuf {
        self.call(
            "server",
            &[self.path("usr").to_str().unwrap(), &major.to_string(), version],
        );
        self.path(&format!("usr/lib/postgresql/{major}/bin/pg_config"))
    }

    /// Installs the package of a server and its client, without headers; returns its pg_config.
    pub fn packaged_server(&self, major: u32, version: &str) -> PathBuf {
        let config = self.server(major, version);
        let package = format!("postgresql-{major}");
        self.package(&package, &format!("{version}-0+deb12u1"));
        self.package(&format!("postgresql-client-{major}"), &format!("{version}-0+deb12u1"));
        self.owner(&config.with_file_name("postgres"), &package);
        config
    }

    pub fn headers(&self, major: u32) {
        self.call("headers", &[&major.to_string()]);
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = std::env::join_paths([self.path("bin"), self.path("real")]).unwrap();
        command
            .env_clear()
            .env("PATH", path)
            .env("MACHINE", self.dir.path())
            .env("HOME", self.path("home"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("LIBCLANG_PATH", "/nowhere")
            .env("LC_ALL", "C.UTF-8")
            .current_dir(REPOSITORY)
            .stdin(Stdio::null());
        command
    }

    fn call(&self, script: &str, args: &[&str]) {
        assert!(self.command(&self.path(script)).args(args).status().unwrap().success());
    }

    /// Runs a command line of the repository's, with more variables.
    pub fn run(&self, line: &str, environment: &[(&str, &str)]) -> Done {
        let calls = self.path("calls");
        let _ = fs::remove_file(&calls);
        let done = self
            .command(&self.path("real/bash"))
            .args(["-c", &format!("exec 2>&1; {line}")])
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        Done {
            succeeded: done.status.success(),
            output: String::from_utf8(done.stdout).unwrap(),
            calls: fs::read_to_string(&calls)
                .unwrap_or_default()
                .lines()
                .map(String::from)
                .collect(),
        }
    }
}
