//! Pixels to a file's bytes.

use std::ffi::c_int;

use turbojpeg_sys as sys;

use crate::error::{Error, Result};
use crate::handle::Handle;

/// What a row of pixels is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// One byte a pixel.
    Grey,
    /// Three bytes a pixel.
    Rgb,
}

/// How finely colour is stored beside brightness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chroma {
    /// For every pixel (4:4:4).
    Full,
    /// For every second one of a row (4:2:2).
    HalfWide,
    /// For the mean of every two by two (4:2:0), as most files are.
    Half,
}

/// Encodes baseline JPEG; keeps its working memory, so have one a thread.
pub struct Encoder {
    handle: Handle,
}

impl Encoder {
    /// Fails where there is no memory for it.
    pub fn new() -> Result<Self> {
        Ok(Self { handle: Handle::new(sys::TJINIT_TJINIT_COMPRESS)? })
    }

    /// A file of `width` × `height` pixels, rows from the top without gaps, with a colour profile (ICC) where there is one.
    ///
    /// `quality` is libjpeg's, from 1 to 100. Fails where a side is 0 or above 65,500, or `samples` is of another length.
    pub fn encode(
        &mut self,
        samples: &[u8],
        pixels: Pixels,
        (width, height): (u32, u32),
        quality: u8,
        chroma: Chroma,
        profile: Option<&[u8]>,
    ) -> Result<Vec<u8>> {
        let (channels, format, sampling) = match (pixels, chroma) {
            (Pixels::Grey, _) => (1, sys::TJPF_TJPF_GRAY, sys::TJSAMP_TJSAMP_GRAY),
            (Pixels::Rgb, Chroma::Full) => (3, sys::TJPF_TJPF_RGB, sys::TJSAMP_TJSAMP_444),
            (Pixels::Rgb, Chroma::HalfWide) => (3, sys::TJPF_TJPF_RGB, sys::TJSAMP_TJSAMP_422),
            (Pixels::Rgb, Chroma::Half) => (3, sys::TJPF_TJPF_RGB, sys::TJSAMP_TJSAMP_420),
        };
        if samples.len() as u64 != u64::from(width) * u64::from(height) * channels {
            return Err(Error::Usage(format!("{} bytes for {width} × {height} pixels of {channels}", samples.len())));
        }
        let side = |side: u32| c_int::try_from(side).map_err(|_| Error::Usage(format!("a side of {side} pixels")));
        let (width, height) = (side(width)?, side(height)?);
        self.handle.set(sys::TJPARAM_TJPARAM_QUALITY, c_int::from(quality.clamp(1, 100)))?;
        self.handle.set(sys::TJPARAM_TJPARAM_SUBSAMP, sampling as c_int)?;
        let profile = profile.unwrap_or_default();
        let address = if profile.is_empty() { std::ptr::null_mut() } else { profile.as_ptr().cast_mut() };
        // SAFETY: the library copies the profile and does not write to it; null and 0 take an earlier one away.
        self.handle.must(unsafe { sys::tj3SetICCProfile(self.handle.raw(), address, profile.len() as u64) })?;
        let (mut file, mut length) = (std::ptr::null_mut(), 0);
        // SAFETY: `samples` has the length that width, height and format say (a pitch of 0: rows without gaps) and is only
        // read. The library allocates the file; it is ours to free, whether the call succeeded or not.
        unsafe {
            let code = sys::tj3Compress8(self.handle.raw(), samples.as_ptr(), width, 0, height, format as c_int, &mut file, &mut length);
            let outcome = self.handle.must(code);
            let bytes = if file.is_null() { Vec::new() } else { std::slice::from_raw_parts(file, length as usize).to_vec() };
            sys::tj3Free(file.cast());
            outcome.map(|()| bytes)
        }
    }
}
