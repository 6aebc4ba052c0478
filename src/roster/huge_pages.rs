//! Large pages for the roster, where Linux can make them.
//!
//! A beat touches places all over hundreds of megabytes. On pages of 4 kB the processor takes longer to find out where in
//! memory they are than to fetch them. PostgreSQL's `huge_pages` takes memory that somebody has set aside; since Linux
//! 6.1 a process may ask for ordinary memory to be gathered into large pages, where its address and its offset in the
//! mapping allow that. PostgreSQL's mapping begins anywhere, so the roster's part of it is replaced by a mapping that
//! begins right.
//!
//! All processes of the server are forked from the one that does this, and have the memory in the same place. After a
//! crash PostgreSQL unmaps the whole range, and this is done anew.

/// The size of a large page: that of x86-64, and of ARM with ordinary pages of 4 kB.
const HUGE: usize = 2 << 20;

/// How much to ask for so that a block of `size` bytes may begin and end with a large page.
pub fn padded(size: usize) -> usize {
    if is_worth_it(size) {
        size.next_multiple_of(HUGE) + HUGE
    } else {
        size
    }
}

/// A small block has few pages of any size.
fn is_worth_it(size: usize) -> bool {
    cfg!(target_os = "linux") && size >= HUGE
}

#[cfg(not(target_os = "linux"))]
pub unsafe fn place(base: *mut u8, _: usize) -> *mut u8 {
    base
}

#[cfg(target_os = "linux")]
pub use linux::place;

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::CStr;
    use std::ptr::null_mut;

    use pgrx::pg_sys;

    use super::{HUGE, is_worth_it};

    /// Gathers memory into large pages; see madvise(2). The libc crate names it for glibc, but not for musl.
    const MADV_COLLAPSE: libc::c_int = 25;

    /// Where to lay out a block of `size` bytes, all zero, in fresh shared memory: in large pages if that is possible,
    /// else at its beginning. Errors with 53200 if the memory was there and then could not be put in its place.
    ///
    /// # Safety
    /// `base` is the start of [`padded`](super::padded) bytes of PostgreSQL's shared memory that nobody has used
    /// yet, and no other process has that memory.
    pub unsafe fn place(base: *mut u8, size: usize) -> *mut u8 {
        if !is_worth_it(size) || !is_wanted(base) {
            return base;
        }
        let length = size.next_multiple_of(HUGE);
        let at = base.map_addr(|address| address.next_multiple_of(HUGE));
        // First elsewhere: if there is not enough memory, that has to be known while the old mapping is still there.
        // SAFETY: maps anew, at an address of the kernel's choice.
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
        // SAFETY: moves what was just mapped to where nothing is in use yet; both are `length` bytes long.
        let moved = unsafe {
            let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            libc::mremap(fresh, length, length, how, at.cast::<libc::c_void>())
        };
        if moved == libc::MAP_FAILED {
            crate::pg::errors::no_memory_for_roster();
        }
        for offset in (0..length).step_by(HUGE) {
            // Linux gathers only where at least one page is there already.
            // SAFETY: within the mapping, which nobody else has.
            unsafe { at.add(offset).write_volatile(0) };
        }
        // SAFETY: changes no content. Where it fails, the pages stay as small as they are.
        unsafe { libc::madvise(moved, length, MADV_COLLAPSE) };
        at
    }

    /// Whether PostgreSQL has its memory in small pages of one mapping, and nobody has forbidden large ones.
    fn is_wanted(base: *mut u8) -> bool {
        let is = |name: &CStr, wanted: &CStr| {
            // SAFETY: gives a text of the server's, or null.
            let value = unsafe { pg_sys::GetConfigOption(name.as_ptr(), true, false) };
            // SAFETY: as above; it is only compared.
            !value.is_null() && unsafe { CStr::from_ptr(value) } == wanted
        };
        !is(c"huge_pages", c"off")
            && is(c"shared_memory_type", c"mmap")
            && std::fs::read_to_string("/proc/self/smaps").is_ok_and(|maps| has_small_pages(&maps, base.addr()))
    }

    /// Whether the mapping around an address has pages of 4 kB, by what `/proc/self/smaps` says.
    fn has_small_pages(maps: &str, address: usize) -> bool {
        let mut lines = maps.lines();
        lines.any(|line| is_around(line, address))
            && lines
                .find_map(|line| line.strip_prefix("KernelPageSize:"))
                .is_some_and(|size| size.trim() == "4 kB")
    }

    /// Whether a line begins a mapping that an address lies in: `7f0000000000-7f0000400000 rw-s …`.
    fn is_around(line: &str, address: usize) -> bool {
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
        fn a_mapping_knows_the_size_of_its_pages() {
            assert!(has_small_pages(MAPS, 0x55d0_c000_0fff));
            assert!(!has_small_pages(MAPS, 0x7f00_0000_0000));
            assert!(!has_small_pages(MAPS, 0x7f00_003f_ffff));
            assert!(has_small_pages(MAPS, 0x7f00_0040_0000));
            assert!(!has_small_pages(MAPS, 0x7f00_0040_1000));
        }
    }
}
