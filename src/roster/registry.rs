//! Finding the current database's tenant, and registering a new one.

use pgrx::pg_sys;

use super::{
    layout::{MAX_TENANTS, Roster, TenantEntry},
    purge::purge,
    tenant::{NOT_BEGUN, Tenant, tenants},
};
use crate::{
    pg::{clock, compat, errors, installed},
    rules::time::SteadyTime,
    settings,
};

/// The tenant of the current database. Errors: 55000 where the library is not preloaded or the extension is not
/// installed.
#[inline]
pub fn tenant() -> Tenant {
    let relation = installed::get().sessions;
    match Tenant::last_used(relation) {
        Some(tenant) => tenant,
        None => find_or_register(relation),
    }
}

/// The tenant of the current database, if there is a roster and the extension is installed.
pub fn try_tenant() -> Option<Tenant> {
    Roster::attached()?;
    installed::try_get().map(|_| tenant())
}

#[cold]
fn find_or_register(relation: pg_sys::Oid) -> Tenant {
    let Some(roster) = Roster::attached() else {
        errors::not_preloaded();
    };
    // SAFETY: reads a global variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    let grace_until = if compat::in_recovery() {
        NOT_BEGUN
    } else {
        clock::steady().plus(settings::recovery_grace())
    };
    purge_gone(database, relation);
    let index = roster.register(database.to_u32(), relation.to_u32(), grace_until);
    let Some(index) = index else {
        errors::no_room_for_database();
    };
    Tenant::at(roster, index).use_from_now_on()
}

/// Removes what installs of this database that are gone have left: those that were rolled back, above all, of which no
/// worker ever heard.
fn purge_gone(database: pg_sys::Oid, current: pg_sys::Oid) {
    for tenant in tenants() {
        let is_other = tenant.database() == database && tenant.relation() != current;
        if is_other && compat::is_relation_gone(tenant.relation()) {
            purge(tenant);
        }
    }
}

impl Roster {
    fn register(&'static self, database: u32, relation: u32, grace_until: SteadyTime) -> Option<u16> {
        let writer = self.write();
        let ever = self.header.free_lists.tenants_ever.get() as usize;
        let is_it = |entry: &TenantEntry| {
            entry.is_in_use() && entry.database.get() == database && entry.relation.get() == relation
        };
        if let Some(index) = self.tenants[..ever].iter().position(is_it) {
            return Some(index as u16);
        }
        let index = if ever < MAX_TENANTS {
            self.header.free_lists.tenants_ever.set(ever as u32 + 1);
            ever
        } else {
            self.tenants.iter().position(TenantEntry::is_purged)?
        };
        writer.detach_counters(index);
        self.tenants[index].start(database, relation, grace_until);
        Some(index as u16)
    }
}
