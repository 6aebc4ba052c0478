//! Memory whose size a caller chooses, or the number of rows in a table.
//!
//! Where Rust cannot allocate memory, it aborts the process, and the server ends all others with it. What is reserved
//! here first fails with an error instead, as PostgreSQL's own allocations do.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash},
};

use super::errors;

/// A collection that may grow.
pub trait Reserve {
    /// Makes room for `additional` more elements. Errors: 53200 where there is no memory for them.
    fn make_room(&mut self, additional: usize);
}

impl<T> Reserve for Vec<T> {
    #[inline]
    fn make_room(&mut self, additional: usize) {
        if self.try_reserve(additional).is_err() {
            errors::no_memory();
        }
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Reserve for HashMap<K, V, S> {
    fn make_room(&mut self, additional: usize) {
        if self.try_reserve(additional).is_err() {
            errors::no_memory();
        }
    }
}

impl<T: Eq + Hash, S: BuildHasher> Reserve for HashSet<T, S> {
    fn make_room(&mut self, additional: usize) {
        if self.try_reserve(additional).is_err() {
            errors::no_memory();
        }
    }
}

/// Adds an element. Errors: 53200 where there is no memory for it.
#[inline]
pub fn push<T>(list: &mut Vec<T>, element: T) {
    list.make_room(1);
    list.push(element);
}

/// Returns the elements of an iterator as a list. Errors: 53200 where there is no memory for them.
pub fn collect<T>(elements: impl Iterator<Item = T>) -> Vec<T> {
    let mut list = Vec::new();
    list.make_room(elements.size_hint().0);
    elements.for_each(|element| push(&mut list, element));
    list
}

/// Returns a copy of a list. Errors: 53200 where there is no memory for it.
pub fn copy<T: Copy>(list: &[T]) -> Vec<T> {
    let mut copy = Vec::new();
    if copy.try_reserve_exact(list.len()).is_err() {
        errors::no_memory();
    }
    copy.extend_from_slice(list);
    copy
}

/// Returns a copy of a text. Errors: 53200 where there is no memory for it.
pub fn copy_text(text: &str) -> String {
    let mut copy = String::new();
    if copy.try_reserve_exact(text.len()).is_err() {
        errors::no_memory();
    }
    copy.push_str(text);
    copy
}
