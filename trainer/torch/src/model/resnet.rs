//! Residual networks, He et al. 2016: depth 18 in the ImageNet shape, depth 20 in the CIFAR shape.
//!
//! Shortcuts that change the shape are 1 × 1 convolutions; the last norm of a block starts at zero, so that blocks start as
//! the identity (Goyal et al. 2017). Convolutions start as He et al. 2015 with fan-out.

use tch::Tensor;

use super::batch_norm::{BatchNorm, Statistics};
use super::initial::Initializer;
use super::input::{Input, pictures};
use super::{Forward, Model, Named, Scores};
use crate::error::Result;

pub(super) struct Resnet {
    side: i64,
    parameters: Vec<Named>,
    buffers: Vec<Named>,
    stem: Unit,
    /// Whether the stem is followed by a 3 × 3 maximum pooling of stride 2.
    pooled: bool,
    blocks: Vec<Block>,
    weight: Tensor,
    bias: Tensor,
}

/// A convolution and its norm.
struct Unit {
    weight: Tensor,
    stride: i64,
    norm: BatchNorm,
}

struct Block {
    first: Unit,
    second: Unit,
    shortcut: Option<Unit>,
}

/// Collects a network's tensors while it is built.
struct Builder {
    initial: Initializer,
    buffers: Vec<Named>,
}

impl Resnet {
    pub(super) fn new(depth: u32, side: i64, classes: i64, initial: Initializer) -> Self {
        let (widths, blocks_each, stem_kernel, pooled): (&[i64], usize, i64, bool) =
            if depth == 18 { (&[64, 128, 256, 512], 2, 7, true) } else { (&[16, 32, 64], 3, 3, false) };
        let mut builder = Builder { initial, buffers: Vec::new() };
        let stem = builder.unit("stem", [3, widths[0]], stem_kernel, if pooled { 2 } else { 1 }, 1.0);
        let mut blocks = Vec::new();
        let mut channels = widths[0];
        for (stage, &width) in widths.iter().enumerate() {
            for index in 0..blocks_each {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                blocks.push(builder.block(&format!("stages.{stage}.{index}"), [channels, width], stride));
                channels = width;
            }
        }
        let weight = builder.initial.normal("head.weight", &[classes, channels], 0.01);
        let bias = builder.initial.constant("head.bias", &[classes], 0.0);
        let parameters = builder.initial.into_parameters();
        Self { side, parameters, buffers: builder.buffers, stem, pooled, blocks, weight, bias }
    }

    fn logits(&self, pixels: &Tensor, mut statistics: Option<&mut Statistics>) -> Tensor {
        // Channels last in memory: convolutions need no reordering then, a quarter less time on a CPU. Wide layers have more weights
        // to reorder than that saves.
        let pixels = if self.pooled { pixels.shallow_clone() } else { pixels.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]) };
        let mut x = self.stem.forward(&pixels, statistics.as_deref_mut()).relu_();
        if self.pooled {
            x = x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        }
        for block in &self.blocks {
            x = block.forward(&x, statistics.as_deref_mut());
        }
        x.mean_dim([2, 3].as_slice(), false, None).linear(&self.weight, Some(&self.bias))
    }
}

impl Model for Resnet {
    fn parameters(&self) -> &[Named] {
        &self.parameters
    }

    fn buffers(&self) -> &[Named] {
        &self.buffers
    }

    fn loss(&self, input: &Input) -> Result<Forward> {
        let (pixels, labels) = pictures(input, self.side)?;
        let mut statistics = Statistics::default();
        let logits = self.logits(&pixels, Some(&mut statistics));
        let loss = logits.cross_entropy_loss::<&Tensor>(labels, None, tch::Reduction::Mean, -100, 0.0);
        Ok(Forward { loss, statistics: Some(statistics.flat()) })
    }

    fn score(&self, input: &Input) -> Result<Scores> {
        let _guard = tch::no_grad_guard();
        let (pixels, labels) = pictures(input, self.side)?;
        Ok(super::score(&self.logits(&pixels, None), labels, labels.numel() as u64))
    }

    fn blank(&self) -> Input {
        Input::blank_images(self.side)
    }
}

impl Unit {
    fn forward(&self, x: &Tensor, statistics: Option<&mut Statistics>) -> Tensor {
        let shape = self.weight.size();
        let padding = shape[2] / 2;
        // Through two dimensions and back, so that the gradient of a 1 × 1 kernel has the strides of its bucket, not the
        // equally valid ones of channels last, which the reducer would warn about.
        let weight = if padding == 0 { self.weight.flatten(1, -1).view(&shape[..]) } else { self.weight.shallow_clone() };
        let x = x.conv2d::<&Tensor>(&weight, None, [self.stride; 2], [padding; 2], [1, 1], 1);
        self.norm.forward(&x, statistics)
    }
}

impl Block {
    fn forward(&self, x: &Tensor, mut statistics: Option<&mut Statistics>) -> Tensor {
        let inner = self.first.forward(x, statistics.as_deref_mut()).relu_();
        let mut outer = self.second.forward(&inner, statistics.as_deref_mut());
        outer += match &self.shortcut {
            Some(shortcut) => shortcut.forward(x, statistics),
            None => x.shallow_clone(),
        };
        outer.relu_()
    }
}

impl Builder {
    fn unit(&mut self, name: &str, [from, to]: [i64; 2], kernel: i64, stride: i64, scale: f64) -> Unit {
        let deviation = (2.0 / (to * kernel * kernel) as f64).sqrt();
        let weight = self.initial.normal(format!("{name}.convolution.weight"), &[to, from, kernel, kernel], deviation);
        let norm = BatchNorm::new(&mut self.initial, &mut self.buffers, &format!("{name}.norm"), to, scale);
        Unit { weight, stride, norm }
    }

    fn block(&mut self, name: &str, [from, to]: [i64; 2], stride: i64) -> Block {
        let first = self.unit(&format!("{name}.first"), [from, to], 3, stride, 1.0);
        let second = self.unit(&format!("{name}.second"), [to, to], 3, 1, 0.0);
        let reshapes = stride != 1 || from != to;
        let shortcut = reshapes.then(|| self.unit(&format!("{name}.shortcut"), [from, to], 1, stride, 1.0));
        Block { first, second, shortcut }
    }
}
