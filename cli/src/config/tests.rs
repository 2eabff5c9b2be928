use clap::Parser as _;
use longshore_transfer::Memory;

use super::*;

fn config(line: &str) -> Result<Config, UsageError> {
    let words = std::iter::once("longshore").chain(line.split_whitespace());
    let args = Args::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
    Config::try_from(args)
}

fn copied(line: &str) -> Copy {
    match config(line) {
        Ok(Config::Copy(copy)) => *copy,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn defaults_are_those_of_the_help() {
    let copy = copied("convert in out");
    assert_eq!(copy.place, Place::File("in".into()));
    assert_eq!(copy.target.path, Path::new("out"));
    assert_eq!(copy.target.preallocate, Preallocate::Off);
    assert_eq!(copy.target.cache, Cache::Writeback);
    assert_eq!((copy.target.sync, copy.target.size), (false, None));
    assert_eq!(copy.options.from, None);
    assert_eq!(copy.options.spill_limit, 1 << 30);
    assert_eq!(copy.options.memory, Memory::from_cgroup());
    assert_eq!(copy.progress, Mode::Auto);
    assert_eq!(copy.content, Content::Disk);
    assert!(!copy.target.force_share);
}

#[test]
fn every_option_arrives() {
    let copy = copied(
        "import --from qcow2 --threads 3 --preallocate full --memory 64Mi --cache none \
         --spill-limit 100M --force-share --progress json --size 1.5G --content-type kubevirt \
         --checksum SHA1:DA39A3EE5E6B4B0D3255BFEF95601890AFD80709 --ca a.pem --ca b.pem \
         --user ann:p:w https://host/x out",
    );
    assert_eq!(copy.place, Place::Remote("https://host/x".to_owned()));
    assert_eq!(copy.options.from, Some(Format::Qcow2));
    assert_eq!(copy.options.threads, 3);
    assert_eq!(copy.options.memory, Memory::of(64 << 20));
    assert_eq!(copy.options.spill_limit, 100_000_000);
    let checksum = copy.options.checksum.unwrap();
    assert_eq!(checksum.hex, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    let target = copy.target;
    assert_eq!(target.preallocate, Preallocate::Full);
    assert_eq!(target.cache, Cache::None);
    assert_eq!(target.size, Some(1_500_000_000));
    assert!(target.sync, "an import is always durable");
    assert!(target.force_share && copy.source_options.force_share);
    assert_eq!(copy.progress, Mode::Json);
    let auth = copy.source_options.basic_auth.unwrap();
    assert_eq!((auth.user.as_str(), auth.password.as_str()), ("ann", "p:w"));
    assert_eq!(copy.source_options.ca.len(), 2);
}

#[test]
fn what_is_written_is_raw_unless_said_otherwise() {
    let format = |line: &str| copied(line).target.format;
    assert_eq!(format("convert in out"), TargetFormat::Raw);
    assert_eq!(format("convert --to raw in out"), TargetFormat::Raw);
    assert_eq!(format("import in out"), TargetFormat::Raw);
    let plain = Qcow2Spec::default();
    assert_eq!(
        format("convert -O qcow2 in out"),
        TargetFormat::Qcow2(plain)
    );
    let packed = Qcow2Spec {
        cluster_size: 2 << 20,
        compression: Some(Encoding::new(ClusterCodec::Zstd, Some(7)).unwrap()),
    };
    let line = "convert --output-format qcow2 -c --compression zstd --level 7 --cluster-size 2Mi \
                --size 1Gi in out";
    let target = copied(line).target;
    assert_eq!(target.format, TargetFormat::Qcow2(packed));
    assert_eq!(target.size, Some(1 << 30));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let refused = |line: &str| config(line).err().unwrap_or_else(|| panic!("{line}"));
    for line in [
        "convert in out --memory 0",
        "convert in out --memory=-1Gi",
        "convert in out --spill-limit=-1",
        "import in out --size 0",
    ] {
        assert!(matches!(refused(line), UsageError::Amount { .. }), "{line}");
    }
    for (line, option) in [
        ("convert in out --compress", "compress"),
        ("convert in out --cluster-size 64Ki", "cluster-size"),
    ] {
        let refused = refused(line);
        assert!(
            matches!(refused, UsageError::RawHasNone { option: o } if o == option),
            "{line}"
        );
    }
    for line in ["0", "3", "65537", "4Mi"] {
        let line = format!("convert in out -O qcow2 --cluster-size {line}");
        assert!(
            matches!(refused(&line), UsageError::Amount { .. }),
            "{line}"
        );
    }
    let preallocated = refused("convert in out -O qcow2 --preallocate falloc");
    assert!(matches!(preallocated, UsageError::PreallocatedImage));
    let import = refused("import in out -O qcow2");
    assert!(matches!(import, UsageError::ImportIsRaw));
    for line in ["convert in -", "import in -"] {
        assert!(matches!(refused(line), UsageError::StdoutTarget), "{line}");
    }
    for line in ["convert in s3://bucket/key", "import in https://host/out"] {
        let refused = refused(line);
        assert!(matches!(refused, UsageError::RemoteTarget { .. }), "{line}");
    }
    for line in ["convert in /", "convert in .."] {
        assert!(matches!(refused(line), UsageError::NoName { .. }), "{line}");
    }
    for line in [
        "info --backing same-dir -",
        "map --backing same-dir https://host/x",
        "convert --backing same-dir - out",
    ] {
        let refused = refused(line);
        assert!(matches!(refused, UsageError::NoDirectory { .. }), "{line}");
    }
    let refused = refused("convert http://ann:hush@host/x?sig=hush out");
    assert!(!refused.to_string().contains("hush"), "{refused}");
}

#[test]
fn a_spill_limit_of_nothing_is_allowed() {
    assert_eq!(
        copied("convert --spill-limit 0 in out").options.spill_limit,
        0
    );
}

#[test]
fn the_command_line_is_well_formed() {
    use clap::CommandFactory as _;
    Args::command().debug_assert();
}

#[test]
fn what_an_import_is_of_is_the_type_and_the_word() {
    let content = |line: &str| copied(line).content;
    assert_eq!(
        content("import a.tar out --content-type archive"),
        Content::Files
    );
    assert_eq!(content("import blank: out --size 1G"), Content::Blank);
    assert_eq!(content("import ./blank: out"), Content::Disk);
    for line in [
        "import blank: out --content-type archive",
        "import blank: out --checksum md5:00112233445566778899aabbccddeeff",
        "import a.tar out --content-type archive --size 1G",
        "import a.tar out --content-type archive --preallocate full",
        "import a.tar out --content-type archive --cache none",
    ] {
        assert!(config(line).is_err(), "{line}");
    }
}
