//! A row of digit groups with single separators between them, as numbers are written for people.

/// Groups that are looked at from a place.
const MAX_GROUPS: usize = 8;

/// The first groups of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups<'a> {
    bytes: &'a [u8],
    spans: [(usize, usize); MAX_GROUPS],
    /// Between a group and the next: one of ` -./()`; a bracket stands for the blank beside it, too.
    separators: [u8; MAX_GROUPS],
    count: usize,
}

impl<'a> Groups<'a> {
    /// The row that begins with the digit at `at`.
    pub(super) fn parse(bytes: &'a [u8], at: usize) -> Self {
        let mut groups = Self { bytes, spans: [(at, at); MAX_GROUPS], separators: [0; MAX_GROUPS], count: 0 };
        let mut start = at;
        while groups.count < MAX_GROUPS {
            let end = start + bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            groups.spans[groups.count] = (start, end);
            groups.count += 1;
            let Some((separator, width)) = separator(&bytes[end..]) else { break };
            if !bytes.get(end + width).is_some_and(u8::is_ascii_digit) {
                break;
            }
            groups.separators[groups.count - 1] = separator;
            start = end + width;
        }
        groups
    }

    /// The row from the second group on.
    pub(super) fn rest(&self) -> Option<Self> {
        (self.count > 1).then(|| Self::parse(self.bytes, self.spans[1].0))
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn start(&self) -> usize {
        self.spans[0].0
    }

    /// Where group `index` ends.
    pub(super) fn end(&self, index: usize) -> usize {
        self.spans[index].1
    }

    /// The digits of group `index`; none beyond the last.
    pub(super) fn digits(&self, index: usize) -> &'a [u8] {
        if index < self.count { &self.bytes[self.spans[index].0..self.spans[index].1] } else { &[] }
    }

    pub(super) fn len(&self, index: usize) -> usize {
        self.digits(index).len()
    }

    /// What stands behind group `index`, if another group follows; else 0.
    pub(super) fn separator(&self, index: usize) -> u8 {
        if index < self.count { self.separators[index] } else { 0 }
    }

    /// Whether the first groups have these lengths.
    pub(super) fn has_shape(&self, lengths: &[usize]) -> bool {
        lengths.len() <= self.count && lengths.iter().enumerate().all(|(index, length)| self.len(index) == *length)
    }

    /// Whether the first `groups` are all parted by one of `separators`, and by the same.
    pub(super) fn has_same_separators(&self, groups: usize, separators: &[u8]) -> bool {
        let first = self.separator(0);
        separators.contains(&first) && (1..groups.saturating_sub(1)).all(|index| self.separator(index) == first)
    }

    /// The digits of the first `groups` without separators.
    pub(super) fn joined(&self, groups: usize) -> impl Iterator<Item = u8> {
        (0..groups).flat_map(|index| self.digits(index)).copied()
    }

    /// Digits in the first `groups`.
    pub(super) fn total(&self, groups: usize) -> usize {
        (0..groups).map(|index| self.len(index)).sum()
    }
}

/// A separator at the head and its width in bytes.
fn separator(bytes: &[u8]) -> Option<(u8, usize)> {
    match bytes {
        [b')', b' ' | b'-', ..] => Some((b')', 2)),
        [b' ' | b'-', b'(', ..] => Some((b'(', 2)),
        [separator @ (b' ' | b'-' | b'.' | b'/' | b'(' | b')'), ..] => Some((*separator, 1)),
        // No-break space; no-break hyphen and en dash.
        [0xC2, 0xA0, ..] => Some((b' ', 2)),
        [0xE2, 0x80, 0x91 | 0x93, ..] => Some((b'-', 3)),
        _ => None,
    }
}
