//! What the nodes are and have.

use crate::hub::Inner;

/// All nodes, this one as it is now and others as they last said.
pub(super) fn info(hub: &Inner) -> String {
    let others = hub.broker.as_ref().map(|broker| broker.presence.nodes()).unwrap_or_default();
    let others = others.into_iter().filter(|node| node.uid() != hub.uid).map(|node| node.info);
    let nodes: Vec<_> = std::iter::once(hub.info()).chain(others).collect();
    format!(r#"{{"nodes":[{}]}}"#, nodes.join(","))
}
