//! Reduction in a fixed tree over the micro-batches: the same bits whatever the number of replicas and their history.
//!
//! A replica keeps the values of the tree's nodes that its micro-batches make up. To sum, the gradient is cut into one chunk a
//! replica: each gets its chunk of everybody's nodes, adds them up the tree, and sends the root's chunk to all. That moves
//! what a ring would, where shares are aligned subtrees, and at most twice the logarithm of a share times that where not.
//! Deliberately absent: overlap with backward. The price of strictness is that the sum begins when the last gradient is there.

use std::slice;
use std::time::{Duration, Instant};

use forebay_c10d::{ProcessGroup, clear_gradients};
use tch::{Device, Kind as Scalar, Tensor};

use super::tree::{Node, Tree, cover};
use super::{Reduction, broken, device_of, flat, unavailable};
use crate::error::{Error, Kind, Result, of_libtorch};

/// See the module.
#[derive(Debug)]
pub struct Strict {
    parameters: Vec<Tensor>,
    /// Values beside a gradient, which follow it in a node.
    shares: i64,
    micro_batches: u32,
    held: Vec<u32>,
    nodes: Tree<Tensor>,
    group: Option<ProcessGroup>,
    exposed: Duration,
}

impl Strict {
    /// For `parameters`, which all replicas give in the same order, `shares` values beside the gradients, and so many
    /// micro-batches a step.
    pub fn new(parameters: Vec<Tensor>, shares: i64, micro_batches: u32) -> Self {
        let nodes = Tree::new(micro_batches);
        Self { parameters, shares, micro_batches, held: Vec::new(), nodes, group: None, exposed: Duration::ZERO }
    }

    /// Elements of a node.
    fn length(&self) -> i64 {
        self.parameters.iter().map(|parameter| parameter.numel() as i64).sum::<i64>() + self.shares
    }

    /// The nodes that each rank holds. `Internal` unless every micro-batch is held once.
    fn layout(&self, group: &ProcessGroup) -> Result<Vec<Vec<Node>>> {
        // For every micro-batch: by how many it is held, and the sum of their ranks.
        let claims = Tensor::zeros([2, i64::from(self.micro_batches)], (Scalar::Int64, Device::Cpu));
        for &index in &self.held {
            claims.narrow(1, i64::from(index), 1).copy_(&Tensor::from_slice(&[1, group.rank() as i64]).view([2, 1]));
        }
        group.all_reduce_sum(slice::from_ref(&claims)).map_err(unavailable)?;
        let (held, owners) = (values(&claims.get(0))?, values(&claims.get(1))?);
        if let Some(index) = held.iter().position(|&count| count != 1) {
            return Err(Error::new(Kind::Internal, format!("micro-batch {index} is held by {} replicas, expected 1", held[index])));
        }
        let of =
            |rank: usize| (0..self.micro_batches).zip(&owners).filter(move |&(_, &owner)| owner == rank as i64).map(|(index, _)| index);
        Ok((0..group.world()).map(|rank| cover(self.micro_batches, of(rank))).collect())
    }

    fn exchange(&self, group: &ProcessGroup) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let layout = self.layout(group)?;
        let (world, rank, length) = (group.world(), group.rank(), self.length());
        let bound = |chunk: usize| chunk as i64 * length / world as i64;
        let size = |chunk: usize| bound(chunk + 1) - bound(chunk);
        let mine: Vec<&Tensor> = self.nodes.nodes().map(|(_, value)| value).collect();
        let cut = |chunk: usize| mine.iter().map(move |node| node.narrow(0, bound(chunk), size(chunk)));
        let device = device_of(&self.parameters);
        let empty = Tensor::zeros([0], (Scalar::Float, device));
        // Sums are made on the host: Gloo exchanges nothing else, and an addition has the same bits anywhere.
        let sent = Tensor::cat(&[empty].into_iter().chain((0..world).flat_map(cut)).collect::<Vec<_>>(), 0).to_device(Device::Cpu);
        let counts: Vec<i64> = (0..world).map(|chunk| mine.len() as i64 * size(chunk)).collect();
        let expected: Vec<i64> = layout.iter().map(|nodes| nodes.len() as i64 * size(rank)).collect();
        let chunks = group.all_to_all(&sent, &counts, &expected).map_err(unavailable)?;

        let mut tree = Tree::new(self.micro_batches);
        for (position, &node) in layout.iter().flatten().enumerate() {
            tree.insert(node, chunks.narrow(0, position as i64 * size(rank), size(rank)), &mut add);
        }
        let root = tree.root().ok_or_else(|| Error::new(Kind::Internal, "a step whose micro-batches are not all there"))?;
        let copies = Tensor::cat(&vec![root; world], 0);
        let sizes: Vec<i64> = (0..world).map(size).collect();
        Ok(group.all_to_all(&copies, &vec![size(rank); world], &sizes).map_err(unavailable)?.to_device(device))
    }
}

impl Reduction for Strict {
    fn attach(&mut self, group: Option<ProcessGroup>) -> Result<()> {
        self.group = group;
        Ok(())
    }

    fn detach(&mut self) -> Option<ProcessGroup> {
        self.group.take()
    }

    fn begin(&mut self, _overlap: bool) -> Result<bool> {
        Ok(false)
    }

    fn before_backward(&mut self, _last: bool) -> Result<()> {
        clear_gradients(&self.parameters).map_err(broken)
    }

    fn add(&mut self, index: u32, shares: &Tensor) -> Result<()> {
        let leaf = flat::flatten(&self.parameters, shares);
        self.nodes.insert((0, index), leaf, &mut add);
        self.held.push(index);
        Ok(())
    }

    fn sum(&mut self) -> Result<Tensor> {
        let started = Instant::now();
        let root = match &self.group {
            Some(group) => self.exchange(group)?,
            // A copy, because clipping scales in place what must stay until the step counts.
            None => {
                self.nodes.root().map(Tensor::copy).ok_or_else(|| Error::new(Kind::Internal, "a step without all its micro-batches"))?
            }
        };
        self.exposed = started.elapsed();
        Ok(flat::unflatten(&self.parameters, &root)?.to_kind(Scalar::Double))
    }

    fn take_back(&mut self) -> Result<()> {
        clear_gradients(&self.parameters).map_err(broken)
    }

    fn clear(&mut self) -> Result<()> {
        self.held.clear();
        self.nodes.clear();
        clear_gradients(&self.parameters).map_err(broken)
    }

    fn exposed(&self) -> Duration {
        self.exposed
    }
}

fn values(tensor: &Tensor) -> Result<Vec<i64>> {
    Vec::try_from(tensor).map_err(of_libtorch)
}

/// Adds the right value to the left one; IEEE addition, so in the same order the same bits.
fn add(left: &mut Tensor, right: Tensor) {
    let _guard = tch::no_grad_guard();
    let _ = left.g_add_(&right);
}
