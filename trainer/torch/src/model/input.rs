//! A micro-batch as tensors, checked once on the way in.
//!
//! Promises: ids and labels are in range and shapes fit, so no index into an embedding can be out of bounds later.

use forebay_c10d::upload;
use tch::{Device, Kind as Scalar, Tensor};

use crate::error::{Error, Kind, Result, of_libtorch};

/// A micro-batch.
pub enum Input {
    /// Token sequences.
    Tokens {
        /// Ids, `[samples, length + 1]`: inputs are the first `length` of a row, targets the last.
        ids: Tensor,
    },
    /// Pictures.
    Images {
        /// Normalised pixels, `[samples, 3, side, side]`.
        pixels: Tensor,
        /// Classes, `[samples]`.
        labels: Tensor,
    },
}

impl Input {
    /// Token sequences of `length` + 1 ids each, one after the other.
    pub fn tokens(ids: &[i64], vocabulary: i64, length: i64) -> Result<Self> {
        let row = length + 1;
        if ids.is_empty() || ids.len() as i64 % row != 0 {
            return Err(corrupt(format!("a micro-batch of {} token ids: expected a multiple of {row}", ids.len())));
        }
        if let Some(id) = ids.iter().find(|id| !(0..vocabulary).contains(*id)) {
            return Err(corrupt(format!("token id {id}: expected 0 to {}", vocabulary - 1)));
        }
        Ok(Self::Tokens { ids: Tensor::f_from_slice(ids).and_then(|ids| ids.f_view([-1, row])).map_err(of_libtorch)? })
    }

    /// Pictures of `side` × `side` pixels, one after the other, and their classes.
    pub fn images(pixels: &[f32], labels: &[i64], side: i64, classes: i64) -> Result<Self> {
        let expected = labels.len() as i64 * 3 * side * side;
        if labels.is_empty() || pixels.len() as i64 != expected {
            return Err(corrupt(format!("a micro-batch of {} pixel values: expected {expected} for its labels", pixels.len())));
        }
        if let Some(label) = labels.iter().find(|label| !(0..classes).contains(*label)) {
            return Err(corrupt(format!("label {label}: expected 0 to {}", classes - 1)));
        }
        let pixels = Tensor::f_from_slice(pixels).and_then(|pixels| pixels.f_view([-1, 3, side, side]));
        Ok(Self::Images { pixels: pixels.map_err(of_libtorch)?, labels: Tensor::f_from_slice(labels).map_err(of_libtorch)? })
    }

    /// The same on `device`.
    pub fn on(&self, device: Device) -> Result<Self> {
        let moved = |tensor: &Tensor| upload(tensor, device).map_err(|error| Error::with_source(Kind::Internal, "micro-batch", error));
        Ok(match self {
            Self::Tokens { ids } => Self::Tokens { ids: moved(ids)? },
            Self::Images { pixels, labels } => Self::Images { pixels: moved(pixels)?, labels: moved(labels)? },
        })
    }

    /// Samples in the micro-batch.
    pub fn samples(&self) -> i64 {
        match self {
            Self::Tokens { ids } => ids.size()[0],
            Self::Images { labels, .. } => labels.size()[0],
        }
    }

    /// One token row of zeros.
    pub(super) fn blank_tokens(length: i64) -> Self {
        Self::Tokens { ids: Tensor::zeros([1, length + 1], (Scalar::Int64, Device::Cpu)) }
    }

    /// Two black pictures: a batch norm needs more than one value a channel.
    pub(super) fn blank_images(side: i64) -> Self {
        let cpu = Device::Cpu;
        Self::Images { pixels: Tensor::zeros([2, 3, side, side], (Scalar::Float, cpu)), labels: Tensor::zeros([2], (Scalar::Int64, cpu)) }
    }
}

/// The ids of a text model's input.
pub(super) fn ids(input: &Input) -> Result<&Tensor> {
    match input {
        Input::Tokens { ids } => Ok(ids),
        Input::Images { .. } => Err(corrupt("a micro-batch of images: expected tokens".to_owned())),
    }
}

/// The pixels and labels of an image model's input; refuses another size.
pub(super) fn pictures(input: &Input, side: i64) -> Result<(&Tensor, &Tensor)> {
    let Input::Images { pixels, labels } = input else {
        return Err(corrupt("a micro-batch of tokens: expected images".to_owned()));
    };
    match pixels.size()[..] {
        [_, 3, height, width] if height == side && width == side => Ok((pixels, labels)),
        ref shape => Err(corrupt(format!("pixels of shape {shape:?}: expected [samples, 3, {side}, {side}]"))),
    }
}

fn corrupt(message: String) -> Error {
    Error::new(Kind::Corrupt, message)
}
