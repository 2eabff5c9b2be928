//! An assembler of a dozen instructions: enough for a boot sector, and no tool to install.

use std::collections::HashMap;

/// Where the BIOS loads a boot sector, and starts it, in real mode.
const ORIGIN: u16 = 0x7C00;

/// Jumps with an 8-bit displacement.
#[derive(Clone, Copy)]
pub(crate) enum Jump {
    Always = 0xEB,
    Zero = 0x74,
    NotZero = 0x75,
    Carry = 0x72,
    BelowOrEqual = 0x76,
    /// Decrements CX and jumps while it is not zero.
    Loop = 0xE2,
}

enum Fix {
    Relative8,
    Relative16,
    Absolute16,
}

#[derive(Default)]
pub(crate) struct Sector {
    code: Vec<u8>,
    labels: HashMap<&'static str, usize>,
    fixes: Vec<(usize, Fix, &'static str)>,
}

impl Sector {
    /// Segments at zero, a stack below the code, interrupts on, DL (the boot drive) kept in `drive`.
    pub(crate) fn new() -> Self {
        let mut sector = Self::default();
        sector
            .bytes(&[0xFA]) // cli
            .bytes(&[0x31, 0xC0]) // xor ax, ax
            .bytes(&[0x8E, 0xD8, 0x8E, 0xC0, 0x8E, 0xD0]) // mov ds, ax; mov es, ax; mov ss, ax
            .bytes(&[0xBC, 0x00, 0x7C]) // mov sp, 0x7C00
            .bytes(&[0xFB, 0xFC]) // sti; cld
            .with_address(&[0x88, 0x16], "drive"); // mov [drive], dl
        sector
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.code.extend_from_slice(bytes);
        self
    }

    pub(crate) fn label(&mut self, name: &'static str) -> &mut Self {
        assert!(
            self.labels.insert(name, self.code.len()).is_none(),
            "{name} twice"
        );
        self
    }

    pub(crate) fn jump(&mut self, jump: Jump, target: &'static str) -> &mut Self {
        self.code.push(jump as u8);
        self.fix(Fix::Relative8, target)
    }

    pub(crate) fn call(&mut self, target: &'static str) -> &mut Self {
        self.code.push(0xE8);
        self.fix(Fix::Relative16, target)
    }

    /// An instruction that ends in the 16-bit address of a label.
    pub(crate) fn with_address(&mut self, opcode: &[u8], target: &'static str) -> &mut Self {
        self.code.extend_from_slice(opcode);
        self.fix(Fix::Absolute16, target)
    }

    fn fix(&mut self, fix: Fix, target: &'static str) -> &mut Self {
        self.fixes.push((self.code.len(), fix, target));
        let width = if matches!(self.fixes.last(), Some((_, Fix::Relative8, _))) {
            1
        } else {
            2
        };
        self.code.extend(std::iter::repeat_n(0, width));
        self
    }

    /// Prints a line on COM1.
    pub(crate) fn say(&mut self, text: &'static str) -> &mut Self {
        // The text lies in the code; the call leaves its address on the stack and returns behind it.
        self.call("print").bytes(text.as_bytes()).bytes(b"\r\n\0")
    }

    /// Port numbers are for q35 under SeaBIOS, which puts the ACPI registers at 0x600.
    pub(crate) fn power_off(&mut self) -> &mut Self {
        self.bytes(&[0xBA, 0x04, 0x06]) // mov dx, 0x604: PM1a control
            .bytes(&[0xB8, 0x00, 0x20]) // mov ax, SLP_EN, sleep type 0: soft off
            .bytes(&[0xEF]) // out dx, ax
            .halt()
    }

    /// Stands still, taking interrupts.
    pub(crate) fn halt(&mut self) -> &mut Self {
        self.bytes(&[0xF4, 0xEB, 0xFD]) // hlt; jmp to it
    }

    /// The finished sector: subroutines, data and signature added, addresses filled in.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.subroutines();
        for (at, fix, target) in &self.fixes {
            let target = *self
                .labels
                .get(target)
                .unwrap_or_else(|| panic!("no label {target}"));
            match fix {
                Fix::Relative8 => {
                    let distance = i8::try_from(distance(*at + 1, target)).expect("a short jump");
                    self.code[*at] = distance.cast_unsigned();
                }
                Fix::Relative16 => {
                    let distance = i16::try_from(distance(*at + 2, target)).unwrap();
                    self.code[*at..*at + 2].copy_from_slice(&distance.to_le_bytes());
                }
                Fix::Absolute16 => {
                    let address = ORIGIN + u16::try_from(target).unwrap();
                    self.code[*at..*at + 2].copy_from_slice(&address.to_le_bytes());
                }
            }
        }
        assert!(
            self.code.len() <= 510,
            "{} bytes are no boot sector",
            self.code.len()
        );
        let mut sector = self.code.clone();
        sector.resize(510, 0);
        sector.extend([0x55, 0xAA]);
        sector
    }

    fn subroutines(&mut self) {
        // print: the zero-terminated text behind the call
        self.label("print")
            .bytes(&[0x5E]) // pop si
            .label("print.next")
            .bytes(&[0xAC, 0x84, 0xC0]) // lodsb; test al, al
            .jump(Jump::Zero, "print.done")
            .call("put")
            .jump(Jump::Always, "print.next")
            .label("print.done")
            .bytes(&[0xFF, 0xE6]); // jmp si
        // put: AL to COM1
        self.label("put")
            .bytes(&[0x88, 0xC4]) // mov ah, al
            .bytes(&[0xBA, 0xFD, 0x03]) // mov dx, line status
            .label("put.wait")
            .bytes(&[0xEC, 0xA8, 0x20]) // in al, dx; test al, transmitter empty
            .jump(Jump::Zero, "put.wait")
            .bytes(&[0x88, 0xE0]) // mov al, ah
            .bytes(&[0xBA, 0xF8, 0x03, 0xEE, 0xC3]); // mov dx, data; out dx, al; ret
        // get: AL from COM1
        self.label("get")
            .bytes(&[0xBA, 0xFD, 0x03]) // mov dx, line status
            .label("get.wait")
            .bytes(&[0xEC, 0xA8, 0x01]) // in al, dx; test al, data ready
            .jump(Jump::Zero, "get.wait")
            .bytes(&[0xBA, 0xF8, 0x03, 0xEC, 0xC3]); // mov dx, data; in al, dx; ret
        // hex: BX as four digits to COM1
        self.label("hex")
            .bytes(&[0xB9, 0x04, 0x00]) // mov cx, 4
            .label("hex.next")
            .bytes(&[0xC1, 0xC3, 0x04]) // rol bx, 4
            .bytes(&[0x88, 0xD8, 0x24, 0x0F, 0x04, 0x30]) // mov al, bl; and al, 15; add al, '0'
            .bytes(&[0x3C, 0x39]) // cmp al, '9'
            .jump(Jump::BelowOrEqual, "hex.digit")
            .bytes(&[0x04, 0x07]) // add al, 'A' - '9' - 1
            .label("hex.digit")
            .call("put")
            .jump(Jump::Loop, "hex.next")
            .bytes(&[0xC3]); // ret
        self.label("drive").bytes(&[0]);
    }
}

/// From the end of a jump to its target.
fn distance(from: usize, to: usize) -> i64 {
    i64::try_from(to).unwrap() - i64::try_from(from).unwrap()
}
