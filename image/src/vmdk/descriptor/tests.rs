//! Descriptors of all sorts.

use super::*;
use crate::ErrorKind;

fn line(access: Access, sectors: u64, kind: &str, file: Option<&str>, offset: u64) -> ExtentLine {
    ExtentLine {
        access,
        sectors,
        kind: kind.to_owned(),
        file: file.map(str::to_owned),
        offset,
    }
}

#[test]
fn a_descriptor_of_several_files_is_understood() {
    let text = b"# Disk DescriptorFile\r\nversion=1\r\nencoding=\"UTF-8\"\r\nCID=fffffffe\r\n\
        parentCID=ffffffff\r\nisNativeSnapshot=\"no\"\r\n\
        createType = \"twoGbMaxExtentSparse\"\r\n\r\n# Extent description\r\n\
        RW 4192256 SPARSE \"disk one-s001.vmdk\"\r\nRDONLY  2048\tFLAT   \"disk-flat.vmdk\" 128\r\n\
        \t RW 77 ZERO\r\nNOACCESS 1 VMFS \"x\"\r\nddb.adapterType = \"ide\"\r\n\0\0RW 1 ZERO";
    let descriptor = Descriptor::parse(text).unwrap();
    assert_eq!(
        descriptor.extents,
        [
            line(
                Access::ReadWrite,
                4_192_256,
                "SPARSE",
                Some("disk one-s001.vmdk"),
                0
            ),
            line(Access::ReadOnly, 2048, "FLAT", Some("disk-flat.vmdk"), 128),
            line(Access::ReadWrite, 77, "ZERO", None, 0),
            line(Access::None, 1, "VMFS", Some("x"), 0),
        ]
    );
    assert_eq!(
        descriptor.create_type.as_deref(),
        Some("twoGbMaxExtentSparse")
    );
    assert_eq!(
        (descriptor.cid, descriptor.parent_cid),
        (Some(0xFFFF_FFFE), Some(u32::MAX))
    );
    assert_eq!(descriptor.parent().unwrap(), None);
    assert_eq!(descriptor.bad_line, None);
}

#[test]
fn line_ends_of_all_sorts_end_lines() {
    let text = "# Disk DescriptorFile\nCID=1\nRW 1 ZERO\nRW 2 FLAT \"a\" 3\n";
    let expected = Descriptor::parse(text.as_bytes()).unwrap();
    assert_eq!(expected.extents.len(), 2);
    for end in ["\r\n", "\r", "\n\n", " \t\r\r\n"] {
        let other = text.replace('\n', end);
        assert_eq!(Descriptor::parse(other.as_bytes()).unwrap(), expected);
    }
    let marked = format!("\u{feff}{text}");
    assert_eq!(Descriptor::parse(marked.as_bytes()).unwrap(), expected);
}

#[test]
fn content_ids_are_hexadecimal_of_any_length() {
    for (text, id) in [
        ("123a", 0x123a),
        ("FFFFFFFE", 0xffff_fffe),
        ("0x1f", 0x1f),
        ("00000000deadbeef", 0xdead_beef),
        ("123456789abcdef0", 0x9abc_def0),
        ("\"12\"", 0x12),
        ("12 # twelve", 0x12),
    ] {
        let descriptor = Descriptor::parse(format!("CID = {text}\n").as_bytes()).unwrap();
        assert_eq!(descriptor.cid, Some(id), "{text}");
    }
    for text in ["", "xyz", "\"\"", "-1"] {
        let e = Descriptor::parse(format!("parentCID={text}\n").as_bytes()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{text}");
    }
}

#[test]
fn names_are_read_in_the_encoding_that_is_named() {
    let name = |bytes: &[u8]| {
        let descriptor = Descriptor::parse(bytes).unwrap();
        descriptor.extents[0].file.clone().unwrap()
    };
    let german = b"encoding=\"windows-1252\"\nRW 1 SPARSE \"gr\xf6\xdfe \x80.vmdk\"\n";
    assert_eq!(name(german), "größe €.vmdk");
    // What says windows-1252 and is UTF-8 was converted since.
    let utf8 = "encoding=\"windows-1252\"\nRW 1 SPARSE \"größe.vmdk\"\n";
    assert_eq!(name(utf8.as_bytes()), "größe.vmdk");
    assert_eq!(name(b"RW 1 SPARSE \"gr\xf6e\"\n"), "gr\u{fffd}e");
    assert_eq!(
        name(b"RW 1 FLAT \"D:\\VMs\\a b.vmdk\" 0"),
        "D:\\VMs\\a b.vmdk"
    );
}

#[test]
fn a_parent_is_what_the_hint_names() {
    let parse = |text: &str| Descriptor::parse(text.as_bytes()).unwrap().parent();
    let parent = parse("parentCID=12\nparentFileNameHint=\"a b.vmdk\"").unwrap();
    assert_eq!(parent.unwrap().name, "a b.vmdk");
    assert_eq!(parse("parentCID=0\n").unwrap(), None);
    assert_eq!(parse("parentFileNameHint=\"\"").unwrap(), None);
    assert_eq!(
        parse("parentCID=12\n").unwrap_err().kind(),
        ErrorKind::Malformed
    );
}

#[test]
fn what_is_not_text_is_no_panic_and_lists_are_bounded() {
    Descriptor::parse(&[0xFF; 3000]).unwrap();
    for text in [
        "RW",
        "RW 1",
        "RW x y",
        "RW 1 ZERO \"",
        "RW -1 FLAT \"a\" 0",
        "RW 1 FLAT \"a\" -1",
        "RW 1 \"a\"",
        "RW 99999999999999999999 ZERO",
    ] {
        let text = format!("=\n=\"\nCID2\n\"\n{text}");
        let descriptor = Descriptor::parse(text.as_bytes()).unwrap();
        assert!(descriptor.bad_line.is_some(), "{text}");
        assert!(descriptor.extents.is_empty(), "{text}");
    }
    let many = "RW 1 ZERO\n".repeat(9000);
    let e = Descriptor::parse(many.as_bytes()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Malformed);
}

#[test]
fn descriptors_are_known_by_their_title_or_by_their_version() {
    for text in [
        "# Disk DescriptorFile",
        "# Disk DescriptorFile\r\nversion=7\n",
        "# disk descriptorfile\n",
        "\u{feff}# Disk DescriptorFile\n",
        "version=1\nCID=1\n",
        "# made by hand\n \r\n\nversion=3\r\n",
    ] {
        assert!(is_one(text.as_bytes()), "{text:?}");
    }
    for text in [
        "",
        "#",
        "# Disk",
        "version=1",
        "version=4\n",
        "a\nversion=1\n",
    ] {
        assert!(!is_one(text.as_bytes()), "{text:?}");
    }
}
