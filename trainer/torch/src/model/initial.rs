//! Initial weights, drawn by (seed, name) on the CPU.
//!
//! Promises: a parameter's values depend on the seed, its name and its shape alone; not on the order of construction, nor
//! on what was drawn before.

use std::sync::{Mutex, PoisonError};

use forebay_schemas::id::Digest;
use tch::{Device, Kind, Tensor};

use super::Named;

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// libtorch's generator is one for the whole process: whoever seeds it draws before anybody else does.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Collects the parameters of a model in their order of construction.
pub(super) struct Initializer {
    seed: u64,
    device: Device,
    parameters: Vec<Named>,
}

impl Initializer {
    /// For a model on `device`; the values are drawn on the CPU, so they are the same on every device.
    pub(super) fn new(seed: u64, device: Device) -> Self {
        Self { seed, device, parameters: Vec::new() }
    }

    pub(super) fn device(&self) -> Device {
        self.device
    }

    /// A parameter drawn from N(0, deviation²).
    pub(super) fn normal(&mut self, name: impl Into<String>, shape: &[i64], deviation: f64) -> Tensor {
        let name = name.into();
        let draw = Digest::of_parts([&self.seed.to_le_bytes()[..], name.as_bytes()]).as_u64();
        let values = {
            let _held = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
            tch::manual_seed(draw as i64);
            Tensor::empty(shape, F32).normal_(0.0, deviation)
        };
        self.register(name, values)
    }

    /// A parameter of equal values.
    pub(super) fn constant(&mut self, name: impl Into<String>, shape: &[i64], value: f64) -> Tensor {
        self.register(name.into(), Tensor::full(shape, value, F32))
    }

    pub(super) fn into_parameters(self) -> Vec<Named> {
        self.parameters
    }

    fn register(&mut self, name: String, values: Tensor) -> Tensor {
        let values = values.to_device(self.device).set_requires_grad(true);
        self.parameters.push((name, values.shallow_clone()));
        values
    }
}
