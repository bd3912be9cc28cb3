//! Parts are those of the whole, damage is found, and nothing panics.

use proptest::prelude::*;

use super::*;

/// Waves and noise: edges of colour inside every block.
fn picture(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 26
    };
    let at = |x: u32, y: u32, phase: f32| (127.0 + 90.0 * (x as f32 * 0.31 + phase).sin() * (y as f32 * 0.17 + phase).cos()) as u32;
    (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| [at(x, y, 0.0), at(y, x, 1.0), at(x + y, x, 2.0)]))
        .map(|value| (value + noise()).min(255) as u8)
        .collect()
}

fn file(width: u32, height: u32, chroma: Chroma) -> Vec<u8> {
    Encoder::new().expect("encoder").encode(&picture(width, height, 7), Pixels::Rgb, (width, height), 85, chroma, None).expect("encodes")
}

fn decoded(file: &[u8], choose: impl Fn(&Header) -> Part) -> Result<(Part, Vec<u8>)> {
    let mut decoder = Decoder::new(None)?;
    let header = decoder.header(file)?;
    let part = choose(&header);
    let mut rgb = vec![0; part.rgb_bytes()];
    decoder.decode(file, &header, &part, &mut rgb)?;
    Ok((part, rgb))
}

/// Rows of a rectangle of a picture that is `width` wide.
fn cut(rgb: &[u8], width: u32, at: Rectangle) -> Vec<u8> {
    let row = |y: u32| ((y * width + at.left) as usize * 3)..((y * width + at.left + at.width) as usize * 3);
    (at.top..at.top + at.height).flat_map(|y| &rgb[row(y)]).copied().collect()
}

fn chroma() -> impl Strategy<Value = Chroma> {
    prop_oneof![Just(Chroma::Full), Just(Chroma::HalfWide), Just(Chroma::Half)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_part_has_the_pixels_of_the_whole(
        (width, height) in (1u32..150, 1u32..150), chroma in chroma(), scale in 0u32..4,
        (x, y, w, h) in (0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64),
    ) {
        let eighths = 1 << scale;
        let file = file(width, height, chroma);
        let (whole, all) = decoded(&file, |header| header.whole(eighths)).expect("decodes");
        let (wide, high) = (whole.decoded.width, whole.decoded.height);
        let along = |side: u32, start: f64, length: f64| {
            let start = (f64::from(side) * start) as u32;
            (start, 1 + (f64::from(side - start - 1) * length) as u32)
        };
        let ((left, width), (top, height)) = (along(wide, x, w), along(high, y, h));
        let wanted = Rectangle { left, top, width, height };
        let (part, some) = decoded(&file, |header| header.part(eighths, wanted).expect("is inside")).expect("decodes");
        prop_assert_eq!(cut(&some, part.decoded.width, part.wanted), cut(&all, wide, wanted));
        prop_assert!(part.decoded.width <= width + 2 * 32 + 2);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
        let _ = decoded(&bytes, |header| header.whole(8));
        let mut damaged = file(40, 30, Chroma::Half);
        let at = at.index(damaged.len());
        let length = bytes.len().min(damaged.len() - at);
        damaged[at..at + length].copy_from_slice(&bytes[..length]);
        // A header may then say that the picture is enormous.
        let _ = decoded(&damaged, |header| header.whole(1)).map(|(_, rgb)| rgb.len());
    }
}

#[test]
fn pixels_come_back_nearly_as_they_were() {
    let picture: Vec<u8> = (0..64u32 * 48).flat_map(|at| [(at % 64 * 4) as u8, (at / 64 * 5) as u8, 90]).collect();
    let file = Encoder::new().expect("encoder").encode(&picture, Pixels::Rgb, (64, 48), 95, Chroma::Half, None).expect("encodes");
    let (_, rgb) = decoded(&file, |header| header.whole(8)).expect("decodes");
    let worst = picture.iter().zip(&rgb).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(12), "{worst:?}");
}

#[test]
fn grey_and_profiles_are_kept() {
    let profile = vec![7; 100_000];
    let mut encoder = Encoder::new().expect("encoder");
    let file = encoder.encode(&picture(20, 10, 1), Pixels::Rgb, (20, 10), 85, Chroma::Full, Some(&profile)).expect("encodes");
    let mut decoder = Decoder::new(None).expect("decoder");
    let header = decoder.header(&file).expect("is a picture");
    assert_eq!((header.width, header.height, header.space, header.progressive), (20, 10, Space::YCbCr, false));
    let mut rgb = vec![0; 600];
    decoder.decode(&file, &header, &header.whole(8), &mut rgb).expect("decodes");
    assert_eq!(decoder.profile(), Some(profile));

    let grey = encoder.encode(&[200; 64], Pixels::Grey, (8, 8), 85, Chroma::Half, None).expect("encodes");
    assert_eq!(decoder.header(&grey).map(|header| header.space), Ok(Space::Grey));
    assert_eq!(decoder.profile(), None, "the profile of the picture before");
    assert!(decoded(&grey, |header| header.whole(8)).expect("decodes").1.iter().all(|value| value.abs_diff(200) <= 1));
}

#[test]
fn a_file_cut_anywhere_is_corrupt() {
    let file = file(50, 40, Chroma::Half);
    // Without the end mark alone the pixels are all there, but the file is not whole.
    for length in 0..file.len() {
        assert!(decoded(&file[..length], |header| header.whole(8)).is_err(), "{length} of {} bytes", file.len());
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let file = file(50, 40, Chroma::Half);
    let mut decoder = Decoder::new(None).expect("decoder");
    let header = decoder.header(&file).expect("is a picture");
    for (eighths, left, width) in [(8, 40, 11), (8, 0, 0), (8, u32::MAX, 2), (4, 20, 6), (3, 0, 10), (0, 0, 10), (16, 0, 10)] {
        let wanted = Rectangle { left, top: 0, width, height: 4 };
        assert!(matches!(header.part(eighths, wanted), Err(Error::Usage(_))), "{eighths}/8 {wanted:?}");
    }
    let whole = header.whole(8);
    assert!(matches!(decoder.decode(&file, &header, &whole, &mut [0; 10]), Err(Error::Usage(_))));
    let off = Part { decoded: Rectangle { left: 3, top: 0, width: 20, height: 20 }, ..whole };
    assert!(decoder.decode(&file, &header, &off, &mut [0; 1200]).is_err(), "starts within a block");
    let odd = Part { eighths: 5, ..whole };
    assert!(decoder.decode(&file, &header, &odd, &mut [0; 6000]).is_err());
    let mut encoder = Encoder::new().expect("encoder");
    assert!(matches!(encoder.encode(&[0; 10], Pixels::Rgb, (2, 2), 85, Chroma::Half, None), Err(Error::Usage(_))));
    assert!(encoder.encode(&[], Pixels::Rgb, (0, 0), 85, Chroma::Half, None).is_err());
    assert!(encoder.encode(&vec![0; 70_000], Pixels::Grey, (70_000, 1), 85, Chroma::Half, None).is_err());
}
