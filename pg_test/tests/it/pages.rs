//! The roster's memory lies in large pages wherever Linux can make them.

use std::fs::read_to_string;
use std::ptr::null_mut;

use pg_presence_test::{Cluster, Install};

use crate::crash::kill_a_backend;

/// The size of a large page.
const LARGE: usize = 2 << 20;

/// Bytes that the server's processes share, and how many of them are in large pages.
fn shared_memory(cluster: &Cluster) -> (usize, usize) {
    let maps = read_to_string(format!("/proc/{}/smaps", cluster.pid())).expect("its memory");
    let (mut size, mut large, mut is_shared) = (0, 0, false);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let bytes = || second.parse::<usize>().expect("kB") * 1024;
        match first {
            "Size:" if is_shared => size += bytes(),
            "ShmemPmdMapped:" if is_shared => large += bytes(),
            // Reserved ones, which PostgreSQL takes by itself if somebody has set them aside.
            "KernelPageSize:" if is_shared && bytes() >= LARGE => large = size,
            name if name.ends_with(':') => {}
            _ => {
                is_shared = second == "rw-s"
                    && (line.contains("/dev/zero") || line.contains("/anon_hugepage"))
            }
        }
    }
    (size, large)
}

/// Whether this system gathers shared memory into a large page when asked.
fn system_can() -> bool {
    use libc::{
        MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE,
    };
    const MADV_COLLAPSE: libc::c_int = 25;
    let map = |at: *mut libc::c_void, length, access, kind| {
        // SAFETY: anew, or over memory that was mapped here just before.
        let at = unsafe { libc::mmap(at, length, access, kind | MAP_ANONYMOUS, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        at
    };
    let room = map(null_mut(), 2 * LARGE, PROT_NONE, MAP_PRIVATE);
    let at = room.map_addr(|address| address.next_multiple_of(LARGE));
    let page = map(at, LARGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED);
    // SAFETY: writes to what was mapped above, and unmaps all of it at the end.
    unsafe {
        page.cast::<u8>().write_volatile(1);
        let can = libc::madvise(page, LARGE, MADV_COLLAPSE) == 0;
        libc::munmap(room, 2 * LARGE);
        can
    }
}

#[test]
fn the_roster_lies_in_large_pages_where_the_system_can_make_them_also_after_a_crash() {
    let cluster = Cluster::own(&[]);
    let database = cluster.database_with(Install::Presence);
    let sql = "SELECT allocated_size FROM pg_shmem_allocations WHERE name = 'pg_presence'";
    let room: i64 = cluster
        .connect("postgres")
        .query_one(sql, &[])
        .unwrap()
        .get(0);
    // The room is for one large page more than there is, as the first has to begin right.
    let roster = usize::try_from(room).expect("a size") / LARGE * LARGE - LARGE;
    let expected = if system_can() { roster } else { 0 };
    assert!(roster >= 10 * LARGE, "{roster}");
    let (size, large) = shared_memory(&cluster);
    assert!(large >= expected, "{large} of {size}");

    kill_a_backend(&database);
    let (size_after, large_after) = shared_memory(&cluster);
    assert_eq!(large_after, large);
    assert_eq!(size_after, size, "nothing of the old memory is left");
}

#[test]
fn the_roster_lies_in_small_pages_if_large_ones_are_off() {
    let cluster = Cluster::own(&[("huge_pages", "off")]);
    let (size, large) = shared_memory(&cluster);
    assert!(size > 10 * LARGE, "{size}");
    assert_eq!(large, 0);
}
