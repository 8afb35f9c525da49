//! Reverse-mode automatic differentiation: what was computed, and how to go back.
//!
//! A tensor that depends on a [variable](crate::Tensor::var) carries a node.
//! Nodes hold their inputs' nodes, never their data: what the way back needs, an
//! op's closure keeps, and it is freed as soon as the op has been gone back through.

use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use crate::backend::Binary;
pub use crate::node::LeafId;
use crate::node::{self, Backward};
use crate::tensor::Tensor;

pub(crate) type Node = node::Node<Tensor>;

/// Attaches to `output` the way back to its inputs' nodes, if any of them requires a gradient (has a node).
///
/// `backward` takes the gradient of `output` and returns one entry for each input, in order;
/// it may return None for an input without a node.
pub(crate) fn record(
    output: Tensor,
    inputs: &[Option<&Arc<Node>>],
    backward: impl FnOnce(&Tensor) -> Vec<Option<Tensor>> + Send + 'static,
) -> Tensor {
    if inputs.iter().all(Option::is_none) {
        return output;
    }
    let nodes = inputs.iter().map(|node| node.cloned()).collect();
    output.with_node(Some(Node::op(nodes, Box::new(backward))))
}

/// The node of an optional input of an op.
pub(crate) fn node_of(input: Option<&Tensor>) -> Option<&Arc<Node>> {
    input.and_then(Tensor::node)
}

/// The gradients of leaves, by leaf.
#[derive(Default)]
pub struct Gradients(HashMap<u64, Tensor>);

impl Gradients {
    /// The gradient of a leaf, None where the result does not depend on it.
    pub fn get(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.0.get(&leaf.node.as_ref()?.id)
    }

    /// Puts in what [`Tensor::backward_with`] gave.
    pub fn insert(&mut self, leaf: LeafId, gradient: Tensor) {
        self.0.insert(leaf.0, gradient);
    }

    /// Takes the gradient of a leaf out.
    pub fn take(&mut self, leaf: &Tensor) -> Option<Tensor> {
        self.0.remove(&leaf.node.as_ref()?.id)
    }
}

impl Tensor {
    /// The same tensor, whose users' gradients are summed up among themselves before they join those of this one's other
    /// users. So a block that starts with forks of its inputs has the bytes of one under [`checkpoint`].
    pub fn fork(&self) -> Tensor {
        record(self.detach(), &[self.node()], |dy| vec![Some(dy.clone())])
    }

    /// Goes back from this tensor with a gradient of ones, and collects the leaves' gradients.
    /// What the ops kept is freed on the way: it can be done once.
    pub fn backward(&self) -> Gradients {
        let ones = self.kernels().full(self.shape(), 1.0, self.dtype());
        let mut gradients = Gradients::default();
        self.backward_with(ones, &mut |leaf, grad| gradients.insert(leaf, grad));
        gradients
    }

    /// Goes back with the gradient `seed`; `on_grad` gets each leaf's gradient the moment it is complete,
    /// so that an optimizer can use it up while the rest is still being computed.
    pub fn backward_with(&self, seed: Tensor, on_grad: &mut dyn FnMut(LeafId, Tensor)) {
        assert_eq!(self.shape(), seed.shape(), "the gradient has the tensor's shape");
        let Some(root) = self.node.clone() else { return };
        let mut pending = count_uses(&root);
        let mut grads = HashMap::from([(root.id, seed)]);
        let mut heap = BinaryHeap::from([ById(root.clone())]);
        if root.leaf {
            on_grad(LeafId(root.id), grads.remove(&root.id).expect("just inserted"));
            return;
        }
        let mut queued = HashSet::from([root.id]);
        while let Some(ById(node)) = heap.pop() {
            // None: every path to it gave no gradient. Its inputs are then owed one use less.
            let input_grads = match grads.remove(&node.id) {
                Some(grad) => node.take_backward()(&grad),
                None => vec![None; node.inputs.len()],
            };
            assert_eq!(input_grads.len(), node.inputs.len(), "one gradient an input");
            for (input, grad) in node.inputs.iter().zip(input_grads) {
                let Some(input) = input else { continue };
                accumulate(&mut grads, input.id, grad);
                if !input.leaf {
                    if queued.insert(input.id) {
                        heap.push(ById(input.clone()));
                    }
                    continue;
                }
                let left = pending.get_mut(&input.id).expect("every leaf was counted");
                *left -= 1;
                if *left == 0
                    && let Some(grad) = grads.remove(&input.id)
                {
                    on_grad(LeafId(input.id), grad);
                }
            }
        }
    }
}

fn accumulate(grads: &mut HashMap<u64, Tensor>, id: u64, grad: Option<Tensor>) {
    let Some(grad) = grad else { return };
    let sum = match grads.remove(&id) {
        Some(so_far) => grad.kernels().binary(Binary::Add, &so_far, &grad),
        None => grad,
    };
    grads.insert(id, sum);
}

/// How often each leaf below `root` is used.
fn count_uses(root: &Arc<Node>) -> HashMap<u64, usize> {
    let mut uses = HashMap::new();
    walk(root, &mut |leaf| *uses.entry(leaf.id).or_insert(0) += 1);
    uses
}

/// Calls `on_leaf` for every edge to a leaf below `root`.
fn walk(root: &Arc<Node>, on_leaf: &mut dyn FnMut(&Arc<Node>)) {
    let mut seen = HashSet::from([root.id]);
    let mut stack = vec![root.clone()];
    while let Some(node) = stack.pop() {
        for input in node.inputs.iter().flatten() {
            if input.leaf {
                on_leaf(input);
            } else if seen.insert(input.id) {
                stack.push(input.clone());
            }
        }
    }
}

/// Orders nodes by age, so that the heap gives the youngest first: no node before all that use it.
struct ById(Arc<Node>);

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
impl Eq for ById {}
impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ById {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

/// Computes `f(inputs)` without keeping what its ops would keep: the way back computes it again.
///
/// Leaves that `f` uses besides `inputs` (a block's own parameters) get their gradients too.
/// `f` must give the same result both times, and captures no tensor that was computed from a leaf:
/// such a tensor belongs into `inputs`.
pub fn checkpoint(f: impl Fn(&[Tensor]) -> Tensor + Send + 'static, inputs: &[Tensor]) -> Tensor {
    // Cut off: a closure that held its inputs' nodes would make their drop recursive.
    let kept: Vec<_> = inputs.iter().map(|t| (t.detach(), t.requires_grad())).collect();
    let run = move || {
        let fresh = |(t, trains): &(Tensor, bool)| if *trains { t.clone().var() } else { t.clone() };
        let vars: Vec<Tensor> = kept.iter().map(fresh).collect();
        let y = f(&vars);
        (vars, y)
    };
    let (vars, y) = run();
    let Some(root) = y.node.clone() else { return y };
    let mut leaves: Vec<Arc<Node>> = Vec::new();
    let mut seen: HashSet<u64> = vars.iter().filter_map(|v| v.node.as_ref()).map(|n| n.id).collect();
    walk(&root, &mut |leaf| {
        if seen.insert(leaf.id) {
            leaves.push(leaf.clone());
        }
    });
    leaves.sort_by_key(|leaf| leaf.id);
    let output = y.detach();
    drop((y, root));
    let mut nodes: Vec<_> = inputs.iter().map(|t| t.node.clone()).collect();
    nodes.extend(leaves.iter().cloned().map(Some));
    let backward: Backward<Tensor> = Box::new(move |dy| {
        let (vars, y) = run();
        let mut grads = HashMap::new();
        y.backward_with(dy.clone(), &mut |leaf, grad| {
            grads.insert(leaf.0, grad);
        });
        let ids = vars.iter().map(|v| v.node.as_ref().map(|n| n.id));
        let ids = ids.chain(leaves.iter().map(|leaf| Some(leaf.id)));
        ids.map(|id| id.and_then(|id| grads.remove(&id))).collect()
    });
    output.with_node(Some(Node::op(nodes, backward)))
}
