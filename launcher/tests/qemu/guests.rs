//! The guests: boot sectors that do one thing each and say so on COM1.

use crate::asm::{Jump, Sector};

/// Where the BIOS reads to and writes from: right behind the boot sector.
const BUFFER: [u8; 2] = [0x00, 0x7E];

/// Prints a line and powers off.
pub(crate) fn hello() -> Vec<u8> {
    Sector::new()
        .say("hello from the boot sector")
        .power_off()
        .finish()
}

/// Reads the disk's second sector by INT 13h and prints the sum of its 16-bit words.
pub(crate) fn checksum() -> Vec<u8> {
    disk_guest(0x42)
        .bytes(&[0xBE, BUFFER[0], BUFFER[1]]) // mov si, buffer
        .bytes(&[0xB9, 0x00, 0x01, 0x31, 0xDB]) // mov cx, 256; xor bx, bx
        .label("add")
        .bytes(&[0xAD, 0x01, 0xC3]) // lodsw; add bx, ax
        .jump(Jump::Loop, "add")
        .call("hex")
        .say(" is the checksum")
        .power_off()
        .finish()
}

/// Writes the disk's second sector (with whatever memory holds) and says how that went.
pub(crate) fn writer() -> Vec<u8> {
    disk_guest(0x43).say("written").power_off().finish()
}

/// One extended INT 13h call on sector 1; falls through on success, says "failed" otherwise.
fn disk_guest(function: u8) -> Sector {
    let mut sector = Sector::new();
    sector
        .say("disk")
        .with_address(&[0x8A, 0x16], "drive") // mov dl, [drive]
        .with_address(&[0xBE], "packet") // mov si, packet
        .bytes(&[0xB8, 0x00, function, 0xCD, 0x13]) // mov ah, function; int 0x13
        .jump(Jump::Carry, "failed")
        .jump(Jump::Always, "worked")
        .label("packet")
        .bytes(&[0x10, 0, 1, 0]) // its size, one sector
        .bytes(&[BUFFER[0], BUFFER[1], 0, 0]) // offset, segment
        .bytes(&[1, 0, 0, 0, 0, 0, 0, 0]) // sector 1
        .label("failed")
        .say("failed")
        .power_off()
        .label("worked");
    sector
}

/// Waits for the power button and obeys it.
pub(crate) fn obedient() -> Vec<u8> {
    Sector::new()
        .bytes(&[0xBA, 0x02, 0x06, 0xB8, 0x00, 0x01, 0xEF]) // PM1 enable: power button
        .say("ready")
        .label("wait")
        .bytes(&[0xF4]) // hlt until the next timer tick
        .bytes(&[0xBA, 0x00, 0x06, 0xED]) // mov dx, PM1 status; in ax, dx
        .bytes(&[0xF6, 0xC4, 0x01]) // test ah, power button
        .jump(Jump::Zero, "wait")
        .say("button")
        .power_off()
        .finish()
}

/// Never listens to anything.
pub(crate) fn stubborn() -> Vec<u8> {
    Sector::new().say("ready").halt().finish()
}

/// Takes an exception without a table of handlers: the processor resets.
pub(crate) fn triple_fault() -> Vec<u8> {
    Sector::new()
        .say("falling")
        .with_address(&[0x0F, 0x01, 0x1E], "nothing") // lidt [nothing]
        .bytes(&[0xCC]) // int3
        .label("nothing")
        .bytes(&[0, 0, 0, 0, 0, 0])
        .finish()
}

/// Echoes what is typed; `q` powers off.
pub(crate) fn echo() -> Vec<u8> {
    Sector::new()
        .say("ready")
        .label("next")
        .call("get")
        .bytes(&[0x3C, b'q']) // cmp al, 'q'
        .jump(Jump::Zero, "off")
        .call("put")
        .jump(Jump::Always, "next")
        .label("off")
        .say("bye")
        .power_off()
        .finish()
}

/// Prints 64 Ki lines of three characters as fast as the port takes them.
pub(crate) fn chatty() -> Vec<u8> {
    Sector::new()
        .say("ready")
        .bytes(&[0x31, 0xED]) // xor bp, bp
        .label("next")
        .say(".")
        .bytes(&[0x4D]) // dec bp
        .jump(Jump::NotZero, "next")
        .say("done")
        .power_off()
        .finish()
}
