//! The lineage of the server: a random number that changes whenever durable state may have been lost.
//!
//! It is kept in a file of the data directory. A start that no clean shutdown came before (after a crash, or from a disk
//! snapshot or a backup) draws a new one, so that each database, whenever it is next served, finds that its epoch belongs
//! to another lineage. A copy of a data directory that was shut down cleanly cannot be told from the original.

use std::{fs, io::Write, path::Path};

use super::{compat, random};

/// In the data directory, which is the working directory of every process of the server.
const FILE: &str = "pg_presence.lineage";
/// PostgreSQL's own file, written at each checkpoint and shutdown.
const CONTROL_FILE: &str = "global/pg_control";
/// Where `ControlFileData` has its `state`, behind the system identifier and two version numbers.
const STATE_OFFSET: usize = 16;
/// DB_SHUTDOWNED and DB_SHUTDOWNED_IN_RECOVERY.
const SHUT_DOWN: [i32; 2] = [1, 2];

/// Returns the lineage of this start. To be called once for each start, before the server changes its control file: while
/// shared memory is laid out. A lineage that cannot be written to its file lasts until the server stops.
pub fn at_start() -> u64 {
    let known = read(Path::new(FILE)).filter(|_| was_shut_down(Path::new(CONTROL_FILE)));
    known.unwrap_or_else(|| {
        // A server without a random source cannot make tokens either; it starts all the same.
        let lineage = random::try_bytes().map_or_else(|| compat::now() as u64, u64::from_ne_bytes);
        if let Err(error) = write(Path::new(FILE), lineage) {
            pgrx::warning!("could not write file \"{FILE}\": {error}");
        }
        lineage
    })
}

fn read(file: &Path) -> Option<u64> {
    u64::from_str_radix(fs::read_to_string(file).ok()?.trim(), 16).ok()
}

fn write(file: &Path, lineage: u64) -> std::io::Result<()> {
    let new = file.with_extension("lineage.new");
    let mut opened = fs::File::create(&new)?;
    writeln!(opened, "{lineage:016x}")?;
    opened.sync_all()?;
    fs::rename(&new, file)?;
    fs::File::open(
        file.parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new(".")),
    )?
    .sync_all()
}

/// Whether the server was shut down cleanly, by its control file. A file that cannot be read says no.
fn was_shut_down(control_file: &Path) -> bool {
    let state = fs::read(control_file)
        .ok()
        .and_then(|content| content.get(STATE_OFFSET..STATE_OFFSET + 4)?.try_into().ok());
    state.is_some_and(|state| SHUT_DOWN.contains(&i32::from_ne_bytes(state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clean_shutdown_keeps_the_lineage() {
        let dir = std::env::temp_dir().join(format!("pg_presence_lineage_{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let control = dir.join("pg_control");
        for (state, clean) in [
            (0, false),
            (1, true),
            (2, true),
            (3, false),
            (4, false),
            (5, false),
            (6, false),
        ] {
            let mut content = vec![0xff; 64];
            content[STATE_OFFSET..STATE_OFFSET + 4].copy_from_slice(&i32::to_ne_bytes(state));
            fs::write(&control, content).unwrap();
            assert_eq!(was_shut_down(&control), clean, "{state}");
        }
        fs::write(&control, [1; 10]).unwrap();
        assert!(!was_shut_down(&control));
        assert!(!was_shut_down(&dir.join("missing")));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_lineage_reads_back() {
        let file = std::env::temp_dir().join(format!("pg_presence_{}.lineage", std::process::id()));
        for lineage in [0, 1, u64::MAX] {
            write(&file, lineage).unwrap();
            assert_eq!(read(&file), Some(lineage));
        }
        fs::write(&file, "no number").unwrap();
        assert_eq!(read(&file), None);
        fs::remove_file(file).unwrap();
    }
}
