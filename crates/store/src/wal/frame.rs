//! Bytes of a log file: its head, and frames one after the other. `docs/format.md` has the table.

use lacuna_signal::SignalKind;

/// First bytes of a log file.
pub const FILE_MAGIC: [u8; 8] = *b"LACUNAWL";
/// Version of the log format that this build writes. Version 1, whose frames have no trailers, is
/// read as well.
pub const VERSION: u32 = 2;
/// Length of a file's head.
pub const FILE_HEAD: usize = 32;
/// First bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"LFrm";
/// Length of a frame's head.
pub const FRAME_HEAD: usize = 32;
/// First bytes of a frame's trailer: the head once more, after the body.
pub const TRAILER_MAGIC: [u8; 4] = *b"LEnd";
/// Length of a frame's trailer.
pub const FRAME_TRAILER: usize = FRAME_HEAD;
/// Flag: the body is compressed with zstd.
pub const FLAG_ZSTD: u8 = 1;
/// Flag: a trailer follows the body.
pub const FLAG_TRAILER: u8 = 2;

/// The head of a log file whose first frame will be `first`.
pub fn file_head(first: u64) -> [u8; FILE_HEAD] {
    let mut head = [0; FILE_HEAD];
    head[..8].copy_from_slice(&FILE_MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[12..20].copy_from_slice(&first.to_le_bytes());
    let crc = crc32fast::hash(&head[..28]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// What is wrong with a file's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// Shorter than a head.
    Short,
    /// Not a log file, or its head is damaged.
    Damaged,
    /// Written by a newer version.
    Newer(u32),
}

/// Reads a file's head: the number of its first frame.
pub fn parse_file_head(bytes: &[u8]) -> Result<u64, HeadError> {
    let head: &[u8; FILE_HEAD] = bytes.first_chunk().ok_or(HeadError::Short)?;
    if head[..8] != FILE_MAGIC || u32_at(head, 28) != crc32fast::hash(&head[..28]) {
        return Err(HeadError::Damaged);
    }
    match u32_at(head, 8) {
        1..=VERSION => Ok(u64_at(head, 12)),
        newer => Err(HeadError::Newer(newer)),
    }
}

/// The head of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes of the body as stored.
    pub stored: u32,
    /// Bytes of the body before compression.
    pub raw: u32,
    /// What the body holds.
    pub kind: SignalKind,
    /// [`FLAG_ZSTD`], [`FLAG_TRAILER`], both or nothing.
    pub flags: u8,
    /// The frame's number: one more than that of the frame before.
    pub seq: u64,
    /// CRC-32 (IEEE) of the stored body.
    pub body_crc: u32,
}

impl FrameHead {
    /// The head's bytes.
    pub fn encode(&self) -> [u8; FRAME_HEAD] {
        self.encode_as(FRAME_MAGIC)
    }

    /// The trailer's bytes: the same but for the first.
    pub fn trailer(&self) -> [u8; FRAME_TRAILER] {
        self.encode_as(TRAILER_MAGIC)
    }

    fn encode_as(&self, magic: [u8; 4]) -> [u8; FRAME_HEAD] {
        let mut head = [0; FRAME_HEAD];
        head[..4].copy_from_slice(&magic);
        head[4..8].copy_from_slice(&self.stored.to_le_bytes());
        head[8..12].copy_from_slice(&self.raw.to_le_bytes());
        head[12] = kind_code(self.kind);
        head[13] = self.flags;
        head[16..24].copy_from_slice(&self.seq.to_le_bytes());
        head[24..28].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&head[..28]);
        head[28..].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// Bytes of the body and of what follows it in the frame.
    fn rest(&self) -> usize {
        let trailer = if self.flags & FLAG_TRAILER == 0 { 0 } else { FRAME_TRAILER };
        self.stored as usize + trailer
    }

    /// Reads a head; `None` unless every byte is as written.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Self::parse_as(FRAME_MAGIC, bytes)
    }

    fn parse_as(magic: [u8; 4], bytes: &[u8]) -> Option<Self> {
        let head: &[u8; FRAME_HEAD] = bytes.first_chunk()?;
        if head[..4] != magic || u32_at(head, 28) != crc32fast::hash(&head[..28]) {
            return None;
        }
        Some(Self {
            stored: u32_at(head, 4),
            raw: u32_at(head, 8),
            kind: kind_of(head[12])?,
            flags: head[13],
            seq: u64_at(head, 16),
            body_crc: u32_at(head, 24),
        })
    }
}

/// The number of a kind of signal in files.
pub fn kind_code(kind: SignalKind) -> u8 {
    match kind {
        SignalKind::Spans => 0,
        SignalKind::Logs => 1,
        SignalKind::Points => 2,
    }
}

/// The kind whose number is `code`.
pub fn kind_of(code: u8) -> Option<SignalKind> {
    SignalKind::ALL.get(usize::from(code)).copied()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// One thing found while a log file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// A whole frame: its head and stored body.
    Frame(FrameHead, &'a [u8]),
    /// The frame that comes next is whole, but one of its head and its trailer is not as written: the
    /// other says the same.
    Mended {
        /// Where the frame begins.
        offset: usize,
        /// What is damaged: its head, or its trailer.
        what: &'static str,
    },
    /// Bytes that are not what was written; whole frames follow.
    Damage {
        /// Where they begin.
        offset: usize,
        /// How many.
        bytes: usize,
    },
    /// The file ends within a frame.
    Torn {
        /// Where that frame begins: the end of what is whole.
        offset: usize,
        /// The head is whole and says that more should follow. If not, what is there may also be a
        /// damaged frame.
        known: bool,
    },
}

/// Reads the frames in `bytes` (a whole file) from `offset` on, skipping what is damaged.
pub fn scan(bytes: &[u8], offset: usize) -> Scanner<'_> {
    Scanner { bytes, offset, next: None }
}

/// Iterator over the items of a log file.
#[derive(Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    offset: usize,
    /// A frame of which it was told that it was mended.
    next: Option<(FrameHead, &'a [u8])>,
}

impl<'a> Scanner<'a> {
    /// The frame at `offset` if its head and body are whole, and whether its trailer is, too.
    fn frame_at(&self, offset: usize) -> Option<(FrameHead, &'a [u8], bool)> {
        let rest = self.bytes.get(offset..)?;
        let head = FrameHead::parse(rest)?;
        let rest = rest.get(FRAME_HEAD..FRAME_HEAD.checked_add(head.rest())?)?;
        let (body, trailer) = rest.split_at_checked(head.stored as usize)?;
        let whole = trailer.is_empty() || *trailer == head.trailer();
        (crc32fast::hash(body) == head.body_crc).then_some((head, body, whole))
    }

    /// The frame at `offset` by its trailer, which says how long the body before it is.
    fn by_trailer(&self, offset: usize) -> Option<(FrameHead, &'a [u8])> {
        let body = offset.checked_add(FRAME_HEAD)?;
        let mut from = body;
        loop {
            let rest = self.bytes.get(from..)?;
            let at = from + rest.windows(TRAILER_MAGIC.len()).position(|w| w == TRAILER_MAGIC)?;
            let fits = |head: &FrameHead| body + head.stored as usize == at;
            if let Some(head) = FrameHead::parse_as(TRAILER_MAGIC, &self.bytes[at..]).filter(fits) {
                let body = self.bytes.get(body..at)?;
                return (crc32fast::hash(body) == head.body_crc).then_some((head, body));
            }
            from = at + 1;
        }
    }

    /// The next whole frame after `offset`.
    fn resync(&self, offset: usize) -> Option<usize> {
        let mut from = offset;
        loop {
            let rest = self.bytes.get(from..)?;
            let found = rest.windows(FRAME_MAGIC.len()).position(|w| w == FRAME_MAGIC)?;
            if self.frame_at(from + found).is_some() {
                return Some(from + found);
            }
            from += found + 1;
        }
    }
}

impl<'a> Iterator for Scanner<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let start = self.offset;
        if start >= self.bytes.len() {
            return None;
        }
        if let Some((head, body)) = self.next.take() {
            self.offset = start + FRAME_HEAD + head.rest();
            return Some(Item::Frame(head, body));
        }
        if let Some((head, body, whole)) = self.frame_at(start) {
            if !whole {
                self.next = Some((head, body));
                return Some(Item::Mended { offset: start, what: "trailer" });
            }
            self.offset = start + FRAME_HEAD + head.rest();
            return Some(Item::Frame(head, body));
        }
        // A whole head tells where its damaged body ends. What lies in a body must not be searched
        // for frames: it may well hold some, if somebody sent a log file.
        let rest = &self.bytes[start..];
        let head = FrameHead::parse(rest);
        if head.is_none()
            && let Some(frame) = self.by_trailer(start)
        {
            self.next = Some(frame);
            return Some(Item::Mended { offset: start, what: "head" });
        }
        let next = match head.map(|head| FRAME_HEAD + head.rest()) {
            Some(skipped) if skipped <= rest.len() => Some(start + skipped),
            Some(_) => None,
            None => self.resync(start + 1),
        };
        self.offset = next.unwrap_or(self.bytes.len());
        // A head that is not there as a whole was never written as a whole.
        let known = head.is_some() || rest.len() < FRAME_HEAD;
        Some(match next {
            Some(next) => Item::Damage { offset: start, bytes: next - start },
            None => Item::Torn { offset: start, known },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(seq: u64, body: &[u8]) -> Vec<u8> {
        let head = head(seq, body, FLAG_TRAILER);
        [&head.encode()[..], body, &head.trailer()].concat()
    }

    /// A frame as version 1 wrote it.
    fn old_frame(seq: u64, body: &[u8]) -> Vec<u8> {
        [&head(seq, body, 0).encode()[..], body].concat()
    }

    fn head(seq: u64, body: &[u8], flags: u8) -> FrameHead {
        let size = u32::try_from(body.len()).unwrap();
        let body_crc = crc32fast::hash(body);
        FrameHead { stored: size, raw: size, kind: SignalKind::Logs, flags, seq, body_crc }
    }

    fn frames_of(bytes: &[u8]) -> Vec<(u64, &[u8])> {
        scan(bytes, 0)
            .filter_map(|item| match item {
                Item::Frame(head, body) => Some((head.seq, body)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn heads_read_back() {
        assert_eq!(parse_file_head(&file_head(77)), Ok(77));
        assert_eq!(parse_file_head(&[0; 31]), Err(HeadError::Short));
        for i in 0..FILE_HEAD {
            let mut head = file_head(77);
            head[i] ^= 1;
            assert_eq!(parse_file_head(&head), Err(HeadError::Damaged));
        }
    }

    #[test]
    fn every_cut_keeps_the_whole_frames_before_it() {
        let bodies: [&[u8]; 3] = [b"first", b"", b"third body"];
        let parts: Vec<_> = bodies.iter().zip(0..).map(|(b, seq)| frame(seq, b)).collect();
        let all = parts.concat();
        for cut in 0..=all.len() {
            let whole = parts
                .iter()
                .scan(0, |end, part| {
                    *end += part.len();
                    Some(*end)
                })
                .take_while(|end| *end <= cut)
                .count();
            assert_eq!(frames_of(&all[..cut]).len(), whole, "cut at {cut}");
            let torn = scan(&all[..cut], 0).any(|item| matches!(item, Item::Torn { .. }));
            let end: usize = parts.iter().take(whole).map(Vec::len).sum();
            assert_eq!(torn, cut != end, "cut at {cut}");
        }
    }

    proptest! {
        /// Head, body and trailer: a frame is lost with its body only.
        #[test]
        fn a_flipped_bit_is_found_and_loses_no_frame_but_in_its_body(
            bodies in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..40), 1..8),
            position in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let parts: Vec<_> = bodies.iter().zip(0..).map(|(b, seq)| frame(seq, b)).collect();
            let mut all = parts.concat();
            let at = position.index(all.len());
            all[at] ^= 1 << bit;
            let (mut end, mut begin) = (0, 0);
            let hit = parts.iter().position(|p| { begin = end; end += p.len(); at < end }).unwrap();
            let in_body = (begin + FRAME_HEAD..end - FRAME_TRAILER).contains(&at);
            let lost = in_body.then_some(hit as u64);
            let expected: Vec<_> = bodies.iter().zip(0..).filter(|(_, seq)| Some(*seq) != lost)
                .map(|(b, seq)| (seq, b.as_slice())).collect();
            prop_assert_eq!(frames_of(&all), expected);
            let others: Vec<_> =
                scan(&all, 0).filter(|item| !matches!(item, Item::Frame(..))).collect();
            prop_assert_eq!(others.len(), 1);
            let as_expected = match others[0] {
                Item::Damage { .. } => in_body,
                Item::Mended { what, .. } => {
                    !in_body && (what == "head") == (at < begin + FRAME_HEAD)
                }
                _ => false,
            };
            prop_assert!(as_expected, "{:?}", others[0]);
        }

        /// Frames without trailers, as version 1 wrote them.
        #[test]
        fn a_flipped_bit_loses_its_own_frame_only(
            bodies in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..40), 1..8),
            position in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let parts: Vec<_> = bodies.iter().zip(0..).map(|(b, seq)| old_frame(seq, b)).collect();
            let mut all = parts.concat();
            let at = position.index(all.len());
            all[at] ^= 1 << bit;
            let mut end = 0;
            let hit = parts.iter().position(|p| { end += p.len(); at < end }).unwrap() as u64;
            let expected: Vec<_> = bodies.iter().zip(0..).filter(|(_, seq)| *seq != hit)
                .map(|(b, seq)| (seq, b.as_slice())).collect();
            prop_assert_eq!(frames_of(&all), expected);
            let broken = scan(&all, 0).filter(|i| !matches!(i, Item::Frame(..))).count();
            prop_assert_eq!(broken, 1);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = scan(&bytes, 0).count();
            let _ = parse_file_head(&bytes);
        }
    }
}
