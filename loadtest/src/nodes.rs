//! The nodes that subscribers and publishers go to: one, or those of a cluster, which come and go.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::dice::Dice;
use crate::target::Target;

/// All nodes, and what is known of each.
#[derive(Clone, Debug)]
pub(crate) struct Nodes(Rc<Known>);

/// A node in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) node: usize,
    life: u32,
}

#[derive(Debug)]
struct Known {
    nodes: Vec<Node>,
    /// When something was last killed.
    disturbed: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Node {
    target: Target,
    is_up: Cell<bool>,
    /// How often it was killed.
    life: Cell<u32>,
}

impl Nodes {
    /// Nodes that are up, at least one.
    pub(crate) fn new(targets: impl IntoIterator<Item = Target>) -> Self {
        let up = |target| Node { target, is_up: Cell::new(true), life: Cell::default() };
        let nodes = targets.into_iter().map(up).collect();
        Self(Rc::new(Known { nodes, disturbed: Cell::default() }))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.nodes.len()
    }

    pub(crate) fn target(&self, host: Host) -> &Target {
        &self.0.nodes[host.node].target
    }

    /// The node that a user goes to first.
    pub(crate) fn first(&self, user: u32) -> Host {
        self.host(user as usize % self.len())
    }

    /// Any node, up or not.
    pub(crate) fn any(&self, dice: &mut Dice) -> Host {
        self.host(dice.below(self.len()))
    }

    /// Any other node that is up; the same if there is none.
    pub(crate) fn another(&self, than: Host, dice: &mut Dice) -> Host {
        let is_other = |node: &usize| *node != than.node && self.0.nodes[*node].is_up.get();
        let others: Vec<_> = (0..self.len()).filter(is_other).collect();
        let node = if others.is_empty() { than.node } else { others[dice.below(others.len())] };
        self.host(node)
    }

    /// Whether the node has not been killed since.
    pub(crate) fn lives(&self, host: Host) -> bool {
        let node = &self.0.nodes[host.node];
        node.is_up.get() && node.life.get() == host.life
    }

    /// Takes note that a node is killed.
    pub(crate) fn kill(&self, node: usize) {
        let Node { is_up, life, .. } = &self.0.nodes[node];
        is_up.set(false);
        life.set(life.get() + 1);
        self.disturb();
    }

    /// Takes note that a node that was killed is up again.
    pub(crate) fn revive(&self, node: usize) {
        self.0.nodes[node].is_up.set(true);
    }

    /// Takes note that what the nodes need is killed.
    pub(crate) fn disturb(&self) {
        self.0.disturbed.set(Some(Instant::now()));
    }

    /// Whether something was killed so lately that a node may refuse what it else must not.
    pub(crate) fn are_disturbed(&self) -> bool {
        self.0.disturbed.get().is_some_and(|at| at.elapsed() < DISTURBANCE)
    }

    fn host(&self, node: usize) -> Host {
        Host { node, life: self.0.nodes[node].life.get() }
    }
}

/// How long a kill may be felt: until the broker is back and found, and another `broker.timeout` of those
/// who began to wait just before.
const DISTURBANCE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Nodes {
        Nodes::new([1, 2, 3].map(|port| Target::floor(([127, 0, 0, 1], port).into())))
    }

    #[test]
    fn another_is_up_and_not_the_same_while_there_is_one() {
        let (nodes, mut dice) = (three(), Dice::new(1));
        let from = nodes.first(0);
        let mut seen = [false; 3];
        (0..50).for_each(|_| seen[nodes.another(from, &mut dice).node] = true);
        assert_eq!(seen, [false, true, true]);
        nodes.kill(1);
        assert!((0..50).all(|_| nodes.another(from, &mut dice).node == 2));
        nodes.kill(2);
        assert_eq!(nodes.another(from, &mut dice), from);
    }

    #[test]
    fn who_was_killed_does_not_live_on_when_it_is_back() {
        let nodes = three();
        let before = nodes.first(4);
        assert!(nodes.lives(before));
        nodes.kill(1);
        assert!(!nodes.lives(before) && !nodes.lives(nodes.first(4)));
        nodes.revive(1);
        assert!(!nodes.lives(before) && nodes.lives(nodes.first(4)));
    }

    #[test]
    fn a_kill_is_felt_by_all() {
        let nodes = three();
        assert!(!nodes.are_disturbed());
        nodes.kill(0);
        assert!(nodes.are_disturbed());
    }
}
