//! The nodes of the tape.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Takes the gradient of an op's output, gives those of its inputs (None: not needed).
pub(crate) type Backward<T> = Box<dyn FnOnce(&T) -> Vec<Option<T>> + Send>;

/// One recorded op, or a leaf, of gradients of type `T`.
pub(crate) struct Node<T> {
    /// Grows with every node, so that a node's inputs always have smaller ids.
    pub(crate) id: u64,
    pub(crate) inputs: Vec<Option<Arc<Node<T>>>>,
    /// None for a leaf, and once it has been gone back through.
    backward: Mutex<Option<Backward<T>>>,
    pub(crate) leaf: bool,
}

/// Names a leaf in [`Tensor::backward_with`](crate::Tensor::backward_with).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeafId(pub(crate) u64);

impl<T> Node<T> {
    fn new(inputs: Vec<Option<Arc<Node<T>>>>, backward: Option<Backward<T>>) -> Arc<Node<T>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let leaf = backward.is_none();
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Node { id, inputs, backward: Mutex::new(backward), leaf })
    }

    pub(crate) fn leaf() -> Arc<Node<T>> {
        Node::new(Vec::new(), None)
    }

    /// An op of these inputs.
    pub(crate) fn op(inputs: Vec<Option<Arc<Node<T>>>>, backward: Backward<T>) -> Arc<Node<T>> {
        Node::new(inputs, Some(backward))
    }

    /// The node's name.
    pub(crate) fn leaf_id(&self) -> LeafId {
        LeafId(self.id)
    }

    /// The way back, once.
    pub(crate) fn take_backward(&self) -> Backward<T> {
        let mut backward = self.backward.lock().unwrap_or_else(PoisonError::into_inner);
        backward.take().expect("a graph is gone back through once")
    }
}

impl<T> Drop for Node<T> {
    /// Without recursion: a deep network is a long chain.
    fn drop(&mut self) {
        let mut stack: Vec<_> = self.inputs.drain(..).flatten().collect();
        while let Some(node) = stack.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                stack.extend(node.inputs.drain(..).flatten());
            }
        }
    }
}
