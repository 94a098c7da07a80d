//! Protobuf with holes: a message is encoded once, and the places where ids, times and counters
//! stand are remembered, all of fixed length, so that a later copy is filled in without encoding.

use super::rng;

/// What stands in a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hole {
    /// 16 bytes: the flow's trace of this number.
    TraceId(u32),
    /// 8 bytes: the flow's span of this number.
    SpanId(u32),
    /// 8 bytes, little endian, nanoseconds: this many microseconds after the flow's begin,
    /// stretched by the flow's own pace.
    Time(u32),
    /// 36 characters: the flow's UUID of this number. Number 0 is the correlation id.
    Uuid(u32),
    /// A varint of 5 bytes (2^28 to 2^35): a Kafka offset.
    Offset(u32),
    /// A varint of 3 bytes (2^14 to 2^21): a size in bytes.
    Size(u32),
    /// 8 decimal digits: a number in a path.
    Digits(u32),
    /// 8 bytes, a double from 0 to 1000.
    Double(u32),
    /// 8 bytes, a fixed64 counter: the block's number times this.
    Counter(u32),
}

/// A hole and where it is.
#[derive(Debug, Clone, Copy)]
pub struct Patch {
    /// Where in the buffer.
    pub at: u32,
    /// Which of the request's flows it belongs to.
    pub flow: u16,
    /// What goes there.
    pub hole: Hole,
}

/// A protobuf message under construction.
#[derive(Debug, Default, Clone)]
pub struct Message {
    /// The bytes, zero where holes are.
    pub bytes: Vec<u8>,
    /// The holes.
    pub patches: Vec<Patch>,
}

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn hole(&mut self, flow: u16, hole: Hole, length: usize) {
        self.patches.push(Patch { at: self.bytes.len() as u32, flow, hole });
        self.bytes.resize(self.bytes.len() + length, 0);
    }

    /// A varint field.
    pub fn uint(&mut self, field: u32, value: u64) {
        self.tag(field, 0);
        self.varint(value);
    }

    /// A fixed64 field.
    pub fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A fixed32 field.
    pub fn fixed32(&mut self, field: u32, value: u32) {
        self.tag(field, 5);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// One more fixed64 or double of a packed field, as a hole.
    pub fn packed_hole(&mut self, flow: u16, hole: Hole) {
        self.hole(flow, hole, 8);
    }

    /// A string or bytes field.
    pub fn text(&mut self, field: u32, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// A message field.
    pub fn message(&mut self, field: u32, inner: &Message) {
        self.message_of(field, inner, 0);
    }

    /// A message field whose flows have numbers higher by `shift` here.
    pub fn message_of(&mut self, field: u32, inner: &Message, shift: u16) {
        self.tag(field, 2);
        self.varint(inner.bytes.len() as u64);
        let base = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&inner.bytes);
        let moved =
            inner.patches.iter().map(|p| Patch { at: p.at + base, flow: p.flow + shift, ..*p });
        self.patches.extend(moved);
    }

    /// A field whose whole value is a hole.
    pub fn open(&mut self, field: u32, flow: u16, hole: Hole) {
        match hole {
            Hole::TraceId(_) | Hole::SpanId(_) => self.open_text(field, flow, "", hole, ""),
            Hole::Time(_) | Hole::Double(_) | Hole::Counter(_) => {
                self.tag(field, 1);
                self.hole(flow, hole, 8);
            }
            Hole::Offset(_) => {
                self.tag(field, 0);
                self.hole(flow, hole, 5);
            }
            Hole::Size(_) => {
                self.tag(field, 0);
                self.hole(flow, hole, 3);
            }
            Hole::Uuid(_) | Hole::Digits(_) => self.open_text(field, flow, "", hole, ""),
        }
    }

    /// A text field with a hole inside.
    pub fn open_text(&mut self, field: u32, flow: u16, before: &str, hole: Hole, after: &str) {
        let length = match hole {
            Hole::TraceId(_) => 16,
            Hole::Uuid(_) => 36,
            _ => 8,
        };
        self.tag(field, 2);
        self.varint((before.len() + length + after.len()) as u64);
        self.bytes.extend_from_slice(before.as_bytes());
        self.hole(flow, hole, length);
        self.bytes.extend_from_slice(after.as_bytes());
    }
}

/// What one flow puts into its holes.
#[derive(Debug, Clone, Copy)]
pub struct FlowValues {
    /// The flow's own stream of values.
    pub seed: u64,
    /// When it begins, nanoseconds since the epoch.
    pub begin: u64,
    /// The stretch of its times, in 1/1024.
    pub pace: u64,
    /// The block it belongs to.
    pub block: u64,
}

/// Streams of one flow, told apart by an offset.
const UUIDS: u64 = 1 << 32;
const SPANS: u64 = 2 << 32;
const TRACES: u64 = 3 << 32;
const OTHERS: u64 = 4 << 32;

impl FlowValues {
    /// The trace id of the flow's trace of this number.
    pub fn trace_id(&self, number: u32) -> [u8; 16] {
        let mut id = [0; 16];
        let at = TRACES + 2 * u64::from(number);
        id[..8].copy_from_slice(&rng::value(self.seed, at).to_le_bytes());
        id[8..].copy_from_slice(&rng::value(self.seed, at + 1).to_le_bytes());
        id
    }

    /// The flow's UUID of this number, version 4, as text.
    pub fn uuid(&self, number: u32) -> [u8; 36] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let at = UUIDS + 2 * u64::from(number);
        let mut raw = [0_u8; 16];
        raw[..8].copy_from_slice(&rng::value(self.seed, at).to_le_bytes());
        raw[8..].copy_from_slice(&rng::value(self.seed, at + 1).to_le_bytes());
        raw[6] = raw[6] & 0x0f | 0x40;
        raw[8] = raw[8] & 0x3f | 0x80;
        let mut out = [b'-'; 36];
        let mut to = 0;
        for (i, byte) in raw.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                to += 1;
            }
            out[to] = HEX[usize::from(byte >> 4)];
            out[to + 1] = HEX[usize::from(byte & 15)];
            to += 2;
        }
        out
    }

    /// Nanoseconds since the epoch of a point `micros` after the flow's begin.
    pub fn time(&self, micros: u32) -> u64 {
        let stretched = (u64::from(micros) * 1000 * self.pace) >> 10;
        // Clocks count nanoseconds: without noise the low digits would compress away.
        self.begin + stretched + (rng::value(self.seed, OTHERS + u64::from(micros)) & 0x1ff)
    }

    /// Always exactly `N` bytes if `value` is from `1 << 7 * (N - 1)` and below `1 << 7 * N`.
    fn varint<const N: usize>(mut value: u64) -> [u8; N] {
        let mut out = [0_u8; N];
        for byte in &mut out {
            *byte = (value as u8) | 0x80;
            value >>= 7;
        }
        out[N - 1] &= 0x7f;
        out
    }

    /// Fills one hole.
    #[inline]
    pub fn fill(&self, hole: Hole, at: &mut [u8]) {
        match hole {
            Hole::TraceId(n) => at[..16].copy_from_slice(&self.trace_id(n)),
            Hole::SpanId(n) => {
                at[..8].copy_from_slice(&rng::value(self.seed, SPANS + u64::from(n)).to_le_bytes())
            }
            Hole::Time(micros) => at[..8].copy_from_slice(&self.time(micros).to_le_bytes()),
            Hole::Uuid(n) => at[..36].copy_from_slice(&self.uuid(n)),
            Hole::Offset(n) => {
                // As on a real partition: far from zero, growing slowly.
                let jitter = rng::value(self.seed, OTHERS + u64::from(n)) & 7;
                let offset = (1 << 30) + (u64::from(n % 16) << 24) + self.block * 8 + jitter;
                at[..5].copy_from_slice(&Self::varint::<5>(offset & ((1 << 35) - 1)));
            }
            Hole::Size(n) => {
                let size = rng::value(self.seed, OTHERS + u64::from(n)) % 49_152 + 16_384;
                at[..3].copy_from_slice(&Self::varint::<3>(size));
            }
            Hole::Digits(n) => {
                let mut value = rng::value(self.seed, OTHERS + u64::from(n)) % 100_000_000;
                for byte in at[..8].iter_mut().rev() {
                    *byte = b'0' + (value % 10) as u8;
                    value /= 10;
                }
            }
            Hole::Double(n) => {
                let value = rng::value(self.seed, OTHERS + u64::from(n)) % 1_000_000;
                at[..8].copy_from_slice(&(value as f64 / 1000.0).to_le_bytes());
            }
            Hole::Counter(n) => {
                let value = self.block * u64::from(n);
                at[..8].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
}
