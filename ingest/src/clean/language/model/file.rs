//! The file format of fastText models: header, dictionary, input and output matrix, either of them quantised or not.
//!
//! Promises: every length is checked against the bytes that are there before memory is taken; quantised rows are unpacked,
//! which makes them larger and faster to add. Little-endian, as on every machine that trains.

use super::{EMPTY, Grams, LABEL, Rows, slot};

/// What a model is made of.
pub(super) struct Parts {
    pub(super) grams: Grams,
    pub(super) words: Vec<Box<[u8]>>,
    /// Labels without their prefix, and how often each was seen.
    pub(super) labels: Vec<(String, i64)>,
    pub(super) input: Rows,
    pub(super) output: Rows,
    /// 1 hierarchical softmax, 2 negative sampling, 3 softmax, 4 one against all.
    pub(super) loss: i32,
}

const MAGIC: i32 = 793_712_314;
const VERSION: i32 = 12;
const SUPERVISED: i32 = 3;
/// Values of an unpacked matrix; 4 GiB.
const MAX_VALUES: usize = 1 << 30;
/// Centroids of a sub-quantiser.
const CENTROIDS: usize = 256;

/// Reads a whole file.
pub(super) fn read(bytes: &[u8]) -> Result<Parts, String> {
    let mut reader = Reader { bytes, at: 0 };
    let (magic, version) = (reader.i32()?, reader.i32()?);
    if (magic, version) != (MAGIC, VERSION) {
        return Err(format!("found magic {magic} and version {version}, expected a fastText model, {MAGIC} and {VERSION}"));
    }
    let mut arguments = [0; 12];
    for argument in &mut arguments {
        *argument = reader.i32()?;
    }
    reader.take(8)?; // the sampling threshold of training
    let [dimension, _, _, _, _, word_ngrams, loss, model, buckets, shortest, longest, _] = arguments;
    if model != SUPERVISED || !(1..=4).contains(&loss) {
        return Err(format!("found kind {model} with loss {loss}, expected a classifier: kind {SUPERVISED}, loss 1 to 4"));
    }
    if word_ngrams > 1 {
        return Err(format!("found word n-grams of {word_ngrams}, expected a model of single words"));
    }
    let dimension = size(dimension.into(), "dimension")?;
    let (buckets, shortest, longest) = (size(buckets.into(), "buckets")?, size(shortest.into(), "minn")?, size(longest.into(), "maxn")?);
    let (words, labels, pruned) = dictionary(&mut reader)?;
    let is_quantised = reader.flag()?;
    let input = if is_quantised { quantised(&mut reader)? } else { full(&mut reader)? };
    let is_quantised = reader.flag()? && is_quantised;
    let output = if is_quantised { quantised(&mut reader)? } else { full(&mut reader)? };
    let rows_of_grams = match &pruned {
        Some(kept) => kept.iter().map(|(_, row)| *row as usize + 1).max().unwrap_or(0),
        None if longest == 0 => 0,
        None => buckets,
    };
    expect_shape("input", &input, words.len() + rows_of_grams, dimension)?;
    expect_shape("output", &output, labels.len(), dimension)?;
    let grams = Grams { shortest, longest, buckets: buckets as u32, first: words.len(), kept: pruned.map(|kept| hashed(&kept)) };
    Ok(Parts { grams, words, labels, input, output, loss })
}

fn expect_shape(what: &str, found: &Rows, rows: usize, dimension: usize) -> Result<(), String> {
    if found.dimension != dimension || found.len() < rows || dimension == 0 {
        return Err(format!("{what} matrix: found {} × {}, expected {rows} × {dimension}", found.len(), found.dimension));
    }
    Ok(())
}

type Dictionary = (Vec<Box<[u8]>>, Vec<(String, i64)>, Option<Vec<(u32, u32)>>);

fn dictionary(reader: &mut Reader<'_>) -> Result<Dictionary, String> {
    let entries = reader.i32()?;
    reader.take(16)?; // words, labels and tokens, which are counted below or not needed
    let kept = reader.i64()?;
    let (mut words, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..size(entries.into(), "entries")? {
        let entry = reader.text()?;
        let count = reader.i64()?;
        if reader.flag()? {
            let label = entry.strip_prefix(LABEL).unwrap_or(entry);
            labels.push((String::from_utf8_lossy(label).into_owned(), count));
        } else if labels.is_empty() {
            words.push(entry.into());
        } else {
            return Err("found a word after the labels, expected words first".to_owned());
        }
    }
    if labels.is_empty() {
        return Err("found no labels".to_owned());
    }
    if kept < 0 {
        return Ok((words, labels, None));
    }
    let mut rows = Vec::new();
    for _ in 0..size(kept, "kept n-grams")? {
        let (bucket, row) = (reader.i32()?, reader.i32()?);
        rows.push((size(bucket.into(), "bucket")? as u32, size(row.into(), "row of an n-gram")? as u32));
    }
    Ok((words, labels, Some(rows)))
}

/// The table of the buckets that are left: at most half full, so that every search ends.
fn hashed(kept: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut slots = vec![(EMPTY, 0); (kept.len() * 2).next_power_of_two().max(2)];
    for (bucket, row) in kept {
        let mut slot = slot(*bucket, slots.len());
        while slots[slot].0 != EMPTY {
            slot = (slot + 1) & (slots.len() - 1);
        }
        slots[slot] = (*bucket, *row);
    }
    slots
}

fn full(reader: &mut Reader<'_>) -> Result<Rows, String> {
    let (rows, dimension) = shape(reader)?;
    let values = reader.take(rows * dimension * 4)?;
    let mut matrix = Rows::new(rows, dimension);
    for (row, values) in values.chunks_exact((dimension * 4).max(1)).enumerate() {
        matrix.get_mut(row).iter_mut().zip(floats(values)).for_each(|(lane, value)| *lane = value);
    }
    Ok(matrix)
}

/// Rows by product quantisation (Jégou et al. 2011); where norms are quantised too, they come after.
fn quantised(reader: &mut Reader<'_>) -> Result<Rows, String> {
    let has_norms = reader.flag()?;
    let (rows, dimension) = shape(reader)?;
    let codes = size(reader.i32()?.into(), "codes")?;
    let codes = reader.take(codes)?;
    let parts = Quantiser::read(reader)?;
    if parts.dimension != dimension || codes.len() != rows * parts.parts {
        return Err(format!("found {} codes of {} parts for {rows} rows of {dimension} values", codes.len(), parts.parts));
    }
    let norms = if has_norms { Some((reader.take(rows)?, Quantiser::read(reader)?)) } else { None };
    let mut matrix = Rows::new(rows, dimension);
    for row in 0..rows {
        let norm = match &norms {
            Some((codes, norms)) => norms.centroid(0, codes[row]).first().copied().unwrap_or(0.0),
            None => 1.0,
        };
        let values = (0..parts.parts).flat_map(|part| parts.centroid(part, codes[row * parts.parts + part]));
        matrix.get_mut(row).iter_mut().zip(values).for_each(|(lane, value)| *lane = norm * value);
    }
    Ok(matrix)
}

fn shape(reader: &mut Reader<'_>) -> Result<(usize, usize), String> {
    let (rows, dimension) = (size(reader.i64()?, "rows")?, size(reader.i64()?, "columns")?);
    let padded = dimension.checked_next_multiple_of(super::LANES).and_then(|stride| stride.checked_mul(rows));
    match padded {
        Some(values) if values <= MAX_VALUES => Ok((rows, dimension)),
        _ => Err(format!("found a matrix of {rows} × {dimension}, expected at most {MAX_VALUES} values")),
    }
}

struct Quantiser {
    dimension: usize,
    parts: usize,
    width: usize,
    last_width: usize,
    centroids: Vec<f32>,
}

impl Quantiser {
    fn read(reader: &mut Reader<'_>) -> Result<Self, String> {
        let mut sizes = [0; 4];
        for value in &mut sizes {
            *value = size(reader.i32()?.into(), "quantiser")?;
        }
        let [dimension, parts, width, last_width] = sizes;
        let covered = parts.checked_sub(1).and_then(|parts| parts.checked_mul(width)).and_then(|values| values.checked_add(last_width));
        if covered != Some(dimension) || last_width > width {
            return Err(format!("found a quantiser of {parts} parts of {width}, the last of {last_width}, for {dimension} values"));
        }
        let centroids = floats(reader.take(dimension.saturating_mul(CENTROIDS * 4))?).collect();
        Ok(Self { dimension, parts, width, last_width, centroids })
    }

    fn centroid(&self, part: usize, code: u8) -> &[f32] {
        let width = if part + 1 == self.parts { self.last_width } else { self.width };
        let start = part * CENTROIDS * self.width + usize::from(code) * width;
        &self.centroids[start..start + width]
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

fn size(value: i64, what: &str) -> Result<usize, String> {
    // Nothing in a model that fits memory is larger.
    if (0..=i64::from(i32::MAX)).contains(&value) { Ok(value as usize) } else { Err(format!("found {value} {what}")) }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = rest
            .get(..length)
            .ok_or_else(|| format!("truncated: found {} bytes, expected {length} more at byte {}", rest.len(), self.at))?;
        self.at += length;
        Ok(taken)
    }

    /// Bytes up to a zero, which is skipped.
    fn text(&mut self) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let end = memchr::memchr(0, rest).ok_or_else(|| format!("truncated: a word at byte {} does not end", self.at))?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn i32(&mut self) -> Result<i32, String> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, String> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn flag(&mut self) -> Result<bool, String> {
        Ok(self.array::<1>()? != [0])
    }
}
