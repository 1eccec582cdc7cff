//! Software RAID arrays, out of `/proc/mdstat` and `/sys/block/md*/md`.

use std::{io, path::Path};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples, host,
    sysfs::{Attribute, Buffer},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "mdadm", default_on: true, flags: &[], build };

static REQUIRED: Desc =
    Desc::gauge("node_md_disks_required", "Total number of disks of device.", &["device"]);
static DISKS: Desc =
    Desc::gauge("node_md_disks", "Number of active/failed/spare disks of device.", &["device", "state"]);
static STATE: Desc = Desc::gauge("node_md_state", "Indicates the state of md-device.", &["device", "state"]);
static BLOCKS: Desc = Desc::gauge("node_md_blocks", "Total number of blocks on device.", &["device"]);
static SYNCED: Desc = Desc::gauge("node_md_blocks_synced", "Number of blocks synced on device.", &["device"]);
static RAID_DISKS: Desc = Desc::gauge("node_md_raid_disks", "Number of raid disks on device.", &["device"]);
static DEGRADED: Desc = Desc::gauge("node_md_degraded", "Number of degraded disks on device.", &["device"]);

/// The states that are said of every array, and what each is called here.
const STATES: [(&str, State); 5] = [
    ("active", State::Active),
    ("inactive", State::Inactive),
    ("recovering", State::Recovering),
    ("resync", State::Resyncing),
    ("check", State::Checking),
];

struct Mdadm {
    mdstat: HostFile,
    devices: Vec<Device>,
    buffer: Buffer,
}

/// An array's files; a machine has few arrays, and their files stay open.
struct Device {
    name: String,
    level: Attribute,
    raid_disks: Attribute,
    degraded: Attribute,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Mdadm {
        mdstat: HostFile::new(host.proc("mdstat")),
        devices: Vec::new(),
        buffer: Buffer::default(),
    }))
}

impl Collector for Mdadm {
    /// The file is there only while the driver is loaded.
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let said = self.mdstat.parse(|text| {
            for array in parse_mdstat(text)? {
                array.say(out);
            }
            Ok(())
        });
        said.map_err(CollectError::missing_is_no_data)?;
        self.follow(&host.sys("block"));
        let mut failed = None;
        for device in &mut self.devices {
            match device.read(&mut self.buffer) {
                Ok(Some(disks)) => disks.say(&device.name, out),
                // Stopped by now.
                Ok(None) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Mdadm {
    /// Takes up the arrays that are there now.
    fn follow(&mut self, block: &Path) {
        let mut names = host::list_dir(block).unwrap_or_default();
        names.retain(|name| name.starts_with("md"));
        if names.iter().eq(self.devices.iter().map(|device| &device.name)) {
            return;
        }
        self.devices = names.into_iter().map(|name| Device::new(block, name)).collect();
    }
}

/// The numbers that sysfs has of an array.
#[derive(Debug, PartialEq)]
struct Disks {
    /// None where the array has no disks of its own, or is being reshaped.
    raid_disks: Option<u64>,
    degraded: u64,
}

impl Disks {
    fn say(&self, device: &str, out: &mut Samples) {
        if let Some(disks) = self.raid_disks {
            out.push(&RAID_DISKS, &[device], disks as f64);
        }
        out.push(&DEGRADED, &[device], self.degraded as f64);
    }
}

impl Device {
    fn new(block: &Path, name: String) -> Self {
        let attribute = |file: &str| Attribute::new(block.join(&name).join("md").join(file));
        Self {
            level: attribute("level"),
            raid_disks: attribute("raid_disks"),
            degraded: attribute("degraded"),
            name,
        }
    }

    /// Nothing for what is no array, or is one no more.
    fn read(&mut self, buffer: &mut Buffer) -> Result<Option<Disks>, CollectError> {
        // Not kept: an array can be reshaped to another level.
        let Some(level) = read(&mut self.level, buffer)? else { return Ok(None) };
        // A container has no disks of its own, the arrays in it have.
        let has_disks = !matches!(level, "" | "container" | "imsm" | "ddf");
        let can_degrade = matches!(level, "raid1" | "raid4" | "raid5" | "raid6" | "raid10");
        let mut disks = Disks { raid_disks: None, degraded: 0 };
        if has_disks {
            let Some(text) = read(&mut self.raid_disks, buffer)? else { return Ok(None) };
            disks.raid_disks = parse_raid_disks(text);
        }
        if can_degrade {
            let Some(text) = read(&mut self.degraded, buffer)? else { return Ok(None) };
            disks.degraded = text.parse().map_err(|_| {
                CollectError::parse(self.degraded.path(), format!("expected a number, got {text:?}"))
            })?;
        }
        Ok(Some(disks))
    }
}

/// The text of an attribute; nothing when it is not there.
fn read<'a>(attribute: &mut Attribute, buffer: &'a mut Buffer) -> Result<Option<&'a str>, CollectError> {
    match attribute.read(buffer) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(CollectError::Read { path: attribute.path().to_owned(), source }),
    }
}

/// `raid_disks`: "4", or "5 (4)" while an array of four grows to five.
fn parse_raid_disks(text: &str) -> Option<u64> {
    text.split(' ').next()?.parse().ok()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Active,
    Inactive,
    Recovering,
    Resyncing,
    Checking,
    /// Being reshaped, broken, or new.
    Other,
}

/// An array in `/proc/mdstat`.
#[derive(Debug, PartialEq)]
struct Array<'a> {
    name: &'a str,
    state: State,
    required: i64,
    active: i64,
    failed: usize,
    spare: usize,
    blocks: i64,
    synced: i64,
}

impl Array<'_> {
    fn say(&self, out: &mut Samples) {
        let name = self.name;
        out.push(&REQUIRED, &[name], self.required as f64);
        out.push(&DISKS, &[name, "active"], self.active as f64);
        out.push(&DISKS, &[name, "failed"], self.failed as f64);
        out.push(&DISKS, &[name, "spare"], self.spare as f64);
        for (label, state) in STATES {
            out.push(&STATE, &[name, label], f64::from(u8::from(self.state == state)));
        }
        out.push(&BLOCKS, &[name], self.blocks as f64);
        out.push(&SYNCED, &[name], self.synced as f64);
    }
}

/// `/proc/mdstat`: "Personalities : [raid1]", then for each array a line at the margin and indented ones:
/// "md6 : active raid1 sdb2[2](F) sda2[0]\n      195310144 blocks [2/1] [U_]\n      [=>....]  recovery =  8.5% (16775552/195310144)
/// finish=17.0min speed=259783K/sec\n\n", and at last "unused devices: <none>".
fn parse_mdstat(text: &str) -> Result<Vec<Array<'_>>, String> {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut arrays = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let is_of_an_array = !line.trim().is_empty()
            && ![" ", "unused", "Personalities : "].iter().any(|other| line.starts_with(other));
        if is_of_an_array {
            let [status, sync, after, ..] = lines.get(at + 1..).unwrap_or_default() else {
                return Err(format!("the lines after {line:?} are missing"));
            };
            // An array with a bitmap has a line for it before that of its synchronisation.
            let sync = if sync.contains("bitmap") { after } else { sync };
            arrays.push(parse_array(line, status, sync)?);
        }
    }
    Ok(arrays)
}

fn parse_array<'a>(line: &'a str, status: &str, sync: &str) -> Result<Array<'a>, String> {
    let mut words = line.split_ascii_whitespace();
    let (Some(name), Some(_), Some(state)) = (words.next(), words.next(), words.next()) else {
        return Err(format!("expected an array, got {line:?}"));
    };
    let (blocks, required, active) =
        parse_status(line, status).ok_or_else(|| format!("expected the blocks of {name}, got {status:?}"))?;
    let mut array = Array {
        name,
        state: match state {
            "active" => State::Active,
            "inactive" => State::Inactive,
            _ => State::Other,
        },
        required,
        active,
        failed: line.matches("(F)").count(),
        spare: line.matches("(S)").count(),
        blocks,
        synced: blocks,
    };
    let working = [
        ("recovery", State::Recovering),
        ("reshape", State::Other),
        ("check", State::Checking),
        ("resync", State::Resyncing),
    ];
    if let Some((_, state)) = working.into_iter().find(|(word, _)| sync.contains(word)) {
        array.state = state;
        let is_waiting = sync.contains("PENDING") || sync.contains("DELAYED");
        array.synced = match is_waiting {
            true => 0,
            false => parse_synced(sync).ok_or_else(|| format!("expected how far {name} is, got {sync:?}"))?,
        };
    }
    Ok(array)
}

/// "523968 blocks super 1.2 [4/3] [UUU_]": the blocks, how many disks are needed, how many are active.
fn parse_status(line: &str, status: &str) -> Option<(i64, i64, i64)> {
    let mut words = status.split_ascii_whitespace();
    let blocks = words.next()?.parse().ok()?;
    if line.contains("raid0") || line.contains("linear") {
        // These have no spare disks and say no numbers; every disk is listed with its own in brackets.
        let disks = line.matches('[').count() as i64;
        return Some((blocks, disks, disks));
    }
    if line.contains("inactive") {
        return Some((blocks, 0, 0));
    }
    if words.next() != Some("blocks") {
        return None;
    }
    let mut previous = words.next()?;
    let mut found = None;
    for word in words {
        if in_brackets(word)
            .is_some_and(|disks| !disks.is_empty() && disks.bytes().all(|disk| b"U_".contains(&disk)))
            && let Some(numbers) = in_brackets(previous).and_then(parse_fraction)
        {
            found = Some(numbers);
        }
        previous = word;
    }
    let (required, active) = found?;
    Some((blocks, required, active))
}

/// "... recovery =  8.5% (16775552/195310144) finish=...": the first of the two numbers.
fn parse_synced(sync: &str) -> Option<i64> {
    sync.split('(').skip(1).find_map(|rest| parse_fraction(rest.split_once(')')?.0)).map(|(synced, _)| synced)
}

fn in_brackets(word: &str) -> Option<&str> {
    word.strip_prefix('[')?.strip_suffix(']')
}

/// "4/3"
fn parse_fraction(text: &str) -> Option<(i64, i64)> {
    let (left, right) = text.split_once('/')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(left) || !is_number(right) {
        return None;
    }
    Some((left.parse().ok()?, right.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEAD: &str = "Personalities : [raid1] [raid0] [raid6] \n";
    const TAIL: &str = "\nunused devices: <none>\n";

    fn one(text: &str) -> (State, i64, i64, usize, usize, i64, i64) {
        let text = format!("{HEAD}{text}{TAIL}");
        let arrays = parse_mdstat(&text).expect("understood");
        let [array] = &arrays[..] else { panic!("{arrays:?}") };
        (array.state, array.required, array.active, array.failed, array.spare, array.blocks, array.synced)
    }

    #[test]
    fn an_array_at_rest() {
        let text = "md2 : active raid6 sdb1[0] sde1[3] sdc1[1](F)\n      7000 blocks super 1.2 level 6, 512k chunk, \
                    algorithm 2 [4/3] [U_UU]\n      bitmap: 0/30 pages [0KB], 65536KB chunk\n";
        assert_eq!(one(text), (State::Active, 4, 3, 1, 0, 7000, 7000));
        let text = "md3 : active raid0 sda1[0] sdb1[1]\n      90 blocks 64k chunks\n      \n";
        assert_eq!(one(text), (State::Active, 2, 2, 0, 0, 90, 90));
        let text = "md4 : inactive sdb[1](S) sda[0](S)\n      80 blocks super external:imsm\n       \n";
        assert_eq!(one(text), (State::Inactive, 0, 0, 0, 2, 80, 80));
    }

    #[test]
    fn an_array_at_work() {
        let head = "md6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]\n      1000 blocks [2/1] [U_]\n";
        for (line, state, synced) in [
            ("[=>...]  recovery =  8.5% (16/1000) finish=17.0min speed=259783K/sec", State::Recovering, 16),
            ("[=>...]  resync =  8.5% (17/1000) finish=17.0min speed=259783K/sec", State::Resyncing, 17),
            ("[=>...]  check =  8.5% (18/1000) finish=17.0min speed=259783K/sec", State::Checking, 18),
            ("[=>...]  reshape =  8.5% (19/1000) finish=17.0min speed=259783K/sec", State::Other, 19),
            ("\tresync=PENDING", State::Resyncing, 0),
            ("resync=DELAYED", State::Resyncing, 0),
        ] {
            assert_eq!(one(&format!("{head}      {line}\n")), (state, 2, 1, 1, 1, 1000, synced), "{line}");
        }
        let bitmap = "      [=>...]  check =  8.5% (18/1000) finish=17.0min\n      bitmap: 0/1 pages\n";
        assert_eq!(one(&format!("{head}{bitmap}")).6, 18);
        let bitmap = "      bitmap: 0/1 pages\n      [=>...]  check =  8.5% (18/1000) finish=17.0min\n";
        assert_eq!(one(&format!("{head}{bitmap}")).6, 18);
    }

    #[test]
    fn a_machine_without_arrays_has_none() {
        assert_eq!(parse_mdstat("Personalities : \nunused devices: <none>\n"), Ok(Vec::new()));
        assert_eq!(parse_mdstat(""), Ok(Vec::new()));
    }

    #[test]
    fn cut_and_odd_texts_are_refused() {
        let array = "md6 : active raid1 sda2[0]\n";
        for text in [
            "md6 :\n\n\n\n".to_owned(),
            array.to_owned(),
            format!("{array}      1000 blocks [2/1] [U_]\n"),
            format!("{array}      many blocks [2/1] [U_]\n\n{TAIL}"),
            format!("{array}      1000 blocks [2/1]\n\n{TAIL}"),
            format!("{array}      1000 blocks [2/x] [U_]\n\n{TAIL}"),
            format!("{array}      1000 blocks [2/1] [U_]\n      resync = 8.5%\n{TAIL}"),
        ] {
            assert!(parse_mdstat(&text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_number_of_disks_may_be_changing() {
        for (text, disks) in [("4", Some(4)), ("5 (4)", Some(5)), ("", None), ("few", None)] {
            assert_eq!(parse_raid_disks(text), disks, "{text:?}");
        }
    }

    #[test]
    fn arrays_of_sysfs_come_and_go() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let write = |file: &str, text: &str| {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("proc/mdstat", "Personalities : [raid1]\nunused devices: <none>\n");
        write("sys/block/md1/md/level", "raid1\n");
        write("sys/block/md1/md/raid_disks", "2\n");
        write("sys/block/md1/md/degraded", "1\n");
        write("sys/block/md127/md/level", "container\n");
        write("sys/block/sda/size", "1\n");
        fs::create_dir_all(dir.path().join("sys/block/md9")).expect("made");
        let host = Host { procfs: dir.path().join("proc"), sysfs: dir.path().join("sys"), ..Host::default() };
        let mut mdadm = Mdadm {
            mdstat: HostFile::new(host.proc("mdstat")),
            devices: Vec::new(),
            buffer: Buffer::default(),
        };
        let mut said = || {
            let mut out = Samples::new();
            let result = mdadm.collect(&host, &mut out);
            let values: Vec<(String, f64)> = out
                .iter()
                .map(|(name, mut labels, value)| (format!("{name} {}", labels.next().unwrap_or("")), value))
                .collect();
            (values, result.is_ok())
        };
        let first = [
            ("node_md_raid_disks md1".to_owned(), 2.0),
            ("node_md_degraded md1".to_owned(), 1.0),
            ("node_md_degraded md127".to_owned(), 0.0),
        ];
        assert_eq!(said(), (first.to_vec(), true));
        write("sys/block/md1/md/degraded", "some\n");
        assert_eq!(said(), (first[2..].to_vec(), false));
        fs::remove_dir_all(dir.path().join("sys/block/md1")).expect("removed");
        assert_eq!(said(), (first[2..].to_vec(), true));
    }
}
