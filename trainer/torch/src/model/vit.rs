//! Vision transformer, Dosovitskiy et al. 2021: patches, learned positions, pre-norm blocks, mean over the patches.
//!
//! Deliberately absent: a class token; the mean over the patches does as well in small models (Beyer et al. 2022).

use tch::Tensor;

use super::initial::Initializer;
use super::input::{Input, pictures};
use super::{Forward, Model, Named, Scores};
use crate::error::Result;

const NORM_EPSILON: f64 = 1e-6;
const DEVIATION: f64 = 0.02;

/// Sizes of the transformer.
pub(super) struct Shape {
    layers: i64,
    heads: i64,
    width: i64,
    patch: i64,
    side: i64,
    classes: i64,
}

impl Shape {
    pub(super) fn new(layers: u32, heads: u32, width: u32, patch: u32, side: u32, classes: i64) -> Self {
        let [layers, heads, width, patch, side] = [layers, heads, width, patch, side].map(i64::from);
        Self { layers, heads, width, patch, side, classes }
    }
}

pub(super) struct Vit {
    shape: Shape,
    parameters: Vec<Named>,
    patches: Affine,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Affine,
    head: Affine,
}

/// A weight and a bias: of a linear map, a convolution or a norm.
struct Affine {
    weight: Tensor,
    bias: Tensor,
}

struct Block {
    attention_norm: Affine,
    query_key_value: Affine,
    attention_out: Affine,
    mlp_norm: Affine,
    up: Affine,
    down: Affine,
}

impl Vit {
    pub(super) fn new(shape: Shape, mut initial: Initializer) -> Self {
        let Shape { layers, width, patch, side, classes, .. } = shape;
        let fan_in = (1.0 / (3 * patch * patch) as f64).sqrt();
        let patches = Affine::normal(&mut initial, "patches", &[width, 3, patch, patch], fan_in);
        let positions = initial.normal("positions", &[(side / patch) * (side / patch), width], DEVIATION);
        let blocks = (0..layers).map(|index| Block::new(&mut initial, index, &shape)).collect();
        let norm = Affine::norm(&mut initial, "norm", width);
        let head = Affine::normal(&mut initial, "head", &[classes, width], DEVIATION);
        Self { shape, parameters: initial.into_parameters(), patches, positions, blocks, norm, head }
    }

    fn logits(&self, pixels: &Tensor) -> Tensor {
        let patch = [self.shape.patch; 2];
        let patches = pixels.conv2d(&self.patches.weight, Some(&self.patches.bias), patch, [0, 0], [1, 1], 1);
        let mut stream = patches.flatten(2, 3).transpose(1, 2) + &self.positions;
        for block in &self.blocks {
            stream = block.forward(&stream, &self.shape);
        }
        self.head.map(&self.norm.normalise(&stream).mean_dim([1].as_slice(), false, None))
    }
}

impl Model for Vit {
    fn parameters(&self) -> &[Named] {
        &self.parameters
    }

    fn buffers(&self) -> &[Named] {
        &[]
    }

    fn loss(&self, input: &Input) -> Result<Forward> {
        let (pixels, labels) = pictures(input, self.shape.side)?;
        let loss = self.logits(&pixels).cross_entropy_loss::<&Tensor>(labels, None, tch::Reduction::Mean, -100, 0.0);
        Ok(Forward { loss, statistics: None })
    }

    fn score(&self, input: &Input) -> Result<Scores> {
        let _guard = tch::no_grad_guard();
        let (pixels, labels) = pictures(input, self.shape.side)?;
        Ok(super::score(&self.logits(&pixels), labels, labels.numel() as u64))
    }

    fn blank(&self) -> Input {
        Input::blank_images(self.shape.side)
    }
}

impl Block {
    fn new(initial: &mut Initializer, index: i64, shape: &Shape) -> Self {
        let width = shape.width;
        let residual = DEVIATION / (2.0 * shape.layers as f64).sqrt();
        let name = |part: &str| format!("blocks.{index}.{part}");
        Self {
            attention_norm: Affine::norm(initial, &name("attention_norm"), width),
            query_key_value: Affine::normal(initial, &name("query_key_value"), &[3 * width, width], DEVIATION),
            attention_out: Affine::normal(initial, &name("attention_out"), &[width, width], residual),
            mlp_norm: Affine::norm(initial, &name("mlp_norm"), width),
            up: Affine::normal(initial, &name("up"), &[4 * width, width], DEVIATION),
            down: Affine::normal(initial, &name("down"), &[width, 4 * width], residual),
        }
    }

    fn forward(&self, stream: &Tensor, shape: &Shape) -> Tensor {
        let attended = stream + self.attend(&self.attention_norm.normalise(stream), shape);
        let inner = self.up.map(&self.mlp_norm.normalise(&attended)).gelu("none");
        &attended + self.down.map(&inner)
    }

    fn attend(&self, normed: &Tensor, shape: &Shape) -> Tensor {
        let (samples, tokens) = (normed.size()[0], normed.size()[1]);
        let heads: Vec<Tensor> = self
            .query_key_value
            .map(normed)
            .chunk(3, -1)
            .iter()
            .map(|part| part.view([samples, tokens, shape.heads, -1]).transpose(1, 2))
            .collect();
        let mixed = Tensor::scaled_dot_product_attention::<&Tensor>(&heads[0], &heads[1], &heads[2], None, 0.0, false, None, false);
        self.attention_out.map(&mixed.transpose(1, 2).reshape([samples, tokens, shape.width]))
    }
}

impl Affine {
    fn normal(initial: &mut Initializer, name: &str, shape: &[i64], deviation: f64) -> Self {
        let weight = initial.normal(format!("{name}.weight"), shape, deviation);
        Self { weight, bias: initial.constant(format!("{name}.bias"), &shape[..1], 0.0) }
    }

    fn norm(initial: &mut Initializer, name: &str, width: i64) -> Self {
        let weight = initial.constant(format!("{name}.weight"), &[width], 1.0);
        Self { weight, bias: initial.constant(format!("{name}.bias"), &[width], 0.0) }
    }

    fn map(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }

    fn normalise(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), NORM_EPSILON, false)
    }
}
