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

/// Raises an error while the data directory contains the file `presence_test.<name>_error`.
#[cfg(debug_assertions)]
pub fn fail(name: &str) {
    if std::fs::exists(format!("presence_test.{name}_error")).unwrap_or(false) {
        pgrx::error!("injected at {name}");
    }
}

/// Waits while the data directory contains the file `presence_test.<name>_pause.<pid>` with the id of this process. Creates
/// the file that this one names, so that a test knows that the process has arrived: each time another name is in it, as a
/// test may ask again before the process has noticed that it may go on.
#[cfg(debug_assertions)]
pub fn pause(name: &str) {
    let asked = format!("presence_test.{name}_pause.{}", std::process::id());
    let mut created = String::new();
    while let Ok(reached) = std::fs::read_to_string(&asked) {
        if reached != created {
            let _ = std::fs::write(&reached, "");
            created = reached;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Returns how far both clocks of the server are ahead, in microseconds, from the file `presence_test.clock` in the data
/// directory. Lets a test pass hours without waiting.
#[cfg(debug_assertions)]
pub fn clock_offset() -> i64 {
    read_micros("presence_test.clock")
}

/// Returns how far the time of day is ahead, in microseconds, from the file `presence_test.clock_step` in the data
/// directory. Lets a test set the clock.
#[cfg(debug_assertions)]
pub fn clock_step() -> i64 {
    read_micros("presence_test.clock_step")
}

/// Allocates nothing: the clock is read under locks, too.
#[cfg(debug_assertions)]
fn read_micros(file: &str) -> i64 {
    use std::io::Read;
    let mut text = [0; 32];
    let length = std::fs::File::open(file).and_then(|mut file| file.read(&mut text));
    let text = str::from_utf8(&text[..length.unwrap_or(0)]);
    text.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(not(debug_assertions))]
pub fn delay(_name: &str) {}

#[cfg(not(debug_assertions))]
pub fn reach(_name: &str) {}

#[cfg(not(debug_assertions))]
pub fn fail(_name: &str) {}

#[cfg(not(debug_assertions))]
pub fn pause(_name: &str) {}

#[cfg(not(debug_assertions))]
#[inline]
pub fn clock_offset() -> i64 {
    0
}

#[cfg(not(debug_assertions))]
#[inline]
pub fn clock_step() -> i64 {
    0
}
