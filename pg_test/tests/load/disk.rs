//! A disk small enough to be filled, with the feed on it.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::Command,
};

use pg_presence_test::{Database, soak};

/// Its sizes in megabytes: for a run of a minute, and of an hour.
const SIZES: (usize, usize) = (64, 1024);

/// A small file system, unmounted when dropped. Mounting requires root, or sudo without a password.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Creates one and moves the feed of a database to it.
    pub fn for_feed_of(database: &Database) -> SmallDisk {
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
        let small = SmallDisk { at };
        let space = small.at.join("space");
        fs::create_dir(&space).expect("a directory");
        std::os::unix::fs::chown(&space, Some(uid), Some(gid)).expect("chown");
        database.run(&format!("CREATE TABLESPACE small LOCATION '{}'", space.display()));
        database.run("ALTER TABLE presence.presence_changes SET TABLESPACE small");
        // Without vacuum no page is reused, so that the feed needs space to grow.
        database.run("ALTER TABLE presence.presence_changes SET (autovacuum_enabled = off)");
        small
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut filler = File::create(self.at.join("filler")).expect("a file");
        let block = [1; 1 << 12];
        while filler.write_all(&block).is_ok() {}
    }

    /// Frees what [`fill`](Self::fill) took.
    pub fn free(&self) {
        fs::remove_file(self.at.join("filler")).expect("the file");
    }
}

impl Drop for SmallDisk {
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
        "{command:?} requires root, or sudo without a password"
    );
}
