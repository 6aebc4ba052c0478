//! Standstills: all processes of the server were stopped for a while, as those of a paused container are.
//!
//! Nobody could be heard from meanwhile, so everybody who was live when it began has the grace of a restart. Launcher and
//! worker note when they last ran. Whoever finds that neither has run for longer than a heartbeat notes the standstill,
//! before it notes that it runs again: so the first to run after a standstill sees it, and what it notes is seen by whoever
//! sees that it runs. A worker that was stopped alone leaves a launcher that was not.

use std::sync::atomic::{
    Ordering::{Acquire, SeqCst},
    fence,
};

use super::{
    clock::Now,
    layout::Roster,
    tenant::{Tenant, tenants},
};
use crate::{pg::clock, rules::time::SteadyTime, settings};

impl Tenant {
    /// Notes a standstill, if there was one until now. Takes no lock and cannot fail.
    pub fn note_standstill(&self, now: &Now) {
        let (entry, launcher) = (self.entry(), &self.roster().header.launcher);
        if entry.worker.pid.get() == 0 || launcher.latch.load(Acquire).is_null() {
            return;
        }
        let uptime = clock::uptime();
        let silent = uptime.since(launcher.alive_at.get().max(entry.worker.alive_at.get()));
        if silent <= settings::heartbeat_interval() {
            return;
        }
        // One that begins in the grace of the last goes on with it.
        if now.steady >= entry.grace_until.get() || entry.stood_from.get() == SteadyTime::FUTURE {
            entry.stood_from.set(now.steady.minus(silent));
        }
        entry.grace_until.raise(now.steady.plus(settings::recovery_grace()));
        entry.stood_until.raise(now.steady);
        fence(SeqCst);
    }

    /// When the last standstill ended, to find out whether one was noted meanwhile.
    pub fn stood_until(&self) -> SteadyTime {
        self.entry().stood_until.get()
    }

    /// Notes that the worker runs.
    pub(super) fn worker_runs(&self) {
        self.worker().alive_at.set(clock::uptime());
    }
}

/// Notes that a launcher has started: it was not stopped before.
pub fn launcher_started() {
    if let Some(roster) = Roster::attached() {
        roster.header.launcher.alive_at.set(clock::uptime());
    }
}

/// Notes that the launcher runs, and a standstill of all databases, if there was one.
pub fn launcher_runs() {
    let Some(roster) = Roster::attached() else {
        return;
    };
    let launcher = &roster.header.launcher;
    if clock::uptime().since(launcher.alive_at.get()) > settings::heartbeat_interval() {
        let now = roster.now();
        for tenant in tenants() {
            tenant.note_standstill(&now);
        }
    }
    launcher.alive_at.set(clock::uptime());
}
