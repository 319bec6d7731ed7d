use super::*;

const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";

/// A frame without a mask.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 127];
    frame.extend_from_slice(&u64::try_from(payload.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What passes at a limit of 20,000 bytes, whatever the pieces in which it arrives.
fn passed(frames: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let input = [RESPONSE, &frames.concat()].concat();
    let mut results = [1, 3, 1000, input.len()].map(|size| {
        let (mut filter, mut output) = (Frames::new(20_000), Vec::new());
        let read = input.chunks(size).try_for_each(|piece| filter.read(piece, &mut output));
        read.map(|()| output)
    });
    assert!(results.windows(2).all(|two| two[0] == two[1]));
    std::mem::replace(&mut results[0], Ok(Vec::new()))
}

fn after_response(frames: &[Vec<u8>]) -> Vec<u8> {
    [RESPONSE, &frames.concat()].concat()
}

#[test]
fn messages_up_to_the_limit_pass_unchanged() {
    let frames = [
        frame(0x81, b"short"),
        frame(0x81, &vec![b'x'; 20_000]),
        frame(0x01, &[b'a'; 10_000]),
        frame(0x89, b"ping between fragments"),
        frame(0x80, &[b'b'; 10_000]),
        frame(0xc1, b"compressed"),
        frame(0x81, b""),
    ];
    assert_eq!(passed(&frames), Ok(after_response(&frames)));
}

#[test]
fn a_message_over_the_limit_is_replaced_and_the_next_one_passes() {
    let mut large = vec![b'a'; KEPT];
    large.extend(vec![b'x'; 100_000]);
    large.extend(vec![b'z'; KEPT]);
    let next = frame(0x81, b"next");
    let output = passed(&[frame(0x81, &large), next.clone()]).expect("passed");
    let cut = format!("\0{}\0", large.len()).into_bytes();
    let wanted = [vec![b'a'; KEPT], cut, vec![b'z'; KEPT]].concat();
    assert_eq!(&output[RESPONSE.len()..][..4], [0x81, 126, 0x20, 0x08]);
    assert_eq!(&output[RESPONSE.len() + 4..], [wanted, next].concat());
}

#[test]
fn fragments_over_the_limit_end_as_one_short_message() {
    let mut frames = vec![frame(0x01, &[b'a'; 15_000])];
    frames.extend((0..100).map(|_| frame(0x00, &[b'x'; 15_000])));
    frames.extend([frame(0x80, b"end"), frame(0x81, b"next")]);
    let output = passed(&frames).expect("passed");
    assert!(output.len() < 15_000 + 2 * KEPT, "{}", output.len());
    assert!(output.ends_with(&[b"xend".to_vec(), frame(0x81, b"next")].concat()));
    assert!(output.contains(&CUT));
}

#[test]
fn what_cannot_be_left_out_ends_the_connection() {
    let compressed = passed(&[frame(0xc1, &vec![0; 20_001])]).expect_err("an error");
    assert!(compressed.contains("without compression"), "{compressed}");
    let ping = passed(&[frame(0x89, &[0; 126])]).expect_err("an error");
    assert!(ping.contains("control frame"), "{ping}");
    let pings: Vec<_> = (0..=MAX_CONTROLS).map(|_| frame(0x89, b"")).collect();
    assert!(passed(&pings).expect_err("an error").contains("control frames in a minute"));
    let mut filter = Frames::new(20_000);
    let (mut output, part) = (Vec::new(), frame(0x00, &vec![0; 1024 * 1024]));
    filter.read(RESPONSE, &mut output).expect("passed");
    filter.read(&frame(0x01, b""), &mut output).expect("passed");
    let endless = (0..100).find_map(|_| filter.read(&part, &mut output).err());
    assert!(endless.expect("an error").contains("longer than"));
    assert!(output.len() < 1000, "{}", output.len());
}
