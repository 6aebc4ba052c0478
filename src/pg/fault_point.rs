//! Faults that the tests of a debug build inject. A release build has none of this.

/// Waits, after a commit, when other transactions see it and may write the same rows, as many milliseconds as
/// `presence_test.commit_delay` says: so callbacks run the other way round.
#[cfg(debug_assertions)]
pub fn delay_commit() {
    use pgrx::pg_sys;
    // SAFETY: gives null for a setting that nobody has made; otherwise a C string, read before anything else is called.
    let delay = unsafe {
        let value = pg_sys::GetConfigOption(c"presence_test.commit_delay".as_ptr(), true, false);
        if value.is_null() {
            return;
        }
        std::ffi::CStr::from_ptr(value)
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
    };
    if let Some(delay) = delay {
        std::thread::sleep(std::time::Duration::from_millis(delay));
    }
}

/// A moment at which this process dies as by `kill -9`, if the data directory, where every process of a server works,
/// has a file `presence_test.<moment>`: once, as it takes the file with it.
#[cfg(debug_assertions)]
pub fn reach(name: &str) {
    unsafe extern "C" {
        fn raise(signal: i32) -> i32;
    }
    const SIGKILL: i32 = 9;
    if std::fs::remove_file(format!("presence_test.{name}")).is_ok() {
        // SAFETY: ends this process.
        unsafe { raise(SIGKILL) };
    }
}

/// How far this server's clock is ahead, in microseconds: what a file `presence_test.clock` in the data directory says.
/// So a test lives through hours without a wait.
#[cfg(debug_assertions)]
pub fn clock_offset() -> i64 {
    let text = std::fs::read_to_string("presence_test.clock").unwrap_or_default();
    text.parse().unwrap_or(0)
}

#[cfg(not(debug_assertions))]
pub fn delay_commit() {}

#[cfg(not(debug_assertions))]
pub fn reach(_name: &str) {}

#[cfg(not(debug_assertions))]
#[inline]
pub fn clock_offset() -> i64 {
    0
}
