//! The roster's memory uses huge pages wherever Linux can make them.

use std::fs::read_to_string;
use std::ptr::null_mut;

use pg_presence_test::{Cluster, Install, Shutdown, wait_until};

use crate::recovery::kill_a_backend;

/// The size of a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// Returns the bytes that the server's processes share, and how many of them are in huge pages.
fn shared_memory(cluster: &Cluster) -> (usize, usize) {
    let maps = read_to_string(format!("/proc/{}/smaps", cluster.pid())).expect("its memory");
    let (mut size, mut huge, mut is_shared) = (0, 0, false);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let bytes = || second.parse::<usize>().expect("kB") * 1024;
        match first {
            "Size:" if is_shared => size += bytes(),
            "ShmemPmdMapped:" if is_shared => huge += bytes(),
            // Reserved huge pages, which PostgreSQL uses by itself if there are any.
            "KernelPageSize:" if is_shared && bytes() >= HUGE_PAGE => huge = size,
            name if name.ends_with(':') => {}
            _ => is_shared = second == "rw-s" && (line.contains("/dev/zero") || line.contains("/anon_hugepage")),
        }
    }
    (size, huge)
}

/// Whether this system collapses shared memory into a huge page on request.
fn system_can() -> bool {
    use libc::{MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE};
    const MADV_COLLAPSE: libc::c_int = 25;
    let map = |at: *mut libc::c_void, length, access, kind| {
        // SAFETY: maps new memory, or replaces memory that was mapped here just before.
        let at = unsafe { libc::mmap(at, length, access, kind | MAP_ANONYMOUS, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        at
    };
    let room = map(null_mut(), 2 * HUGE_PAGE, PROT_NONE, MAP_PRIVATE);
    let at = room.map_addr(|address| address.next_multiple_of(HUGE_PAGE));
    let page = map(at, HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED);
    // SAFETY: writes to what was mapped above, and unmaps all of it at the end.
    unsafe {
        page.cast::<u8>().write_volatile(1);
        let can = libc::madvise(page, HUGE_PAGE, MADV_COLLAPSE) == 0;
        libc::munmap(room, 2 * HUGE_PAGE);
        can
    }
}

#[test]
fn the_roster_uses_huge_pages_where_the_system_can_make_them_also_after_a_crash() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database_with(Install::Presence);
    let sql = "SELECT allocated_size FROM pg_shmem_allocations WHERE name = 'pg_presence'";
    let room: i64 = cluster.connect("postgres").query_one(sql, &[]).unwrap().get(0);
    // One huge page more than the roster needs is allocated, as the first one has to be aligned.
    let roster = usize::try_from(room).expect("a size") / HUGE_PAGE * HUGE_PAGE - HUGE_PAGE;
    let expected = if system_can() { roster } else { 0 };
    assert!(roster >= 10 * HUGE_PAGE, "{roster}");
    let (size, _) = shared_memory(&cluster);
    // The system may be short of memory that it can make a huge page of, for a moment.
    wait_until("huge pages after a start", || {
        let is_huge = shared_memory(&cluster).1 >= expected;
        if !is_huge {
            cluster.restart(Shutdown::Fast);
        }
        is_huge
    });
    wait_until("huge pages after a crash", || {
        kill_a_backend(&database);
        let (size_after, huge_after) = shared_memory(&cluster);
        assert_eq!(size_after, size, "the old memory is not freed");
        huge_after >= expected
    });
}

#[test]
fn the_roster_uses_small_pages_if_huge_pages_are_off() {
    let cluster = Cluster::private(&[("huge_pages", "off")]);
    let (size, huge) = shared_memory(&cluster);
    assert!(size > 10 * HUGE_PAGE, "{size}");
    assert_eq!(huge, 0);
}
