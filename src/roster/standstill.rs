//! Standstills: all processes of the server were stopped for a while, as those of a paused container are.
//!
//! Nobody could be heard from meanwhile, so everybody who was live when it began has the grace of a restart. Launcher and
//! worker note when they last ran. Whoever finds that neither has run for longer than a heartbeat notes the standstill,
//! before it notes that it runs again: so the first to run after a standstill sees it, and what it notes is seen by whoever
//! sees that it runs. A worker that was stopped alone leaves a launcher that was not.

use std::sync::atomic::{
    Ordering::{Acquire, Release, SeqCst},
    fence,
};

use super::{
    clock::Now,
    layout::{Roster, TenantEntry},
    tenant::{Tenant, tenants},
};
use crate::{
    pg::clock,
    rules::time::{Micros, SteadyTime},
    settings,
};

impl TenantEntry {
    /// Whether the grace, while it lasts, is also for a session with this last activity. That after a start is for all;
    /// that after a standstill for whoever was live when it began.
    pub fn grace_covers(&self, last_activity: SteadyTime, timeout: Micros) -> bool {
        match self.stood_from.get() {
            SteadyTime::FUTURE => true,
            from => last_activity.plus(timeout) > from,
        }
    }

    /// Gives everybody a grace from now on.
    pub fn start_grace(&self, now: SteadyTime) {
        self.stood_from.set(SteadyTime::PAST);
        self.grace_until.raise(now.plus(settings::recovery_grace()));
    }
}

impl Tenant {
    /// Notes a standstill, if there was one until now. Returns now in uptime, to be noted by launcher and worker. Takes no
    /// lock and cannot fail.
    pub fn note_standstill(&self) -> SteadyTime {
        let (entry, launcher) = (self.entry(), &self.roster().header.launcher);
        let (now, uptime) = (clock::steady(), clock::uptime());
        if entry.worker.pid.get() == 0 || launcher.latch.load(Acquire).is_null() {
            return uptime;
        }
        let alive_at = launcher.alive_at.get().max(entry.worker.alive_at.get());
        // What the one that runs again has noted before is read after this.
        fence(Acquire);
        let silent = uptime.since(alive_at);
        // Noted once: where neither runs for long, the grace ends all the same.
        if silent <= settings::heartbeat_interval() || entry.worker.noted_for.get() == alive_at {
            return uptime;
        }
        entry.worker.noted_for.set(alive_at);
        let began = now.minus(silent);
        let grace_until = entry.grace_until.get();
        if began >= grace_until {
            entry.stood_from.set(began);
        } else if entry.stood_from.get() == SteadyTime::FUTURE {
            // In the grace of a start, which is for all.
            entry.stood_from.set(SteadyTime::PAST);
        }
        entry.grace_until.raise(now.plus(settings::recovery_grace()));
        fence(Release);
        entry.stood_until.raise(now);
        fence(SeqCst);
        uptime
    }

    /// When the grace began, by the time of day; `None` where it is over.
    pub fn grace_began(&self, now: &Now) -> Option<Micros> {
        let until = self.grace_until();
        (now.steady < until).then(|| now.to_wall(until.minus(settings::recovery_grace())))
    }

    /// When the last standstill ended, to find out whether one was noted meanwhile.
    pub fn stood_until(&self) -> SteadyTime {
        let until = self.entry().stood_until.get();
        fence(Acquire);
        until
    }

    /// The newest activity, by the time of day, at which a session that only the table has is timed out.
    pub fn timed_out_at(&self, now: &Now, timeout: Micros) -> Micros {
        let timed_out_at = now.wall().saturating_sub(timeout);
        if now.steady >= self.grace_until() {
            return timed_out_at;
        }
        match self.entry().stood_from.get() {
            SteadyTime::FUTURE | SteadyTime::PAST => Micros::MIN,
            from => timed_out_at.min(now.to_wall(from.minus(timeout))),
        }
    }
}

/// Notes that a launcher has started: it was not stopped before.
pub fn launcher_started() {
    if let Some(roster) = Roster::attached() {
        roster.header.launcher.alive_at.set(clock::uptime());
    }
}

/// Notes that the launcher runs, and a standstill of any database, if there was one.
pub fn launcher_runs() {
    let Some(roster) = Roster::attached() else {
        return;
    };
    let launcher = &roster.header.launcher;
    let mut uptime = clock::uptime();
    if uptime.since(launcher.alive_at.get()) > settings::heartbeat_interval() {
        for tenant in tenants() {
            uptime = uptime.min(tenant.note_standstill());
        }
    }
    launcher.alive_at.set(uptime);
}
