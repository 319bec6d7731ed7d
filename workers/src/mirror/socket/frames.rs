//! Frames of a websocket, as far as their sizes require (RFC 6455). The payload of a message over
//! the limit never reaches the decoder: a short message with the first and last bytes replaces it.

use std::time::{Duration, Instant};

/// The first and last bytes of a message over the limit that are kept. They say which event it is.
pub(super) const KEPT: usize = 4096;
/// Divides the first bytes of a message over the limit, its size in digits, and its last bytes. JSON
/// holds no such byte.
pub(super) const CUT: u8 = 0;
/// A message over the limit that is longer than this, in bytes, ends the connection.
const MAX_SKIPPED: u64 = 64 * 1024 * 1024;
/// More pings, pongs and closes than this in a minute end the connection.
const MAX_CONTROLS: u32 = 1000;
/// The longest header of an HTTP response, in bytes.
const MAX_RESPONSE: usize = 64 * 1024;

/// The longest replacement of a message over the limit, beside what passed before, in bytes.
pub(super) const REPLACEMENT: usize = 2 * KEPT + 2 + 20;

/// Reads what the upstream sends, and passes on what the decoder may see.
#[derive(Debug)]
pub(super) struct Frames {
    /// The longest message that passes, in bytes.
    limit: u64,
    state: State,
    /// The fragments of the present message; `None` between two messages.
    parts: Option<Parts>,
    /// Since when control frames are counted, and how many came since.
    controls: (Instant, u32),
}

#[derive(Debug)]
enum State {
    /// The header of the HTTP response, up to its empty line.
    Response(Vec<u8>),
    /// The header of a frame.
    Header(Vec<u8>),
    /// A payload that passes, with the number of bytes to come.
    Pass(u64),
    /// A payload that is dropped, with the number of bytes to come, and whether it is the last of
    /// its message.
    Skip(u64, bool),
}

/// A message in several frames, or one over the limit.
#[derive(Debug, Default)]
struct Parts {
    /// The bytes that have passed.
    passed: u64,
    /// Whether frames of the message have passed.
    has_begun: bool,
    is_compressed: bool,
    skipped: Option<Skipped>,
}

#[derive(Debug, Default)]
struct Skipped {
    bytes: u64,
    start: Vec<u8>,
    end: Vec<u8>,
}

/// The fields of a frame's header.
struct Header {
    is_last: bool,
    is_compressed: bool,
    opcode: u8,
    length: u64,
}

impl Frames {
    pub(super) fn new(limit: usize) -> Self {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let state = State::Response(Vec::new());
        Self { limit, state, parts: None, controls: (Instant::now(), 0) }
    }

    /// Reads `input` and appends to `output` what passes. An error says why the connection must
    /// end.
    pub(super) fn read(&mut self, mut input: &[u8], output: &mut Vec<u8>) -> Result<(), String> {
        while !input.is_empty() {
            input = match &mut self.state {
                State::Response(_) => self.response(input, output)?,
                State::Header(_) => self.header(input, output)?,
                State::Pass(left) => {
                    let (payload, rest) = split(input, left);
                    output.extend_from_slice(payload);
                    rest
                }
                State::Skip(left, _) => {
                    let (payload, rest) = split(input, left);
                    self.skip(payload)?;
                    rest
                }
            };
            self.end_of_payload(output);
        }
        Ok(())
    }

    /// The header of the HTTP response, which is kept for its fields.
    pub(super) fn response_so_far(&self) -> &[u8] {
        match &self.state {
            State::Response(bytes) => bytes,
            _ => &[],
        }
    }

    fn response<'a>(&mut self, input: &'a [u8], output: &mut Vec<u8>) -> Result<&'a [u8], String> {
        let State::Response(bytes) = &mut self.state else { return Ok(input) };
        for (index, byte) in input.iter().enumerate() {
            bytes.push(*byte);
            if bytes.ends_with(b"\r\n\r\n") && bytes.starts_with(b"HTTP/1.1 101") {
                output.extend_from_slice(&input[..=index]);
                self.state = State::Header(Vec::new());
                return Ok(&input[index + 1..]);
            }
        }
        if bytes.len() > MAX_RESPONSE {
            return Err(format!("the HTTP response is longer than {MAX_RESPONSE} bytes"));
        }
        output.extend_from_slice(input);
        Ok(&[])
    }

    fn header<'a>(&mut self, input: &'a [u8], output: &mut Vec<u8>) -> Result<&'a [u8], String> {
        let State::Header(bytes) = &mut self.state else { return Ok(input) };
        let missing = size_of_header(bytes) - bytes.len();
        let (now, rest) = input.split_at(missing.min(input.len()));
        bytes.extend_from_slice(now);
        if bytes.len() == size_of_header(bytes) {
            let bytes = std::mem::take(bytes);
            self.begin(&parsed(&bytes), &bytes, output)?;
        }
        Ok(rest)
    }

    /// Decides about a frame by its header.
    fn begin(&mut self, header: &Header, bytes: &[u8], output: &mut Vec<u8>) -> Result<(), String> {
        if header.opcode >= 8 {
            self.control(header)?;
        } else if self.is_over(header)? {
            self.state = State::Skip(header.length, header.is_last);
            return Ok(());
        } else {
            self.count(header);
        }
        output.extend_from_slice(bytes);
        self.state = State::Pass(header.length);
        Ok(())
    }

    fn control(&mut self, header: &Header) -> Result<(), String> {
        if header.length > 125 {
            return Err("a control frame is longer than 125 bytes".to_owned());
        }
        if self.controls.0.elapsed() > Duration::from_mins(1) {
            self.controls = (Instant::now(), 0);
        }
        self.controls.1 += 1;
        if self.controls.1 > MAX_CONTROLS {
            return Err(format!(
                "the upstream sent more than {MAX_CONTROLS} control frames in a minute"
            ));
        }
        Ok(())
    }

    /// Whether the frame belongs to a message over the limit. A part of a compressed message cannot
    /// be left out, because the decoder needs it for later messages.
    fn is_over(&mut self, header: &Header) -> Result<bool, String> {
        let parts = self.parts.get_or_insert_with(|| Parts {
            is_compressed: header.is_compressed,
            ..Parts::default()
        });
        if parts.skipped.is_some() {
            return Ok(true);
        }
        if parts.passed.saturating_add(header.length) <= self.limit {
            return Ok(false);
        }
        if parts.is_compressed {
            return Err(too_large(self.limit));
        }
        parts.skipped = Some(Skipped::default());
        Ok(true)
    }

    fn count(&mut self, header: &Header) {
        let Some(parts) = &mut self.parts else { return };
        parts.passed += header.length;
        parts.has_begun = true;
        if header.is_last {
            self.parts = None;
        }
    }

    fn skip(&mut self, payload: &[u8]) -> Result<(), String> {
        let Some(skipped) = self.parts.as_mut().and_then(|parts| parts.skipped.as_mut()) else {
            return Ok(());
        };
        skipped.bytes += u64::try_from(payload.len()).unwrap_or(u64::MAX);
        if skipped.bytes > MAX_SKIPPED {
            return Err(format!("a message is longer than {MAX_SKIPPED} bytes"));
        }
        let missing = KEPT - skipped.start.len();
        skipped.start.extend_from_slice(&payload[..missing.min(payload.len())]);
        skipped.end.extend_from_slice(&payload[payload.len().saturating_sub(KEPT)..]);
        let surplus = skipped.end.len().saturating_sub(KEPT);
        skipped.end.drain(..surplus);
        Ok(())
    }

    /// Goes on to the next frame if the payload of this one is complete.
    fn end_of_payload(&mut self, output: &mut Vec<u8>) {
        let is_end = match self.state {
            State::Pass(0) | State::Skip(0, false) => true,
            State::Skip(0, true) => {
                if let Some(parts) = self.parts.take() {
                    replace(&parts, output);
                }
                true
            }
            _ => false,
        };
        if is_end {
            self.state = State::Header(Vec::new());
        }
    }
}

/// The reason for which a compressed message over the limit ends the connection.
pub(super) fn too_large(limit: u64) -> String {
    format!("a compressed message is longer than {limit} bytes; connecting without compression")
}

/// Splits off at most `left` bytes, and counts them.
fn split<'a>(input: &'a [u8], left: &mut u64) -> (&'a [u8], &'a [u8]) {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= u64::try_from(length).unwrap_or(u64::MAX);
    input.split_at(length)
}

/// The size of a header as far as its first bytes say.
fn size_of_header(bytes: &[u8]) -> usize {
    let Some(second) = bytes.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 == 0 { 0 } else { 4 }
}

fn parsed(bytes: &[u8]) -> Header {
    let number =
        |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let length = match bytes[1] & 0x7f {
        126 => number(&bytes[2..4]),
        127 => number(&bytes[2..10]),
        short => u64::from(short),
    };
    Header {
        is_last: bytes[0] & 0x80 != 0,
        is_compressed: bytes[0] & 0x40 != 0,
        opcode: bytes[0] & 0x0f,
        length,
    }
}

/// Writes the message that replaces one over the limit.
fn replace(parts: &Parts, output: &mut Vec<u8>) {
    let Some(skipped) = &parts.skipped else { return };
    let start: &[u8] = if parts.has_begun { &[] } else { &skipped.start };
    let size = parts.passed.saturating_add(skipped.bytes).to_string();
    let length = start.len() + 2 + size.len() + skipped.end.len();
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    let text = if parts.has_begun { 0x80 } else { 0x81 };
    output.extend_from_slice(&[text, 126]);
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(start);
    output.push(CUT);
    output.extend_from_slice(size.as_bytes());
    output.push(CUT);
    output.extend_from_slice(&skipped.end);
}

#[cfg(test)]
mod tests;
