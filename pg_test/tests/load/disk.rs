//! A disk so small that it can be full: the feed lies on it.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::Command,
};

use pg_presence_test::{Database, soak};

/// Megabytes: for a minute's feed, and for an hour's.
const SIZES: (usize, usize) = (64, 1024);

/// A small file system, mounted as long as this lives. Mounting needs root, or sudo without a question.
pub struct Small {
    at: PathBuf,
}

impl Small {
    /// Puts the feed of a database on a new one.
    pub fn under(database: &Database) -> Small {
        let at = database.cluster.socket_directory().join("small");
        fs::create_dir(&at).expect("a directory");
        let owner = fs::metadata(database.cluster.data()).expect("the data directory");
        let (uid, gid) = {
            use std::os::unix::fs::MetadataExt;
            (owner.uid(), owner.gid())
        };
        let size = if soak() { SIZES.1 } else { SIZES.0 };
        let options = format!("size={size}m,uid={uid},gid={gid},mode=777");
        privileged(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(&at),
        );
        let small = Small { at };
        let space = small.at.join("space");
        fs::create_dir(&space).expect("a directory");
        std::os::unix::fs::chown(&space, Some(uid), Some(gid)).expect("chown");
        database.run(&format!(
            "CREATE TABLESPACE small LOCATION '{}'",
            space.display()
        ));
        database.run("ALTER TABLE presence.presence_changes SET TABLESPACE small");
        // Whose pages are used again needs no room, and would not miss it.
        database.run("ALTER TABLE presence.presence_changes SET (autovacuum_enabled = off)");
        small
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut filler = File::create(self.at.join("filler")).expect("a file");
        let block = [1; 1 << 12];
        while filler.write_all(&block).is_ok() {}
    }

    pub fn free(&self) {
        fs::remove_file(self.at.join("filler")).expect("the file");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        privileged(Command::new("umount").arg("-l").arg(&self.at));
    }
}

/// Runs a command as root.
fn privileged(command: &mut Command) {
    let arguments = command.get_args().map(|argument| argument.to_owned());
    let is_root = Command::new("id").arg("-u").output().expect("id").stdout == b"0\n";
    let done = if is_root {
        command.status()
    } else {
        Command::new("sudo")
            .arg("-n")
            .arg(command.get_program())
            .args(arguments)
            .status()
    };
    assert!(
        done.is_ok_and(|status| status.success()),
        "{command:?} needs root, or sudo without a question"
    );
}
