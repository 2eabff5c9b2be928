//! The fixed newstyle handshake: what a client and a server agree upon before the first read.
//!
//! Asked for are structured replies, `base:allocation`, and the export by `NBD_OPT_GO`. All but the
//! last may be refused. Oldstyle servers, and those without `NBD_OPT_GO` (qemu before 2.12, nbd-server
//! before 3.16), are refused by name.

use std::io::{self, Read, Write};

use super::error::NbdError;
use super::wire::{Terms, u16_of, u32_of, u64_of};

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const OLDSTYLE: u64 = 0x0000_4202_8186_1253;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;

const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
const CAN_MULTI_CONN: u16 = 1 << 8;

const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;
const OPT_SET_META_CONTEXT: u32 = 10;

const ACK: u32 = 1;
const INFO: u32 = 3;
const META_CONTEXT: u32 = 4;
const ERROR: u32 = 1 << 31;
const ERR_POLICY: u32 = ERROR + 2;
const ERR_TLS: u32 = ERROR + 5;
const ERR_UNKNOWN: u32 = ERROR + 6;
const ERR_UNSUPPORTED: u32 = ERROR + 1;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// Strings of the protocol have at most 4096 bytes; nothing else is longer.
const MOST_REPLY: u32 = 5 << 10;
/// Replies to one option at the most: there are few things to say.
const MOST_REPLIES: u32 = 64;
/// Of a server's text that is shown.
const MOST_SHOWN: usize = 200;

const CONTEXT: &[u8] = b"base:allocation";

/// A disk that a server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Export {
    pub(crate) size: u64,
    pub(crate) terms: Terms,
    /// Offsets and lengths are multiples of this.
    pub(crate) block: u32,
    /// Most bytes of one read.
    pub(crate) most: u32,
    /// Several connections see the same disk.
    pub(crate) several: bool,
}

/// Reads in pieces of this at most, where the server says nothing: what every server takes.
const USUAL_MOST: u32 = 32 << 20;

/// Goes through the handshake for the export of this name.
pub(crate) fn greet(link: &mut (impl Read + Write), name: &str) -> Result<Export, NbdError> {
    if u64_of(link)? != NBDMAGIC {
        return Err(NbdError::wrong("it is no NBD server"));
    }
    match u64_of(link)? {
        IHAVEOPT => {}
        OLDSTYLE => return Err(too_old("it speaks the oldstyle handshake only")),
        _ => return Err(NbdError::wrong("it is no NBD server")),
    }
    let flags = u16_of(link)?;
    if flags & FIXED_NEWSTYLE == 0 {
        return Err(too_old("it does not speak the fixed newstyle handshake"));
    }
    let ours = FIXED_NEWSTYLE | (flags & NO_ZEROES);
    link.write_all(&u32::from(ours).to_be_bytes())?;
    let structured = option(link, OPT_STRUCTURED_REPLY, &[], |_, _, _| Ok(()))?.is_ok();
    let mut context = None;
    if structured {
        let mut asked = string(name.as_bytes());
        asked.extend(1u32.to_be_bytes());
        asked.extend(string(CONTEXT));
        // Servers that have no contexts refuse, and are read as if all were data.
        let _ = option(link, OPT_SET_META_CONTEXT, &asked, |kind, len, link| {
            if kind != META_CONTEXT {
                return Err(unexpected(kind));
            }
            let id = u32_in(link, len)?;
            let name = rest(link, len - 4)?;
            if name == CONTEXT {
                context = Some(id);
            }
            Ok(())
        })?;
    }
    let mut export = Export {
        size: 0,
        terms: Terms {
            structured,
            context,
        },
        block: 1,
        most: USUAL_MOST,
        several: false,
    };
    go(link, name, &mut export)?;
    Ok(export)
}

fn go(link: &mut (impl Read + Write), name: &str, export: &mut Export) -> Result<(), NbdError> {
    let mut asked = string(name.as_bytes());
    asked.extend(1u16.to_be_bytes());
    asked.extend(INFO_BLOCK_SIZE.to_be_bytes());
    let mut size = None;
    let outcome = option(link, OPT_GO, &asked, |kind, len, link| {
        if kind != INFO {
            return Err(unexpected(kind));
        }
        if len < 2 {
            return Err(NbdError::wrong("an information of no kind"));
        }
        let (what, bytes) = (u16_of(link)?, rest(link, len - 2)?);
        let mut bytes = bytes.as_slice();
        match what {
            INFO_EXPORT => {
                size = Some(u64_of(&mut bytes)?);
                export.several = u16_of(&mut bytes)? & CAN_MULTI_CONN != 0;
            }
            INFO_BLOCK_SIZE => {
                let (least, _preferred) = (u32_of(&mut bytes)?, u32_of(&mut bytes)?);
                let most = u32_of(&mut bytes)?;
                // Limits of the protocol: anything else would have us divide by zero or read forever.
                if !least.is_power_of_two() || least > 64 << 10 || most < least.max(4096) {
                    return Err(NbdError::wrong("its block sizes make no sense"));
                }
                (export.block, export.most) = (least, most.min(USUAL_MOST));
            }
            _ => {}
        }
        Ok(())
    })?;
    match (outcome, size) {
        (Ok(()), Some(size)) if i64::try_from(size).is_ok() => {
            export.size = size;
            Ok(())
        }
        (Ok(()), _) => Err(NbdError::wrong("it does not say how large the disk is")),
        (Err(refusal), _) => Err(match refusal.kind {
            ERR_TLS => NbdError::Tls,
            ERR_UNSUPPORTED => too_old("it has no NBD_OPT_GO"),
            kind => NbdError::Refused {
                export: name.to_owned(),
                why: match (refusal.text, kind) {
                    (text, _) if !text.is_empty() => text,
                    (_, ERR_UNKNOWN) => "there is no export of this name".to_owned(),
                    (_, ERR_POLICY) => "its policy forbids it".to_owned(),
                    (_, kind) => format!("error {}", kind - ERROR),
                },
            },
        }),
    }
}

/// An option was not granted.
struct Refusal {
    kind: u32,
    text: String,
}

/// Sends an option and takes the replies to it. `take` gets all but the last: kind, length, and where the
/// bytes are, all of which it reads.
fn option<L: Read + Write>(
    link: &mut L,
    option: u32,
    data: &[u8],
    mut take: impl FnMut(u32, u32, &mut L) -> Result<(), NbdError>,
) -> Result<Result<(), Refusal>, NbdError> {
    let mut asked = IHAVEOPT.to_be_bytes().to_vec();
    asked.extend(option.to_be_bytes());
    asked.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
    asked.extend(data);
    link.write_all(&asked)?;
    link.flush()?;
    for _ in 0..MOST_REPLIES {
        if u64_of(link)? != OPTION_REPLY {
            return Err(NbdError::wrong(
                "what should be a reply to an option is none",
            ));
        }
        if u32_of(link)? != option {
            return Err(NbdError::wrong("it replied to an option nobody sent"));
        }
        let (kind, len) = (u32_of(link)?, u32_of(link)?);
        if len > MOST_REPLY {
            return Err(NbdError::wrong(format!(
                "a reply to an option has {len} bytes"
            )));
        }
        if kind == ACK {
            rest(link, len)?;
            return Ok(Ok(()));
        }
        if kind & ERROR != 0 {
            let text = shown(&rest(link, len)?);
            return Ok(Err(Refusal { kind, text }));
        }
        take(kind, len, link)?;
    }
    Err(NbdError::wrong("its replies to an option do not end"))
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap_or(0);
    let mut all = len.to_be_bytes().to_vec();
    all.extend(bytes);
    all
}

fn u32_in(link: &mut impl Read, len: u32) -> Result<u32, NbdError> {
    if len < 4 {
        return Err(NbdError::wrong("a reply to an option is cut"));
    }
    Ok(u32_of(link)?)
}

/// `len` bytes, which is no more than [`MOST_REPLY`].
fn rest(link: &mut impl Read, len: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    link.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn unexpected(kind: u32) -> NbdError {
    NbdError::wrong(format!(
        "a reply of kind {kind} to an option makes no sense"
    ))
}

fn too_old(why: &str) -> NbdError {
    NbdError::Unsupported {
        what: format!("{why}: use a newer server"),
    }
}

/// A server's text for people: one line, and not without end.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MOST_SHOWN).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says what it says, whatever it is told.
    struct Script {
        says: io::Cursor<Vec<u8>>,
        told: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.says.read(buf)
        }
    }

    impl Write for Script {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.told.extend(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn hello(magic: u64, flags: u16) -> Vec<u8> {
        let mut says = NBDMAGIC.to_be_bytes().to_vec();
        says.extend(magic.to_be_bytes());
        says.extend(flags.to_be_bytes());
        says
    }

    fn reply(says: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
        says.extend(OPTION_REPLY.to_be_bytes());
        says.extend(option.to_be_bytes());
        says.extend(kind.to_be_bytes());
        says.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        says.extend(data);
    }

    fn greeted(says: Vec<u8>) -> Result<Export, NbdError> {
        let mut script = Script {
            says: io::Cursor::new(says),
            told: Vec::new(),
        };
        greet(&mut script, "disk")
    }

    fn info(size: u64) -> Vec<u8> {
        let mut data = INFO_EXPORT.to_be_bytes().to_vec();
        data.extend(size.to_be_bytes());
        data.extend([0, 1]);
        data
    }

    #[test]
    fn a_server_that_grants_nothing_but_the_export_is_read_simply() {
        let mut says = hello(IHAVEOPT, 3);
        reply(&mut says, OPT_STRUCTURED_REPLY, ERR_UNSUPPORTED, b"");
        reply(&mut says, OPT_GO, INFO, &info(1 << 30));
        reply(&mut says, OPT_GO, ACK, b"");
        let export = greeted(says).unwrap();
        assert_eq!(export.size, 1 << 30);
        assert!(!export.terms.structured && export.terms.context.is_none());
        assert!(!export.several);
    }

    #[test]
    fn all_that_is_granted_is_used() {
        let mut says = hello(IHAVEOPT, 1);
        reply(&mut says, OPT_STRUCTURED_REPLY, ACK, b"");
        let mut context = 77u32.to_be_bytes().to_vec();
        context.extend(CONTEXT);
        reply(&mut says, OPT_SET_META_CONTEXT, META_CONTEXT, &context);
        reply(&mut says, OPT_SET_META_CONTEXT, ACK, b"");
        let mut sizes = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [512u32, 4096, 1 << 20] {
            sizes.extend(size.to_be_bytes());
        }
        reply(&mut says, OPT_GO, INFO, &sizes);
        reply(&mut says, OPT_GO, INFO, &info(5));
        reply(&mut says, OPT_GO, ACK, b"");
        let export = greeted(says).unwrap();
        assert_eq!(export.terms.context, Some(77));
        assert!(!export.several);
        assert_eq!((export.block, export.most), (512, 1 << 20));
    }

    #[test]
    fn what_is_no_server_of_ours_is_refused() {
        let refused = |says| greeted(says).unwrap_err();
        assert!(matches!(
            refused(b"SSH-2.0-OpenSSH_9.2 and more".to_vec()),
            NbdError::Protocol { .. }
        ));
        for says in [hello(OLDSTYLE, 0), hello(IHAVEOPT, 0)] {
            assert!(matches!(refused(says), NbdError::Unsupported { .. }));
        }
        assert!(matches!(refused(hello(7, 1)), NbdError::Protocol { .. }));
        assert!(matches!(refused(vec![0; 3]), NbdError::Broken { .. }));
    }

    #[test]
    fn endless_and_oversized_replies_end() {
        let start = || {
            let mut says = hello(IHAVEOPT, 3);
            reply(&mut says, OPT_STRUCTURED_REPLY, ERR_UNSUPPORTED, b"");
            says
        };
        let mut endless = start();
        for _ in 0..1000 {
            reply(&mut endless, OPT_GO, INFO, &info(1));
        }
        assert!(matches!(greeted(endless), Err(NbdError::Protocol { .. })));
        let mut huge = start();
        huge.extend(OPTION_REPLY.to_be_bytes());
        for word in [OPT_GO, INFO, u32::MAX] {
            huge.extend(word.to_be_bytes());
        }
        assert!(matches!(greeted(huge), Err(NbdError::Protocol { .. })));
        let mut sizes = start();
        let mut none = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        none.extend([0; 12]);
        reply(&mut sizes, OPT_GO, INFO, &none);
        assert!(matches!(greeted(sizes), Err(NbdError::Protocol { .. })));
    }

    #[test]
    fn a_refusal_says_why_in_one_line() {
        let mut says = hello(IHAVEOPT, 3);
        reply(&mut says, OPT_STRUCTURED_REPLY, ERR_UNSUPPORTED, b"");
        reply(&mut says, OPT_GO, ERR_UNKNOWN, b"no\nsuch\x1b[31m export");
        let Err(NbdError::Refused { export, why }) = greeted(says) else {
            unreachable!("it is refused")
        };
        assert_eq!(export, "disk");
        assert_eq!(why, "no such [31m export");
        let mut says = hello(IHAVEOPT, 3);
        reply(&mut says, OPT_STRUCTURED_REPLY, ERR_TLS, b"");
        reply(&mut says, OPT_GO, ERR_TLS, b"");
        assert!(matches!(greeted(says), Err(NbdError::Tls)));
    }
}
