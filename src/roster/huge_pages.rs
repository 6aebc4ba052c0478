//! Huge pages for the roster, without a reservation, on Linux.
//!
//! Heartbeats access hundreds of megabytes at random. With 4 kB pages the TLB misses cost more than the loads.
//! PostgreSQL's `huge_pages` needs reserved pages; since Linux 6.1 a process can also collapse ordinary memory into
//! huge pages, if both its address and its offset in the mapping are aligned. PostgreSQL's mapping is not aligned to
//! huge pages, so the part of it that belongs to the roster is replaced by a mapping that is.
//!
//! The postmaster does this before it forks, so every process has the memory at the same address. After a crash
//! PostgreSQL unmaps the whole range, and this is done again.

/// The size of a huge page on x86-64, and on ARM with 4 kB pages.
const HUGE_PAGE: usize = 2 << 20;

/// Returns the number of bytes to request so that a block of `size` bytes can be aligned to huge pages.
pub fn padded(size: usize) -> usize {
    if spans_huge_pages(size) {
        size.next_multiple_of(HUGE_PAGE) + HUGE_PAGE
    } else {
        size
    }
}

/// Returns whether a block is large enough for huge pages, and the system may have them.
fn spans_huge_pages(size: usize) -> bool {
    cfg!(target_os = "linux") && size >= HUGE_PAGE
}

#[cfg(not(target_os = "linux"))]
pub unsafe fn remap(base: *mut u8, _: usize) -> *mut u8 {
    base
}

#[cfg(target_os = "linux")]
pub use linux::remap;

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::CStr;
    use std::ptr::null_mut;

    use pgrx::pg_sys;

    use super::{HUGE_PAGE, spans_huge_pages};

    /// Collapses memory into huge pages; see madvise(2). The libc crate defines it for glibc, but not for musl.
    const MADV_COLLAPSE: libc::c_int = 25;

    /// Remaps new shared memory to huge pages if possible. Returns the start of a zeroed block of `size` bytes, which
    /// is `base` otherwise. Errors with 53200 if new memory was mapped but could not replace the old mapping.
    ///
    /// # Safety
    /// `base` is the start of [`padded`](super::padded) bytes of PostgreSQL's shared memory that have not been used
    /// yet, and no other process has mapped them.
    pub unsafe fn remap(base: *mut u8, size: usize) -> *mut u8 {
        if !spans_huge_pages(size) || !is_applicable(base) {
            return base;
        }
        let length = size.next_multiple_of(HUGE_PAGE);
        let at = base.map_addr(|address| address.next_multiple_of(HUGE_PAGE));
        // Mapped elsewhere first, so that a lack of memory is found while the old mapping still exists.
        // SAFETY: creates a mapping at an address that the kernel chooses.
        let fresh = unsafe {
            let (access, kind) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            );
            libc::mmap(null_mut(), length, access, kind, -1, 0)
        };
        if fresh == libc::MAP_FAILED {
            return base;
        }
        // SAFETY: moves the new mapping to memory that is not in use yet; both are `length` bytes long.
        let moved = unsafe {
            let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            libc::mremap(fresh, length, length, how, at.cast::<libc::c_void>())
        };
        if moved == libc::MAP_FAILED {
            crate::pg::errors::no_memory_for_roster();
        }
        for offset in (0..length).step_by(HUGE_PAGE) {
            // Linux collapses a range only if at least one of its pages has been allocated.
            // SAFETY: within the new mapping, which no other process has.
            unsafe { at.add(offset).write_volatile(0) };
        }
        // SAFETY: changes no contents. If it fails, the pages stay small.
        unsafe { libc::madvise(moved, length, MADV_COLLAPSE) };
        at
    }

    /// Returns whether PostgreSQL's memory is an anonymous mapping of small pages, and `huge_pages` is not off.
    fn is_applicable(base: *mut u8) -> bool {
        let is = |name: &CStr, wanted: &CStr| {
            // SAFETY: returns a C string, or null.
            let value = unsafe { pg_sys::GetConfigOption(name.as_ptr(), true, false) };
            // SAFETY: not null, and compared before anything else is called.
            !value.is_null() && unsafe { CStr::from_ptr(value) } == wanted
        };
        !is(c"huge_pages", c"off")
            && is(c"shared_memory_type", c"mmap")
            && std::fs::read_to_string("/proc/self/smaps").is_ok_and(|maps| has_small_pages(&maps, base.addr()))
    }

    /// Returns whether the mapping that contains an address has 4 kB pages, according to the text of
    /// `/proc/self/smaps`.
    fn has_small_pages(maps: &str, address: usize) -> bool {
        let mut lines = maps.lines();
        lines.any(|line| begins_mapping_of(line, address))
            && lines
                .find_map(|line| line.strip_prefix("KernelPageSize:"))
                .is_some_and(|size| size.trim() == "4 kB")
    }

    /// Returns whether a line begins the entry of the mapping that contains an address: `7f0000000000-7f0000400000 rw-s
    /// …`.
    fn begins_mapping_of(line: &str, address: usize) -> bool {
        let number = |text| usize::from_str_radix(text, 16).ok();
        let range = || {
            let (from, to) = line.split_once(' ')?.0.split_once('-')?;
            Some(number(from)?..number(to)?)
        };
        range().is_some_and(|range| range.contains(&address))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const MAPS: &str = "\
55d0c0000000-55d0c0001000 r--p 00000000 fe:00 1 /usr/bin/postgres
Size:                  4 kB
KernelPageSize:        4 kB
7f0000000000-7f0000400000 rw-s 00000000 00:0f 2 /anon_hugepage (deleted)
Size:               4096 kB
KernelPageSize:     2048 kB
MMUPageSize:        2048 kB
7f0000400000-7f0000401000 rw-s 00000000 00:01 3 /dev/zero (deleted)
Size:                  4 kB
KernelPageSize:        4 kB
";

        #[test]
        fn the_page_size_is_that_of_the_mapping_around_the_address() {
            assert!(has_small_pages(MAPS, 0x55d0_c000_0fff));
            assert!(!has_small_pages(MAPS, 0x7f00_0000_0000));
            assert!(!has_small_pages(MAPS, 0x7f00_003f_ffff));
            assert!(has_small_pages(MAPS, 0x7f00_0040_0000));
            assert!(!has_small_pages(MAPS, 0x7f00_0040_1000));
        }
    }
}
