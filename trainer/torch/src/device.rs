//! The device that a replica computes on.
//!
//! Deliberately absent: several devices in one process. A host with N GPUs runs N replicas, so that each can die alone.

use forebay_trainer::Wish;
use tch::{Cuda, Device};

use crate::error::{Error, Kind, Result};

/// The device that is wanted. Of several GPUs the replica at `place` of a host takes number `place` modulo their number.
///
/// `Invalid` if the GPU that is wanted is not there. Has to be called before any other use of libtorch.
pub fn choose(wish: Wish, place: usize) -> Result<Device> {
    if wish == Wish::Cpu {
        return Ok(Device::Cpu);
    }
    let loaded = forebay_c10d::load_cuda();
    let gpus = if loaded.is_ok() && Cuda::is_available() { usize::try_from(Cuda::device_count()).unwrap_or(0) } else { 0 };
    let number = match wish {
        Wish::Cuda(Some(number)) => number,
        _ => place % gpus.max(1),
    };
    match (wish, loaded) {
        _ if number < gpus => Ok(Device::Cuda(number)),
        (Wish::Auto, _) => Ok(Device::Cpu),
        (_, Err(error)) => {
            let message = format!("device {wish}: this libtorch is without GPUs, expected one set up by `FOREBAY_CUDA=1 make setup`");
            Err(Error::with_source(Kind::Invalid, message, error))
        }
        (_, Ok(())) => Err(Error::new(Kind::Invalid, format!("device {wish}: found {gpus} GPUs that libtorch can use"))),
    }
}

/// A device as people write it.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".to_owned(),
    }
}

/// The device of the tests: that of `FOREBAY_TEST_DEVICE`, the CPU without.
#[cfg(test)]
pub(crate) fn tested() -> Device {
    static DEVICE: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    *DEVICE.get_or_init(|| {
        let wish = std::env::var("FOREBAY_TEST_DEVICE").map_or(Wish::Cpu, |text| text.parse().expect("FOREBAY_TEST_DEVICE"));
        choose(wish, 0).expect("the device of the tests")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_is_named() {
        let error = choose(Wish::Cuda(Some(4000)), 0).expect_err("no host has so many");
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("cuda:4000"), "{error}");
    }
}
