//! Weights and optimizer state as safetensors, and back.
//!
//! Promises: a snapshot is one copy in memory, taken between two steps; encoding and hashing it is left to another thread.
//! What is read is checked whole before a weight changes: names, types, shapes; a surplus or a missing tensor is `Corrupt`.
//! Deliberately absent: publishing; the commit rule is the store's and the right to use it is the coordinator's to give.

#[cfg(test)]
mod tests;
pub(crate) mod writer;

use bytes::Bytes;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest as _, Sha256};
use tch::{Kind as Scalar, Tensor};

use crate::engine::Engine;
use crate::error::{Error, Kind, Result, of_libtorch};
use crate::model::Named;

/// A copy of everything that a run needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    model: Vec<Stored>,
    optimizer: Vec<Stored>,
}

/// A snapshot as the objects of a checkpoint.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Weights and buffers, safetensors.
    pub model: Bytes,
    /// Optimizer state, safetensors.
    pub optimizer: Bytes,
    /// What [`forebay_schemas::checkpoint::CheckpointManifest::weights_sha256`] says.
    pub weights_sha256: String,
}

#[derive(Clone, Debug, PartialEq)]
struct Stored {
    name: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Snapshot {
    /// Copies weights, buffers and optimizer state.
    pub fn take(engine: &Engine) -> Result<Self> {
        Ok(Self { model: copy(&engine.weights())?, optimizer: copy(&engine.optimizer_state())? })
    }

    /// The objects of the checkpoint. Takes time in proportion to the size of the state.
    pub fn encode(&self) -> Result<Encoded> {
        Ok(Encoded { model: serialize(&self.model)?, optimizer: serialize(&self.optimizer)?, weights_sha256: self.weights_sha256() })
    }

    /// SHA-256 over the weights in name order. For each: length of the name, name, number of dimensions, dimensions, values;
    /// numbers as 64 bits and values as 32-bit floats, little-endian.
    pub fn weights_sha256(&self) -> String {
        let mut sorted: Vec<&Stored> = self.model.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hasher = Sha256::new();
        for tensor in sorted {
            hasher.update((tensor.name.len() as u64).to_le_bytes());
            hasher.update(&tensor.name);
            hasher.update((tensor.shape.len() as u64).to_le_bytes());
            tensor.shape.iter().for_each(|&size| hasher.update((size as u64).to_le_bytes()));
            hasher.update(&tensor.bytes);
        }
        format!("{:x}", hasher.finalize())
    }
}

/// Reads safetensors into `tensors`, which must be exactly what `bytes` holds; `name` names the object in errors.
pub fn load(tensors: &[Named], bytes: &[u8], name: &str) -> Result<()> {
    let corrupt = |message: String| Error::new(Kind::Corrupt, format!("object `{name}`: {message}"));
    let stored = SafeTensors::deserialize(bytes)
        .map_err(|error| Error::with_source(Kind::Corrupt, format!("object `{name}`: not a whole safetensors file"), error))?;
    if stored.len() != tensors.len() {
        return Err(corrupt(format!("found {} tensors, expected {}", stored.len(), tensors.len())));
    }
    let mut found = Vec::with_capacity(tensors.len());
    for (key, tensor) in tensors {
        let view = stored.tensor(key).map_err(|_| corrupt(format!("found no tensor `{key}`")))?;
        let expected = tensor.size();
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        if view.dtype() != Dtype::F32 || shape != expected {
            return Err(corrupt(format!("tensor `{key}`: found {:?} {shape:?}, expected F32 {expected:?}", view.dtype())));
        }
        found.push(Tensor::f_from_data_size(view.data(), &shape, Scalar::Float).map_err(of_libtorch)?);
    }
    let _guard = tch::no_grad_guard();
    for ((_, tensor), found) in tensors.iter().zip(&found) {
        tensor.shallow_clone().f_copy_(found).map_err(of_libtorch)?;
    }
    Ok(())
}

fn copy(tensors: &[Named]) -> Result<Vec<Stored>> {
    tensors
        .iter()
        .map(|(name, tensor)| {
            let tensor = tensor.f_contiguous().map_err(of_libtorch)?;
            let mut bytes = vec![0; tensor.numel() * size_of::<f32>()];
            tensor.f_copy_data_u8(&mut bytes, tensor.numel()).map_err(of_libtorch)?;
            Ok(Stored { name: name.clone(), shape: tensor.size().iter().map(|&size| size as usize).collect(), bytes })
        })
        .collect()
}

fn serialize(tensors: &[Stored]) -> Result<Bytes> {
    let failed = |error| Error::with_source(Kind::Internal, "safetensors", error);
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|tensor| Ok((tensor.name.as_str(), TensorView::new(Dtype::F32, tensor.shape.clone(), &tensor.bytes).map_err(failed)?)))
        .collect::<Result<_>>()?;
    safetensors::serialize(views, &None).map(Bytes::from).map_err(failed)
}
