//! The children that still owe an acknowledgement, and the last order that they were given.
//!
//! One pure state machine serves every supervisor in the tree. Its user chooses the type of the handles, such as an
//! address.

use crate::decisions::stop::Stop;
use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

/// The children of one supervisor, from their start to their acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Roster<C: Ord, H> {
    owing: BTreeMap<C, H>,
    order: Option<Stop>,
}

impl<C: Ord, H> Default for Roster<C, H> {
    fn default() -> Self {
        Self { owing: BTreeMap::new(), order: None }
    }
}

impl<C: Ord, H> Roster<C, H> {
    /// A child has been started. Gives the order that the others already have; the supervisor must give it to this child
    /// now.
    pub fn enter(&mut self, child: C, handle: H) -> Option<Stop> {
        self.owing.insert(child, handle);
        self.order
    }

    /// Raises the order. Gives the handles of the children that must be told. There are none if they already have this
    /// order.
    pub fn order(&mut self, stop: Stop) -> impl Iterator<Item = &H> {
        let news = self.order < Some(stop);
        self.order = self.order.max(Some(stop));
        self.owing.values().filter(move |_| news)
    }

    /// The last order that the children were given; `None` while they run.
    pub fn ordered(&self) -> Option<Stop> {
        self.order
    }

    /// A child has sent its `Stopped`. False if it owed none: it is unknown, was given up, or was heard before.
    pub fn acknowledge(&mut self, child: &C) -> bool {
        self.owing.remove(child).is_some()
    }

    /// Those that have not acknowledged.
    pub fn owing(&self) -> impl Iterator<Item = (&C, &H)> + Clone {
        self.owing.iter()
    }

    /// Of them, those that come after this one.
    pub fn owing_after(&self, child: Option<C>) -> impl Iterator<Item = (&C, &H)> {
        self.owing.range((child.map_or(Unbounded, Excluded), Unbounded))
    }

    /// Whether no child owes an acknowledgement.
    pub fn is_empty(&self) -> bool {
        self.owing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(children: &[u8]) -> Roster<u8, u8> {
        let mut roster = Roster::default();
        for &child in children {
            assert_eq!(roster.enter(child, child), None);
        }
        roster
    }

    #[test]
    fn an_order_goes_to_everyone_who_still_owes() {
        let mut roster = roster(&[1, 2, 3]);
        assert!(roster.acknowledge(&2));
        assert_eq!(roster.order(Stop::Drain).copied().collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn an_order_is_given_once_and_never_taken_back() {
        let mut roster = roster(&[1]);
        assert_eq!(roster.order(Stop::Abort).count(), 1);
        assert_eq!(roster.order(Stop::Abort).count(), 0);
        assert_eq!(roster.order(Stop::Drain).count(), 0);
        assert_eq!(roster.ordered(), Some(Stop::Abort));
    }

    #[test]
    fn who_enters_during_a_stop_is_told_at_once() {
        let mut roster = roster(&[]);
        assert_eq!(roster.order(Stop::Drain).count(), 0);
        assert_eq!(roster.enter(1, 1), Some(Stop::Drain));
        assert!(!roster.is_empty());
    }

    #[test]
    fn those_who_owe_are_listed_in_their_order_from_any_place_on() {
        let mut roster = roster(&[3, 1, 2]);
        for (after, listed) in [(None, &[1, 2, 3][..]), (Some(0), &[1, 2, 3]), (Some(1), &[2, 3]), (Some(3), &[])] {
            assert_eq!(roster.owing_after(after).map(|(child, _)| *child).collect::<Vec<_>>(), listed);
        }
        assert!(roster.acknowledge(&2));
        assert_eq!(roster.owing_after(Some(1)).count(), 1);
    }

    #[test]
    fn an_acknowledgement_counts_once() {
        let mut roster = roster(&[1]);
        assert!(roster.acknowledge(&1));
        assert!(!roster.acknowledge(&1));
        assert!(!roster.acknowledge(&2));
        assert!(roster.is_empty());
    }
}
