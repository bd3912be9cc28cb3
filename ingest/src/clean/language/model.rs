//! A fastText classifier: its words and character n-grams, its matrices, and the prediction.
//!
//! Promises: what the C++ program (version 12 of the format) says of a line, within rounding; quantised and full models;
//! a damaged file is a message, never a panic. A word of the vocabulary is one row, the sum of its n-grams, made at
//! loading. Deliberately absent: training, word n-grams, vectors of words.

mod file;

use file::Parts;

/// Lanes of a block of a row; rows are padded to whole blocks, so that additions are of a fixed width.
const LANES: usize = 16;
/// The token that ends every line.
const END_OF_LINE: &[u8] = b"</s>";
/// Opens a token that is a label, not a word.
const LABEL: &[u8] = b"__label__";

/// A model, ready to predict.
#[derive(Debug)]
pub(super) struct Model {
    labels: Vec<String>,
    grams: Grams,
    words: Words,
    /// Rows of n-grams, and of words without theirs.
    rows: Rows,
    /// For every word the sum of its own row and of those of its n-grams, and how many they are.
    sums: Rows,
    counts: Vec<u32>,
    end_of_line: Option<usize>,
    output: Rows,
    head: Head,
}

/// How the rows of the output become probabilities.
#[derive(Debug)]
enum Head {
    Softmax,
    /// Every label for itself.
    Sigmoid,
    /// Children of the inner nodes of a Huffman tree, leaves first.
    Tree(Vec<(usize, usize)>),
}

impl Model {
    /// Reads the bytes of a `.bin` or `.ftz` file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Parts { grams, words, labels, input, output, loss } = file::read(bytes)?;
        let head = match loss {
            1 => Head::Tree(tree(&labels.iter().map(|(_, count)| *count).collect::<Vec<_>>())),
            2 | 4 => Head::Sigmoid,
            _ => Head::Softmax,
        };
        let mut sums = Rows::new(words.len(), input.dimension);
        let mut counts = Vec::with_capacity(words.len());
        let words = Words::new(words);
        for (id, word) in words.words.iter().enumerate() {
            add(sums.get_mut(id), input.get(id));
            let mut count = 1;
            if word.as_ref() != END_OF_LINE {
                grams.each(word, |row| {
                    add(sums.get_mut(id), input.get(row));
                    count += 1;
                });
            }
            counts.push(count);
        }
        let end_of_line = words.find(END_OF_LINE);
        let labels = labels.into_iter().map(|(label, _)| label).collect();
        Ok(Self { labels, grams, words, rows: input, sums, counts, end_of_line, output, head })
    }

    /// The labels, without their prefix.
    pub(super) fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The likeliest label and its probability; none without a word that the model knows anything of.
    pub(super) fn predict(&self, text: &str) -> Option<(&str, f32)> {
        let hidden = self.hidden(text)?;
        let (label, probability) = match &self.head {
            Head::Tree(children) => self.likeliest_leaf(children, &hidden)?,
            head => self.likeliest_row(head, &hidden)?,
        };
        Some((self.labels.get(label)?, probability.min(1.0)))
    }

    /// The mean of the rows of a text.
    fn hidden(&self, text: &str) -> Option<Vec<f32>> {
        let mut sum = vec![0.0; self.rows.stride];
        let mut count = 0u32;
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0x0B | 0x0C | 0);
        for token in text.as_bytes().split(is_blank).filter(|token| !token.is_empty()) {
            if let Some(id) = self.words.find(token) {
                add(&mut sum, self.sums.get(id));
                count += self.counts[id];
            } else if !token.starts_with(LABEL) {
                self.grams.each(token, |row| {
                    add(&mut sum, self.rows.get(row));
                    count += 1;
                });
            }
        }
        if count == 0 {
            return None;
        }
        if let Some(id) = self.end_of_line {
            add(&mut sum, self.rows.get(id));
            count += 1;
        }
        let scale = 1.0 / count as f32;
        sum.iter_mut().for_each(|lane| *lane *= scale);
        Some(sum)
    }

    fn likeliest_row(&self, head: &Head, hidden: &[f32]) -> Option<(usize, f32)> {
        let scores = (0..self.labels.len()).map(|label| dot(self.output.get(label), hidden));
        let (label, best) = scores.clone().enumerate().max_by(|(_, left), (_, right)| left.total_cmp(right))?;
        let probability = match head {
            Head::Softmax => 1.0 / scores.map(|score| (score - best).exp()).sum::<f32>(),
            _ => sigmoid(best),
        };
        Some((label, probability))
    }

    /// The likeliest way down the Huffman tree; the root is the last node.
    fn likeliest_leaf(&self, children: &[(usize, usize)], hidden: &[f32]) -> Option<(usize, f32)> {
        let leaves = self.labels.len();
        let mut scores = vec![0.0f32; leaves + children.len()];
        // fastText keeps the logarithm finite in this way; it shows in the fourth digit.
        let log = |probability: f32| (probability + 1e-5).ln();
        for (inner, (left, right)) in children.iter().enumerate().rev() {
            let turn_right = sigmoid(dot(self.output.get(inner), hidden));
            let score = scores[leaves + inner];
            scores[*left] = score + log(1.0 - turn_right);
            scores[*right] = score + log(turn_right);
        }
        let best = scores[..leaves].iter().enumerate().max_by(|(_, left), (_, right)| left.total_cmp(right));
        best.map(|(label, score)| (label, score.exp()))
    }
}

/// The Huffman tree over labels that come with falling counts, by two queues.
fn tree(counts: &[i64]) -> Vec<(usize, usize)> {
    let leaves = counts.len();
    let (mut weights, mut children) = (counts.to_vec(), Vec::with_capacity(leaves.saturating_sub(1)));
    let (mut leaf, mut inner) = (leaves, leaves);
    while weights.len() + 1 < 2 * leaves {
        let mut lightest = || {
            let from_leaves = leaf > 0 && weights.get(inner).is_none_or(|weight| weights[leaf - 1] < *weight);
            if from_leaves {
                leaf -= 1
            } else {
                inner += 1
            }
            if from_leaves { leaf } else { inner - 1 }
        };
        let (left, right) = (lightest(), lightest());
        weights.push(weights[left].saturating_add(weights[right]));
        children.push((left, right));
    }
    children
}

/// Which rows belong to the character n-grams of a word.
#[derive(Debug)]
struct Grams {
    shortest: usize,
    longest: usize,
    buckets: u32,
    /// The first row of n-grams; words have those before.
    first: usize,
    /// Where a model is pruned, buckets that are left, hashed to slots, and their rows counted from `first`.
    kept: Option<Vec<(u32, u32)>>,
}

const EMPTY: u32 = u32::MAX;

impl Grams {
    /// Visits the row of every n-gram of a word between its brackets.
    fn each(&self, word: &[u8], mut visit: impl FnMut(usize)) {
        if self.longest == 0 || self.buckets == 0 {
            return;
        }
        let last = word.len() + 1;
        let byte = |at: usize| if at == 0 { b'<' } else { word.get(at - 1).copied().unwrap_or(b'>') };
        let continues = |at: usize| at <= last && byte(at) & 0xC0 == 0x80;
        for start in (0..=last).filter(|at| !continues(*at)) {
            let (mut hash, mut at) = (FNV_OFFSET, start);
            for length in 1..=self.longest {
                if at > last {
                    break;
                }
                hash = fnv(hash, byte(at));
                at += 1;
                while continues(at) {
                    hash = fnv(hash, byte(at));
                    at += 1;
                }
                // A bracket alone says nothing.
                if length >= self.shortest && !(length == 1 && (start == 0 || at > last)) {
                    self.row(hash % self.buckets).into_iter().for_each(&mut visit);
                }
            }
        }
    }

    fn row(&self, bucket: u32) -> Option<usize> {
        let Some(kept) = &self.kept else { return Some(self.first + bucket as usize) };
        let mut slot = slot(bucket, kept.len());
        loop {
            let (found, row) = kept[slot];
            if found == bucket {
                return Some(self.first + row as usize);
            }
            if found == EMPTY {
                return None;
            }
            slot = (slot + 1) & (kept.len() - 1);
        }
    }
}

/// The vocabulary as a hash table; at most half of the slots are taken, so that every search ends.
#[derive(Debug)]
struct Words {
    words: Vec<Box<[u8]>>,
    slots: Vec<u32>,
}

impl Words {
    fn new(words: Vec<Box<[u8]>>) -> Self {
        let mut slots = vec![EMPTY; (words.len() * 2).next_power_of_two().max(2)];
        for (id, word) in words.iter().enumerate() {
            let mut slot = slot(hash(word), slots.len());
            while slots[slot] != EMPTY {
                slot = (slot + 1) & (slots.len() - 1);
            }
            slots[slot] = id as u32;
        }
        Self { words, slots }
    }

    fn find(&self, word: &[u8]) -> Option<usize> {
        let mut slot = slot(hash(word), self.slots.len());
        while self.slots[slot] != EMPTY {
            let id = self.slots[slot] as usize;
            if self.words[id].as_ref() == word {
                return Some(id);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        None
    }
}

fn slot(hash: u32, slots: usize) -> usize {
    (u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & (slots - 1)
}

const FNV_OFFSET: u32 = 2_166_136_261;

/// FNV-1a as fastText has it, over signed bytes.
fn fnv(hash: u32, byte: u8) -> u32 {
    (hash ^ i32::from(byte as i8) as u32).wrapping_mul(16_777_619)
}

fn hash(word: &[u8]) -> u32 {
    word.iter().fold(FNV_OFFSET, |hash, byte| fnv(hash, *byte))
}

/// A matrix whose rows are padded by zeros to whole blocks.
#[derive(Debug)]
struct Rows {
    dimension: usize,
    stride: usize,
    values: Vec<f32>,
}

impl Rows {
    fn new(rows: usize, dimension: usize) -> Self {
        let stride = dimension.next_multiple_of(LANES);
        Self { dimension, stride, values: vec![0.0; rows * stride] }
    }

    fn len(&self) -> usize {
        self.values.len() / self.stride.max(1)
    }

    fn get(&self, row: usize) -> &[f32] {
        &self.values[row * self.stride..][..self.stride]
    }

    fn get_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.stride..][..self.stride]
    }
}

fn add(sum: &mut [f32], row: &[f32]) {
    for (sum, row) in sum.as_chunks_mut::<LANES>().0.iter_mut().zip(row.as_chunks::<LANES>().0) {
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn sigmoid(score: f32) -> f32 {
    1.0 / (1.0 + (-score).exp())
}

#[cfg(test)]
pub(super) mod tests;
