//! RFC 6455 read naively: one pass over the whole input, with nothing shared with the decoder.

use fanfare::frame::Violation;

/// What a peer sent.
#[derive(Debug, PartialEq)]
pub enum Seen {
    Binary(Vec<u8>),
    Close(Option<u16>),
    Fragment,
    Ping(Vec<u8>),
    Pong,
    Text(String),
}

/// What the input holds, up to the first rule it breaks.
pub fn reference(input: &[u8], max: usize) -> (Vec<Seen>, Option<Violation>) {
    let mut seen = Vec::new();
    let outcome = read(input, max, &mut seen);
    (seen, outcome.err())
}

/// An open message: whether it is text, and its payload so far.
type Open = Option<(bool, Vec<u8>)>;

fn read(input: &[u8], max: usize, seen: &mut Vec<Seen>) -> Result<(), Violation> {
    let mut open: Open = None;
    let mut at = 0;
    loop {
        let Some(&first) = input.get(at) else { return Ok(()) };
        let (fin, opcode) = (first >= 0x80, first & 0x0f);
        refuse_if(first & 0x70 != 0)?;
        refuse_if(!matches!(opcode, 0..=2 | 8..=10))?;
        refuse_if(opcode >= 8 && !fin)?;
        let Some(&second) = input.get(at + 1) else { return Ok(()) };
        refuse_if(second < 0x80)?;
        let short = second & 0x7f;
        refuse_if(opcode >= 8 && short > 125)?;
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(bytes) = input.get(at + 2..at + 2 + extended) else { return Ok(()) };
        let claimed = bytes.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        refuse_if(extended == 2 && claimed < 126)?;
        refuse_if(extended == 8 && claimed < 65_536)?;
        refuse_if(claimed >= 1 << 63)?;
        let length = if extended == 0 { u64::from(short) } else { claimed };
        at += 2 + extended;
        let Some(mask) = input.get(at..at + 4) else { return Ok(()) };
        at += 4;
        refuse_if(opcode == 0 && open.is_none())?;
        refuse_if(matches!(opcode, 1 | 2) && open.is_some())?;
        let held = open.as_ref().map_or(0, |(_, payload)| payload.len());
        if opcode < 8 && held as u64 + length > max as u64 {
            return Err(Violation::TooBig);
        }
        let end = input.len().min(at + length as usize);
        let payload =
            input[at..end].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let payload: Vec<u8> = payload.collect();
        let is_whole = payload.len() as u64 == length;
        at = end;
        if opcode >= 8 {
            if !is_whole {
                return Ok(());
            }
            seen.push(control(opcode, payload)?);
            continue;
        }
        let (is_text, mut message) = open.take().unwrap_or((opcode == 1, Vec::new()));
        message.extend(payload);
        if is_text && std::str::from_utf8(&message).is_err_and(|bad| bad.error_len().is_some()) {
            return Err(Violation::Utf8);
        }
        if !is_whole {
            return Ok(());
        }
        if !fin {
            open = Some((is_text, message));
            seen.push(Seen::Fragment);
        } else if is_text {
            seen.push(Seen::Text(String::from_utf8(message).map_err(|_| Violation::Utf8)?));
        } else {
            seen.push(Seen::Binary(message));
        }
    }
}

fn control(opcode: u8, payload: Vec<u8>) -> Result<Seen, Violation> {
    match opcode {
        8 => {}
        9 => return Ok(Seen::Ping(payload)),
        _ => return Ok(Seen::Pong),
    }
    if payload.is_empty() {
        return Ok(Seen::Close(None));
    }
    refuse_if(payload.len() == 1)?;
    let code = u16::from(payload[0]) << 8 | u16::from(payload[1]);
    let may_be_sent = match code {
        1000..=2999 => code <= 1014 && !matches!(code, 1004..=1006),
        3000..=4999 => true,
        _ => false,
    };
    refuse_if(!may_be_sent)?;
    std::str::from_utf8(&payload[2..]).map_err(|_| Violation::Utf8)?;
    Ok(Seen::Close(Some(code)))
}

fn refuse_if(is_broken: bool) -> Result<(), Violation> {
    if is_broken { Err(Violation::Protocol("")) } else { Ok(()) }
}
