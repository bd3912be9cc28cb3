//! Decoder-only transformer: RMSNorm, rotary positions, causal attention, SwiGLU, tied embedding.
//!
//! Methods: Zhang and Sennrich 2019 (RMSNorm), Su et al. 2021 (rotary positions), Shazeer 2020 (SwiGLU), Press and Wolf
//! 2017 (tied embedding), Radford et al. 2019 (residual projections start scaled by 1/√(2 × layers)).
//! Attention is libtorch's fused kernel; queries and keys are rotated together by one complex product. Documents of one row are
//! kept apart by a mask and have positions of their own; rows of one document each need no mask, which is faster.
//! Deliberately absent: a cache of keys and values; generation is a demonstration here, not a service.

use tch::{Device, Kind as Scalar, Tensor};

use super::initial::Initializer;
use super::input::{Input, NO_TARGET, Packed, sequences};
use super::{Forward, Model, Named, Scores};
use crate::error::{Error, Kind, Result};

const NORM_EPSILON: f64 = 1e-5;
const ROTARY_BASE: f64 = 10_000.0;
const DEVIATION: f64 = 0.02;

/// Sizes of the transformer.
pub(super) struct Shape {
    layers: i64,
    heads: i64,
    width: i64,
    hidden: i64,
    vocabulary: i64,
    length: i64,
}

impl Shape {
    pub(super) fn new(layers: u32, heads: u32, width: u32, vocabulary: i64, length: i64) -> Self {
        // Two thirds of 4 × width, so that three matrices cost what two of the classic size do; a multiple that kernels like.
        let hidden = i64::from((width * 8).div_ceil(3).next_multiple_of(32));
        Self { layers: i64::from(layers), heads: i64::from(heads), width: i64::from(width), hidden, vocabulary, length }
    }

    fn head_width(&self) -> i64 {
        self.width / self.heads
    }
}

pub(super) struct Gpt {
    shape: Shape,
    parameters: Vec<Named>,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    /// e^(i × position × frequency), complex, `[length, 1, head width / 2]`.
    rotation: Tensor,
}

struct Block {
    attention_norm: Tensor,
    query_key_value: Tensor,
    attention_out: Tensor,
    mlp_norm: Tensor,
    gate_up: Tensor,
    down: Tensor,
}

impl Gpt {
    pub(super) fn new(shape: Shape, mut initial: Initializer) -> Self {
        let embedding = initial.normal("embedding.weight", &[shape.vocabulary, shape.width], DEVIATION);
        let blocks = (0..shape.layers).map(|index| Block::new(&mut initial, index, &shape)).collect();
        let norm = initial.constant("norm.weight", &[shape.width], 1.0);
        let rotation = rotation(shape.length, shape.head_width()).to_device(initial.device());
        Self { shape, parameters: initial.into_parameters(), embedding, blocks, norm, rotation }
    }

    /// The residual stream after the last norm, `[samples, tokens, width]`, for ids `[samples, tokens]`.
    fn hidden(&self, ids: &Tensor, packed: Option<&Packed>) -> Tensor {
        let tokens = ids.size()[1];
        let rotation = match packed {
            None => self.rotation.narrow(0, 0, tokens),
            Some(Packed { positions, .. }) => {
                self.rotation.index_select(0, &positions.view([-1])).view([-1, tokens, 1, self.shape.head_width() / 2])
            }
        };
        let mask = packed.map(Packed::mask);
        let mut stream = Tensor::embedding(&self.embedding, ids, -1, false, false);
        for block in &self.blocks {
            stream = block.forward(&stream, &rotation, mask.as_ref(), &self.shape);
        }
        stream.rms_norm([self.shape.width], Some(&self.norm), NORM_EPSILON)
    }

    /// Logits `[samples × length, vocabulary]`, their targets `[samples × length]`, and how many of these there are.
    fn predictions(&self, input: &Input) -> Result<(Tensor, Tensor, u64)> {
        let tokens = sequences(input)?;
        let length = tokens.length();
        if length != self.shape.length {
            let message = format!("token rows of {} ids: expected {}", length + 1, self.shape.length + 1);
            return Err(Error::new(Kind::Corrupt, message));
        }
        let logits = self.hidden(&tokens.ids(), tokens.packed.as_ref()).linear::<&Tensor>(&self.embedding, None);
        Ok((logits.view([-1, self.shape.vocabulary]), tokens.targets().reshape([-1]), tokens.counted))
    }
}

impl Model for Gpt {
    fn parameters(&self) -> &[Named] {
        &self.parameters
    }

    fn buffers(&self) -> &[Named] {
        &[]
    }

    fn loss(&self, input: &Input) -> Result<Forward> {
        let (logits, targets, counted) = self.predictions(input)?;
        // The mean over no target would be none; the sum is 0.
        let reduction = if counted > 0 { tch::Reduction::Mean } else { tch::Reduction::Sum };
        let loss = logits.cross_entropy_loss::<&Tensor>(&targets, None, reduction, NO_TARGET, 0.0);
        Ok(Forward { loss, statistics: None })
    }

    fn score(&self, input: &Input) -> Result<Scores> {
        let _guard = tch::no_grad_guard();
        let (logits, targets, counted) = self.predictions(input)?;
        Ok(super::score(&logits, &targets, counted))
    }

    fn next_token(&self, ids: &Tensor) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let length = self.shape.length;
        match ids.size()[..] {
            [1, tokens] if (1..=length).contains(&tokens) => {
                Ok(self.hidden(ids, None).select(1, tokens - 1).linear::<&Tensor>(&self.embedding, None).view([-1]))
            }
            ref shape => Err(Error::new(Kind::Invalid, format!("ids of shape {shape:?}: expected [1, 1 to {length}]"))),
        }
    }

    fn blank(&self) -> Input {
        Input::blank_tokens(self.shape.length)
    }
}

impl Block {
    fn new(initial: &mut Initializer, index: i64, shape: &Shape) -> Self {
        let Shape { width, hidden, layers, .. } = *shape;
        let residual = DEVIATION / (2.0 * layers as f64).sqrt();
        let name = |part: &str| format!("blocks.{index}.{part}.weight");
        Self {
            attention_norm: initial.constant(name("attention_norm"), &[width], 1.0),
            query_key_value: initial.normal(name("query_key_value"), &[3 * width, width], DEVIATION),
            attention_out: initial.normal(name("attention_out"), &[width, width], residual),
            mlp_norm: initial.constant(name("mlp_norm"), &[width], 1.0),
            gate_up: initial.normal(name("gate_up"), &[2 * hidden, width], DEVIATION),
            down: initial.normal(name("down"), &[width, hidden], residual),
        }
    }

    fn forward(&self, stream: &Tensor, rotation: &Tensor, mask: Option<&Tensor>, shape: &Shape) -> Tensor {
        let normed = stream.rms_norm([shape.width], Some(&self.attention_norm), NORM_EPSILON);
        let attended = stream + self.attend(&normed, rotation, mask, shape);
        let normed = attended.rms_norm([shape.width], Some(&self.mlp_norm), NORM_EPSILON);
        let gate_up = normed.linear::<&Tensor>(&self.gate_up, None).chunk(2, -1);
        &attended + (gate_up[0].silu() * &gate_up[1]).linear::<&Tensor>(&self.down, None)
    }

    fn attend(&self, normed: &Tensor, rotation: &Tensor, mask: Option<&Tensor>, shape: &Shape) -> Tensor {
        let (samples, tokens) = (normed.size()[0], normed.size()[1]);
        let (heads, head_width) = (shape.heads, shape.head_width());
        let projected = normed.linear::<&Tensor>(&self.query_key_value, None).split_with_sizes([2 * shape.width, shape.width], -1);
        // Queries and keys are 2 × heads of the same kind until they are rotated.
        let pairs = projected[0].view([samples, tokens, 2 * heads, head_width / 2, 2]).view_as_complex();
        let rotated = (pairs * rotation).view_as_real().view([samples, tokens, 2 * heads, head_width]).transpose(1, 2).chunk(2, 1);
        let values = projected[1].view([samples, tokens, heads, head_width]).transpose(1, 2);
        Tensor::scaled_dot_product_attention::<&Tensor>(&rotated[0], &rotated[1], &values, mask, 0.0, mask.is_none(), None, false)
            .transpose(1, 2)
            .reshape([samples, tokens, shape.width])
            .linear::<&Tensor>(&self.attention_out, None)
    }
}

fn rotation(length: i64, head_width: i64) -> Tensor {
    let cpu = (Scalar::Double, Device::Cpu);
    let exponents = Tensor::arange_start_step(0, head_width, 2, cpu) * (-ROTARY_BASE.ln() / head_width as f64);
    let angles = Tensor::arange(length, cpu).outer(&exponents.exp());
    Tensor::complex(&angles.cos(), &angles.sin()).to_kind(Scalar::ComplexFloat).unsqueeze(1)
}
