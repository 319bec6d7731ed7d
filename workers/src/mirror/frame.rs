//! Validation of negentropy frames, protocol version 1. A frame is checked before the crate
//! `negentropy` reads it: a count that the peer sends never determines an allocation, and a frame
//! that contradicts itself is an error. Source: NIP-77.

/// A frame is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The protocol version is not 1. Holds the frame's first byte.
    #[error("the frame has protocol version {0:#x}, expected 0x61")]
    Version(u8),
    /// The frame is malformed; the text gives the reason.
    #[error("{0}")]
    Invalid(&'static str),
}

/// The first byte of a frame of version 1.
const VERSION: u8 = 0x61;

/// Checks a whole frame and returns the number of its ranges.
///
/// # Errors
/// See [`FrameError`].
pub fn check(frame: &[u8]) -> Result<usize, FrameError> {
    let (version, mut rest) =
        frame.split_first().ok_or(FrameError::Invalid("the frame is empty"))?;
    if *version != VERSION {
        return Err(FrameError::Version(*version));
    }
    let (mut ranges, mut lower) = (0, (0, [0; 32]));
    while !rest.is_empty() {
        lower = bound(&mut rest, lower, ranges == 0)?;
        match varint(&mut rest)? {
            0 => {}
            1 => drop(take(&mut rest, 16)?),
            2 => ids(&mut rest)?,
            _ => return Err(FrameError::Invalid("a range has an unknown mode")),
        }
        ranges += 1;
    }
    Ok(ranges)
}

/// Reads the upper bound of a range. Each bound must be greater than the one before.
fn bound(
    rest: &mut &[u8],
    (time_before, id_before): (u64, [u8; 32]),
    is_first: bool,
) -> Result<(u64, [u8; 32]), FrameError> {
    let time = match varint(rest)? {
        0 => u64::MAX,
        difference => time_before
            .checked_add(difference - 1)
            .ok_or(FrameError::Invalid("a bound's timestamp overflows"))?,
    };
    let length = varint(rest)?;
    if length > 32 {
        return Err(FrameError::Invalid("a bound's id is longer than 32 bytes"));
    }
    let prefix = take(rest, length)?;
    let mut id = [0; 32];
    id[..prefix.len()].copy_from_slice(prefix);
    let (bound, before) = ((time, id), (time_before, id_before));
    if bound < before || (!is_first && bound == before) {
        return Err(FrameError::Invalid("the bounds do not ascend"));
    }
    Ok(bound)
}

/// Reads a list of ids.
fn ids(rest: &mut &[u8]) -> Result<(), FrameError> {
    let count = varint(rest)?;
    let bytes = count.checked_mul(32).ok_or(FrameError::Invalid("a count exceeds the frame"))?;
    take(rest, bytes).map(drop)
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], FrameError> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let taken = rest.split_at_checked(length);
    let (taken, left) = taken.ok_or(FrameError::Invalid("the frame is truncated"))?;
    *rest = left;
    Ok(taken)
}

/// Reads an integer in base 128, most significant group first. It has at most ten bytes and no
/// leading zeros.
fn varint(rest: &mut &[u8]) -> Result<u64, FrameError> {
    let mut value: u64 = 0;
    for index in 0..10 {
        let byte = take(rest, 1)?[0];
        if index == 0 && byte == 0x80 {
            return Err(FrameError::Invalid("an integer has leading zeros"));
        }
        if value.leading_zeros() < 7 {
            return Err(FrameError::Invalid("an integer exceeds 64 bits"));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(FrameError::Invalid("an integer has more than ten bytes"))
}

#[cfg(test)]
mod tests {
    use negentropy::{Id, Negentropy, NegentropyStorageVector};

    use super::*;

    /// Returns a frame with a list of two ids, then a fingerprint up to infinity.
    fn frame() -> Vec<u8> {
        let mut frame = vec![0x61, 0x05, 0x01, 0xaa, 0x02, 0x02];
        frame.extend([0x11; 64]);
        frame.extend([0x00, 0x00, 0x01]);
        frame.extend([0x22; 16]);
        frame
    }

    #[test]
    fn a_frame_is_a_frame_and_no_part_of_it_is() {
        assert_eq!(check(&frame()), Ok(2));
        assert_eq!(check(&[0x61]), Ok(0));
        let whole = frame();
        for length in 0..whole.len() {
            let is_boundary = [1, 70].contains(&length); // before the first range and after it
            assert_eq!(check(&whole[..length]).is_ok(), is_boundary, "{length} bytes");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (frame, words) in [
            (vec![0x62], "version"),
            (vec![0x61, 0x05, 0x00, 0x03], "mode"),
            (vec![0x61, 0x05, 0x21], "32 bytes"),
            (vec![0x61, 0x05, 0x00, 0x00, 0x01, 0x00, 0x00], "ascend"),
            (vec![0x61, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00], "overflows"),
            (vec![0x61, 0x80, 0x05], "leading zeros"),
            (vec![0x61, 0x00, 0x00, 0x02, 0xc0, 0x80, 0x80, 0x80, 0x00], "truncated"),
            ([vec![0x61], vec![0xff; 12]].concat(), "64 bits"),
        ] {
            let error = check(&frame).expect_err("refused").to_string();
            assert!(error.contains(words), "{frame:02x?}: {error}");
        }
    }

    proptest::proptest! {
        /// Every frame of the reference implementation passes.
        #[test]
        fn frames_of_the_reference_pass(times in proptest::collection::vec(0_u64..50, 0..300)) {
            let mut storage = NegentropyStorageVector::new();
            for (index, time) in times.iter().enumerate() {
                let mut id = [0; 32];
                id[..8].copy_from_slice(&(index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
                storage.insert(*time, Id::from_byte_array(id)).expect("not sealed");
            }
            storage.seal().expect("not sealed");
            let mut ours = Negentropy::borrowed(&storage, 0).expect("no limit");
            proptest::prop_assert!(check(&ours.initiate().expect("the first")).is_ok());
        }

        /// No input causes a panic, here or in the crate `negentropy`.
        #[test]
        fn noise_is_an_error_and_never_a_panic(
            noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let frame = [vec![0x61], noise].concat();
            if check(&frame).is_ok() {
                let mut storage = NegentropyStorageVector::new();
                storage.seal().expect("not sealed");
                let mut ours = Negentropy::owned(storage, 60_000).expect("a limit");
                let _first = ours.initiate();
                let _any = ours.reconcile_with_ids(&frame, &mut Vec::new(), &mut Vec::new());
            }
        }
    }
}
