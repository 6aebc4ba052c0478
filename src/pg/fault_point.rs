//! Faults that tests inject into a debug build. In a release build these functions do nothing.

/// Waits for `presence_test.<name>_delay` milliseconds, if that is set.
///
/// At `commit`, in the commit callback, other transactions already see the commit and may write the same rows, so callbacks
/// can run in the opposite order of the commits. At `read`, between the two reads of a session, the process can be
/// terminated.
#[cfg(debug_assertions)]
pub fn delay(name: &str) {
    use pgrx::pg_sys;
    // SAFETY: returns null for an undefined setting, else a C string, which is read before anything else is called.
    let delay: Option<u64> = unsafe {
        let setting = std::ffi::CString::new(format!("presence_test.{name}_delay")).unwrap_or_default();
        let value = pg_sys::GetConfigOption(setting.as_ptr(), true, false);
        if value.is_null() {
            return;
        }
        std::ffi::CStr::from_ptr(value)
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
    };
    let end = std::time::Instant::now() + std::time::Duration::from_millis(delay.unwrap_or(0));
    while std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(1));
        if name != "commit" {
            pgrx::check_for_interrupts!();
        }
    }
}

/// Kills this process with SIGKILL if the data directory, its working directory, contains the file
/// `presence_test.<name>`. The file is removed first, so only the first process to arrive is killed.
#[cfg(debug_assertions)]
pub fn reach(name: &str) {
    unsafe extern "C" {
        fn raise(signal: i32) -> i32;
    }
    const SIGKILL: i32 = 9;
    if std::fs::remove_file(format!("presence_test.{name}")).is_ok() {
        // SAFETY: signals this process only.
        unsafe { raise(SIGKILL) };
    }
}

/// Waits while the data directory contains the file `presence_test.<name>_pause`. Creates `presence_test.<name>_paused`
/// first, so that a test knows that the process has arrived.
#[cfg(debug_assertions)]
pub fn pause(name: &str) {
    let is_asked = || std::fs::exists(format!("presence_test.{name}_pause")).unwrap_or(false);
    if !is_asked() {
        return;
    }
    let _ = std::fs::write(format!("presence_test.{name}_paused"), "");
    while is_asked() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Returns how far the server's clock is ahead, in microseconds, from the file `presence_test.clock` in the data
/// directory. Lets a test pass hours without waiting. Allocates nothing, as the clock is read under locks, too.
#[cfg(debug_assertions)]
pub fn clock_offset() -> i64 {
    use std::io::Read;
    let mut text = [0; 24];
    let length = std::fs::File::open("presence_test.clock")
        .and_then(|mut file| file.read(&mut text))
        .unwrap_or(0);
    let text = str::from_utf8(&text[..length]).unwrap_or_default();
    text.parse().unwrap_or(0)
}

#[cfg(not(debug_assertions))]
pub fn delay(_name: &str) {}

#[cfg(not(debug_assertions))]
pub fn reach(_name: &str) {}

#[cfg(not(debug_assertions))]
pub fn pause(_name: &str) {}

#[cfg(not(debug_assertions))]
#[inline]
pub fn clock_offset() -> i64 {
    0
}
