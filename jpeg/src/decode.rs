//! A file's bytes to pixels.

use std::ffi::c_int;

use turbojpeg_sys as sys;

use crate::error::{Error, Result};
use crate::handle::{Handle, Outcome};
use crate::header::{Header, Part, Rectangle, Space};

/// Real files have about ten; each is a pass over the whole picture.
const MAX_SCANS: c_int = 500;

/// Decodes; keeps its working memory, so have one a thread.
pub struct Decoder {
    handle: Handle,
    inks: Vec<u8>,
}

impl Decoder {
    /// A decoder that takes at most `memory` bytes of working memory for a picture, where there is a limit.
    ///
    /// Fails where there is no memory for it.
    pub fn new(memory: Option<u64>) -> Result<Self> {
        let mut handle = Handle::new(sys::TJINIT_TJINIT_DECOMPRESS)?;
        handle.set(sys::TJPARAM_TJPARAM_SCANLIMIT, MAX_SCANS)?;
        if let Some(bytes) = memory {
            handle.set(sys::TJPARAM_TJPARAM_MAXMEMORY, (bytes >> 20).clamp(1, c_int::MAX as u64) as c_int)?;
        }
        Ok(Self { handle, inks: Vec::new() })
    }

    /// Reads the header of a file.
    pub fn header(&mut self, file: &[u8]) -> Result<Header> {
        // SAFETY: the pointer and length are those of a slice, which is only read.
        let code = unsafe { sys::tj3DecompressHeader(self.handle.raw(), file.as_ptr(), file.len() as u64) };
        // A warning here is given again by decoding, which judges it.
        self.handle.outcome(code)?;
        let precision = self.handle.get(sys::TJPARAM_TJPARAM_PRECISION);
        if precision != 8 {
            return Err(Error::Unsupported(format!("{precision} bits a sample, expected 8")));
        }
        let space = match self.handle.get(sys::TJPARAM_TJPARAM_COLORSPACE) as sys::TJCS {
            sys::TJCS_TJCS_RGB => Space::Rgb,
            sys::TJCS_TJCS_YCbCr => Space::YCbCr,
            sys::TJCS_TJCS_GRAY => Space::Grey,
            sys::TJCS_TJCS_CMYK => Space::Cmyk,
            sys::TJCS_TJCS_YCCK => Space::Ycck,
            other => return Err(Error::Unsupported(format!("colours of kind {other}"))),
        };
        let side = |parameter| u32::try_from(self.handle.get(parameter)).unwrap_or_default();
        let lossless = self.handle.get(sys::TJPARAM_TJPARAM_LOSSLESS) == 1;
        let block = match self.handle.get(sys::TJPARAM_TJPARAM_SUBSAMP) {
            _ if lossless => None,
            sys::TJSAMP_TJSAMP_444 | sys::TJSAMP_TJSAMP_GRAY | sys::TJSAMP_TJSAMP_440 | sys::TJSAMP_TJSAMP_441 => Some(8),
            sys::TJSAMP_TJSAMP_422 | sys::TJSAMP_TJSAMP_420 => Some(16),
            sys::TJSAMP_TJSAMP_411 => Some(32),
            _ => None,
        };
        Ok(Header {
            width: side(sys::TJPARAM_TJPARAM_JPEGWIDTH),
            height: side(sys::TJPARAM_TJPARAM_JPEGHEIGHT),
            space,
            progressive: self.handle.get(sys::TJPARAM_TJPARAM_PROGRESSIVE) == 1,
            lossless,
            block,
        })
    }

    /// Decodes a part of a file into `rgb`, rows from the top, three bytes a pixel, [`Part::rgb_bytes`] in all.
    ///
    /// `header` must be of the same file. Inks are put on white paper. Damage in what comes before the end of the picture is
    /// an error even where pixels can be made up for it; stray bytes between markers, which many cameras leave, are not.
    pub fn decode(&mut self, file: &[u8], header: &Header, part: &Part, rgb: &mut [u8]) -> Result<()> {
        if rgb.len() != part.rgb_bytes() {
            return Err(Error::Usage(format!("a buffer of {} bytes, expected {}", rgb.len(), part.rgb_bytes())));
        }
        // What the instance knows of the picture may be of another one.
        let found = self.header(file)?;
        if found != *header {
            return Err(Error::Usage(format!("the header is {found:?}, expected {header:?}")));
        }
        let (width, height) = header.scaled(part.eighths);
        let within = |start: u32, length: u32, side: u32| length > 0 && start.checked_add(length).is_some_and(|end| end <= side);
        let region = part.decoded;
        if !within(region.left, region.width, width) || !within(region.top, region.height, height) {
            return Err(Error::Usage(format!("{region:?} is not within {width} × {height}")));
        }
        let is_all = (region.left, region.top, region.width, region.height) == (0, 0, width, height);
        if !is_all && header.block.is_none() {
            return Err(Error::Usage(format!("{region:?} of a picture that can only be decoded whole")));
        }
        self.choose(part.eighths, (!is_all).then_some(region))?;
        match header.space {
            Space::Cmyk | Space::Ycck => {
                let mut inks = std::mem::take(&mut self.inks);
                inks.resize(rgb.len() / 3 * 4, 0);
                let outcome = self.decompress(file, sys::TJPF_TJPF_CMYK as c_int, &mut inks);
                on_paper(&inks, rgb);
                self.inks = inks;
                outcome
            }
            _ => self.decompress(file, sys::TJPF_TJPF_RGB as c_int, rgb),
        }
    }

    /// The colour profile (ICC) of the file whose header was read last, if it has one.
    pub fn profile(&mut self) -> Option<Vec<u8>> {
        let (mut profile, mut length) = (std::ptr::null_mut(), 0);
        // SAFETY: both addresses are of locals; what comes back is null or `length` bytes that are ours to free.
        unsafe {
            if sys::tj3GetICCProfile(self.handle.raw(), &mut profile, &mut length) != 0 || profile.is_null() {
                return None;
            }
            let copy = std::slice::from_raw_parts(profile, length as usize).to_vec();
            sys::tj3Free(profile.cast());
            Some(copy)
        }
    }

    fn choose(&mut self, eighths: u32, region: Option<Rectangle>) -> Result<()> {
        // The library compares scales by numerator and denominator, and takes reduced ones.
        let common = 1 << eighths.trailing_zeros().min(3);
        let scale = sys::tjscalingfactor { num: (eighths / common) as c_int, denom: 8 / common as c_int };
        // SAFETY: passed by value; a scale that the library does not know is refused by it.
        let code = unsafe { sys::tj3SetScalingFactor(self.handle.raw(), scale) };
        self.handle.must(code)?;
        // Its word for "all of it" is zeros.
        let Rectangle { left, top, width, height } = region.unwrap_or(Rectangle { left: 0, top: 0, width: 0, height: 0 });
        let region = sys::tjregion { x: left as c_int, y: top as c_int, w: width as c_int, h: height as c_int };
        // SAFETY: passed by value; a region that does not fit is refused by the library.
        let code = unsafe { sys::tj3SetCroppingRegion(self.handle.raw(), region) };
        self.handle.must(code)
    }

    /// `pixels` must have room for the region that was chosen, which [`Decoder::decode`] sees to.
    fn decompress(&mut self, file: &[u8], format: c_int, pixels: &mut [u8]) -> Result<()> {
        // SAFETY: the file is a slice that is only read. The library writes the rows of the chosen region without padding
        // (a pitch of 0): its size was computed as the library computes it, from the header that it has just read of the
        // same bytes, and `pixels` is exactly as long.
        let code = unsafe { sys::tj3Decompress8(self.handle.raw(), file.as_ptr(), file.len() as u64, pixels.as_mut_ptr(), 0, format) };
        match self.handle.outcome(code)? {
            Outcome::Clean => Ok(()),
            Outcome::Warned(message) if message.contains("extraneous bytes before marker") => Ok(()),
            Outcome::Warned(message) => Err(Error::of_message(&message)),
        }
    }
}

/// Inks as Adobe stores them (255 is none) to light from white paper.
fn on_paper(inks: &[u8], rgb: &mut [u8]) {
    let (inks, _) = inks.as_chunks::<4>();
    let (pixels, _) = rgb.as_chunks_mut::<3>();
    for ([cyan, magenta, yellow, black], pixel) in inks.iter().zip(pixels) {
        let over = |ink: u8| ((u32::from(ink) * u32::from(*black) + 127) / 255) as u8;
        *pixel = [over(*cyan), over(*magenta), over(*yellow)];
    }
}
