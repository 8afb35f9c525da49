//! The tape: what gets a gradient, how often, and when.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use calotype_tensor::{Tensor, checkpoint, ops};
use common::{close, gradients_for, noise};

fn leaf(seed: u32) -> Tensor {
    noise(&[3, 8], seed).var()
}

/// A checkpointed silu that counts how often it is computed.
fn counted(x: &Tensor) -> (Tensor, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let inner = count.clone();
    let f = move |x: &[Tensor]| {
        inner.fetch_add(1, Ordering::SeqCst);
        ops::silu(&x[0])
    };
    (checkpoint(f, std::slice::from_ref(x)), count)
}

/// A result that is used several times sums what comes back: d(x·x·x + x·x) = 3x² + 2x.
#[test]
fn uses_are_summed() {
    let x = leaf(1);
    let square = ops::mul(&x, &x);
    let y = ops::add(&ops::mul(&square, &x), &square);
    let gradients = y.backward();
    let want = x.to_vec().iter().map(|x| 3.0 * x * x + 2.0 * x).collect();
    close("dx", gradients.get(&x).unwrap(), &Tensor::from_vec(want, x.shape()), 1e-5);
}

/// Each leaf is delivered once, with its whole gradient, as soon as nothing more can be added: the
/// last layer's weight before the first layer is gone back through, a shared weight after both.
#[test]
fn leaves_are_delivered_once_and_early() {
    let (x, last, shared) = (leaf(1), leaf(2), leaf(3));
    let first = ops::mul(&x, &shared);
    let (middle, computed) = counted(&first);
    let y = ops::mul(&ops::mul(&middle, &shared), &last);
    let mut order = Vec::new();
    let seed = Tensor::full(y.shape(), 1.0, y.dtype());
    y.backward_with(seed, &mut |leaf, grad| order.push((leaf, grad, computed.load(Ordering::SeqCst))));
    let id = |leaf: &Tensor| leaf.leaf_id().unwrap();
    assert_eq!(order.len(), 3);
    assert_eq!((order[0].0, order[0].2), (id(&last), 1), "before the middle is computed again");
    let rest: Vec<_> = order[1..].iter().map(|entry| (entry.0, entry.2)).collect();
    assert!(rest.contains(&(id(&x), 2)) && rest.contains(&(id(&shared), 2)));

    // y = silu(x s) · s · last  →  dy/ds = last (silu(x s) + s x silu'(x s))
    let silu = |z: f32| z / (1.0 + (-z).exp());
    let silu_grad = |z: f32| (silu(z + 1e-3) - silu(z - 1e-3)) / 2e-3;
    let values = x.to_vec().into_iter().zip(shared.to_vec()).zip(last.to_vec());
    let want = values.map(|((x, s), last)| last * (silu(x * s) + s * x * silu_grad(x * s)));
    let (_, found, _) = order.iter().find(|entry| entry.0 == id(&shared)).unwrap();
    close("d shared", found, &Tensor::from_vec(want.collect(), x.shape()), 1e-3);
}

/// A checkpoint gives the gradients that the plain computation gives: of its inputs, one of them used twice
/// and one frozen, and of leaves that it captures, one of them an input as well; nested checkpoints too.
#[test]
fn checkpoint_equals_plain() {
    let (x, y, frozen, captured) = (leaf(1), leaf(2), noise(&[3, 8], 3), leaf(4));
    let block = |captured: Tensor, x: Tensor| {
        move |inputs: &[Tensor]| {
            let [a, b, c] = inputs else { unreachable!() };
            let inner = ops::mul(&ops::mul(a, &captured), &ops::silu(c));
            let nested = checkpoint(|i| ops::mul(&ops::silu(&i[0]), &i[0]), std::slice::from_ref(&inner));
            ops::add(&ops::mul(&nested, &ops::mul(a, b)), &ops::mul(&x, &captured))
        }
    };
    let inputs = || [ops::scale(&x, 2.0), y.clone(), frozen.clone()];
    let plain = block(captured.clone(), x.clone())(&inputs());
    let saved = checkpoint(block(captured.clone(), x.clone()), &inputs());
    close("result", &saved, &plain, 0.0);
    let [plain, saved] = [plain, saved].map(|t| gradients_for(&ops::silu(&t), noise(&[3, 8], 9)));
    for (name, leaf) in [("x", &x), ("y", &y), ("captured", &captured)] {
        close(name, saved.get(leaf).unwrap(), plain.get(leaf).unwrap(), 1e-6);
    }
}

/// A checkpoint of frozen inputs and no captured leaf records nothing.
#[test]
fn checkpoint_of_frozen_inputs_is_frozen() {
    let (y, computed) = counted(&noise(&[3, 8], 1));
    assert!(!y.requires_grad());
    assert_eq!(computed.load(Ordering::SeqCst), 1);
}

/// What comes before the first trainable parameter is not gone back through, and has no gradient.
#[test]
fn a_frozen_prefix_is_not_walked() {
    let (frozen, weight) = (noise(&[3, 8], 1), leaf(2));
    let (prefix, computed) = counted(&frozen);
    assert!(!prefix.requires_grad());
    let y = ops::concat(&[&ops::mul(&prefix, &weight), &prefix]);
    let gradients = y.backward();
    assert_eq!(computed.load(Ordering::SeqCst), 1, "computed forward only");
    close("dw", gradients.get(&weight).unwrap(), &prefix, 1e-6);
    assert!(gradients.get(&frozen).is_none() && gradients.get(&prefix).is_none());
}

/// A leaf that the result does not depend on has no gradient; one behind `detach` neither.
#[test]
fn unused_and_detached_leaves_have_none() {
    let (x, cut, unused) = (leaf(1), leaf(2), leaf(3));
    let gradients = ops::mul(&x, &ops::silu(&cut).detach()).backward();
    assert!(gradients.get(&x).is_some());
    assert!(gradients.get(&cut).is_none() && gradients.get(&unused).is_none());
}

/// A leaf's own gradient is the seed.
#[test]
fn a_leaf_is_its_own_gradient() {
    let x = leaf(1);
    close("dx", x.backward().get(&x).unwrap(), &Tensor::full(&[3, 8], 1.0, x.dtype()), 0.0);
}

/// A chain of 100,000 ops, plain or of checkpoints, is dropped and gone back through without recursion.
#[test]
fn a_deep_chain_does_not_overflow_the_stack() {
    let chain = |link: fn(&Tensor) -> Tensor| {
        let x = Tensor::full(&[1], 1.0, calotype_tensor::DType::F32).var();
        let y = (0..100_000).fold(x.clone(), |y, _| link(&y));
        (x, y)
    };
    let scale: fn(&Tensor) -> Tensor = |x| ops::scale(x, 1.0);
    let saved: fn(&Tensor) -> Tensor = |x| checkpoint(|x| ops::scale(&x[0], 1.0), std::slice::from_ref(x));
    let run = move || {
        for link in [scale, saved] {
            drop(chain(link));
            let (x, y) = chain(link);
            assert_eq!(y.backward().get(&x).unwrap().to_vec(), [1.0]);
        }
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
}

/// All of the above with every instruction set of this CPU.
#[test]
fn every_isa() {
    common::rerun_for_every_isa("every_isa");
}
