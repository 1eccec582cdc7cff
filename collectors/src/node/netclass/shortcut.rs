//! One question to rtnetlink in place of twenty files per interface.
//!
//! It is taken only where both are proven to say the same. Both are asked at first, for each new interface, and again every
//! ten minutes: same interfaces, same indices and addresses, so that sysfs shows the network namespace that this process
//! is in (`/sys` of the host mounted into a pod shows the host's, while the pod has its own). An attribute for which the
//! two differ all the same is read from its file.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    ADDR_ASSIGN_TYPE, ADDRESS, ALIAS, BROADCAST, CARRIER, CARRIER_CHANGES, CARRIER_DOWN_COUNT,
    CARRIER_UP_COUNT, DEV_ID, DORMANT, DUPLEX, FLAGS, IFINDEX, IFLINK, LINK_MODE, MTU, NAME_ASSIGN_TYPE,
    NETDEV_GROUP, SPEED, STATE, TEXTS, TX_QUEUE_LEN, TYPE, Values, files,
    links::{self, Link},
};
use crate::{
    host,
    netlink::{GET_LINK, Route},
    sysfs::{Buffer, Directory, KeptDevice, STALENESS},
};

/// What netlink does not tell, for it takes a lock of the driver.
const ASKED: &[&str] = &["duplex", "speed"];

/// What netlink does not tell, but the kernel does not change of itself: read when the two are compared.
const CONSTANT: [usize; 3] = [ADDR_ASSIGN_TYPE, DEV_ID, NAME_ASSIGN_TYPE];

/// How long a comparison holds. What it is for, the network namespaces and the constants, is decided once per mount and per
/// interface; a change of the latter that can be seen elsewhere (another name or address) has it made at once.
const HOLDS: Duration = Duration::from_secs(600);

pub(super) struct Shortcut {
    class: PathBuf,
    route: Route,
    /// In the order of the answer.
    interfaces: Vec<Interface>,
    /// Their places, by name.
    sorted: Vec<usize>,
    /// When the two were found to differ.
    refuted: Option<Instant>,
    /// Whether they were found to agree about which interfaces there are.
    proven: bool,
    buffer: Buffer,
}

struct Interface {
    name: String,
    index: u32,
    ignored: bool,
    address: Vec<u8>,
    broadcast: Vec<u8>,
    values: Values,
    /// When the files were compared.
    looked: Option<Instant>,
    /// The places, texts first, at which files and netlink differed.
    odd: u32,
    device: KeptDevice,
    /// Whether the driver has neither speed nor duplex in the present state of the link.
    refuses: bool,
    /// Whether it went away between the answer and the look at its files.
    gone: bool,
}

impl Shortcut {
    pub(super) fn new(class: PathBuf) -> Self {
        Self {
            class,
            route: Route::default(),
            interfaces: Vec::new(),
            sorted: Vec::new(),
            refuted: None,
            proven: false,
            buffer: Buffer::default(),
        }
    }

    /// Asks for all interfaces; whether the answer may stand for the files.
    pub(super) fn look(&mut self, now: Instant, is_ignored: impl Fn(&str) -> bool) -> bool {
        if self.refuted.is_some_and(|then| now.saturating_duration_since(then) < STALENESS) {
            return false;
        }
        // A made-up tree has no network namespace.
        self.proven = (self.proven || host::is_sysfs(&self.class))
            && self.ask(is_ignored).is_some()
            && (self.proven || self.agree_on_names())
            && self.compare(now);
        if !self.proven {
            self.refuted = Some(now);
            self.interfaces.clear();
        }
        self.proven
    }

    /// Takes over what netlink says; nothing when it does not say everything.
    fn ask(&mut self, is_ignored: impl Fn(&str) -> bool) -> Option<()> {
        let Self { class, route, interfaces, sorted, .. } = self;
        let mut count = 0;
        let mut is_whole = true;
        let mut is_changed = false;
        let said = route.dump(GET_LINK, links::REQUEST.as_slice(), |message| {
            let Some(link) = Link::parse(message) else {
                is_whole = false;
                return;
            };
            // The kernel answers in the same order each time; those before a known one are gone.
            let is_it = |known: &Interface| known.index == link.index && known.name == link.name;
            match interfaces.iter().skip(count).position(is_it) {
                Some(0) => {}
                Some(gone) => {
                    interfaces.drain(count..count + gone);
                    is_changed = true;
                }
                None => {
                    let device = KeptDevice::new(class.join(link.name), ASKED);
                    interfaces.insert(count, Interface::new(&link, is_ignored(link.name), device));
                    is_changed = true;
                }
            }
            interfaces[count].update(&link);
            count += 1;
        });
        if is_changed || count != sorted.len() {
            interfaces.truncate(count);
            sorted.clear();
            sorted.extend(0..count);
            sorted.sort_by(|&left, &right| interfaces[left].name.cmp(&interfaces[right].name));
        }
        (said.is_ok() && is_whole).then_some(())
    }

    fn agree_on_names(&self) -> bool {
        let names = host::list_dir_but_files(&self.class).unwrap_or_default();
        // A loopback is the same in every namespace.
        names.len() > 1 && names.iter().eq(self.sorted.iter().map(|&at| &self.interfaces[at].name))
    }

    /// Whether files and netlink agree about what is new or was not compared for long.
    fn compare(&mut self, now: Instant) -> bool {
        let Self { interfaces, buffer, proven, .. } = self;
        interfaces.iter_mut().filter(|interface| !interface.ignored).all(|interface| {
            let is_fresh = interface.looked.is_some_and(|then| now.saturating_duration_since(then) < HOLDS);
            is_fresh || interface.compare(now, *proven, buffer)
        })
    }

    /// Hands every interface that is not ignored to `say`.
    pub(super) fn say(&mut self, now: Instant, mut say: impl FnMut(&str, &Values)) {
        let Self { interfaces, sorted, buffer, .. } = self;
        for &at in sorted.iter() {
            let interface = &mut interfaces[at];
            if !interface.ignored && !interface.gone {
                interface.complete(now, buffer);
                say(&interface.name, &interface.values);
            }
        }
    }
}

impl Interface {
    fn new(link: &Link, ignored: bool, device: KeptDevice) -> Self {
        Self {
            name: link.name.to_owned(),
            index: link.index,
            ignored,
            address: Vec::new(),
            broadcast: Vec::new(),
            values: Values::default(),
            looked: None,
            odd: 0,
            device,
            refuses: false,
            gone: false,
        }
    }

    /// Takes over what netlink says, as the files would say it.
    fn update(&mut self, link: &Link) {
        let Self { values: Values { texts, numbers }, .. } = self;
        if self.address != link.address {
            link.address.clone_into(&mut self.address);
            links::write_address(link.address, &mut texts[ADDRESS]);
            // How it was assigned may have changed with it.
            self.looked = None;
        }
        if self.broadcast != link.broadcast {
            link.broadcast.clone_into(&mut self.broadcast);
            links::write_address(link.broadcast, &mut texts[BROADCAST]);
        }
        let alias = files::cut(link.alias.unwrap_or_default()).trim();
        if texts[ALIAS] != alias {
            alias.clone_into(&mut texts[ALIAS]);
        }
        let state = link.state.and_then(|state| links::STATES.get(usize::from(state)));
        let state = state.copied().unwrap_or_default();
        let flags = Some(i64::from(link.device_flags()));
        let changes = link.carrier_changes.map(i64::from);
        if texts[STATE] != state || numbers[FLAGS] != flags || numbers[CARRIER_CHANGES] != changes {
            state.clone_into(&mut texts[STATE]);
            self.refuses = false;
        }
        // One that is down refuses to tell.
        let is_up = link.flags & links::IFF_UP != 0;
        numbers[CARRIER] = link.carrier.map(i64::from).filter(|_| is_up);
        numbers[DORMANT] = is_up.then_some(i64::from(link.flags & links::IFF_DORMANT != 0));
        numbers[CARRIER_CHANGES] = changes;
        numbers[CARRIER_UP_COUNT] = link.carrier_up_count.map(i64::from);
        numbers[CARRIER_DOWN_COUNT] = link.carrier_down_count.map(i64::from);
        numbers[FLAGS] = flags;
        numbers[IFINDEX] = Some(i64::from(link.index));
        numbers[IFLINK] = Some(i64::from(link.link.unwrap_or(link.index)));
        numbers[LINK_MODE] = link.link_mode.map(i64::from);
        numbers[MTU] = link.mtu.map(i64::from);
        numbers[NETDEV_GROUP] = link.group.map(i64::from);
        numbers[TX_QUEUE_LEN] = link.queue.map(i64::from);
        numbers[TYPE] = Some(i64::from(link.kind));
    }

    /// Whether the files are those of the same interface; finds out where they say something else.
    fn compare(&mut self, now: Instant, proven: bool, buffer: &mut Buffer) -> bool {
        let Ok(read) = files::read_once(self.device.path(), buffer) else {
            self.gone = true;
            return proven;
        };
        let Values { texts, numbers } = &mut self.values;
        if texts[ADDRESS] != read.texts[ADDRESS] || numbers[IFINDEX] != read.numbers[IFINDEX] {
            return false;
        }
        self.odd = 0;
        for (at, (ours, theirs)) in texts.iter().zip(&read.texts).enumerate() {
            if at != DUPLEX && ours != theirs {
                self.odd |= 1 << at;
            }
        }
        for (at, (ours, theirs)) in numbers.iter_mut().zip(read.numbers).enumerate() {
            if CONSTANT.contains(&at) {
                *ours = theirs;
            } else if at != SPEED && *ours != theirs {
                self.odd |= 1 << (TEXTS.len() + at);
            }
        }
        // Not all at once the next time.
        let earlier = HOLDS / 32 * (self.index % 16);
        self.looked = now.checked_sub(earlier).or(Some(now));
        self.refuses = false;
        self.gone = false;
        true
    }

    /// Reads what netlink did not say.
    fn complete(&mut self, now: Instant, buffer: &mut Buffer) {
        let Self { values, device, odd, refuses, .. } = self;
        let is_up = values.numbers[FLAGS].is_some_and(|flags| flags & i64::from(links::IFF_UP) != 0);
        let mut answers = false;
        for (at, place) in [DUPLEX, TEXTS.len() + SPEED].into_iter().enumerate() {
            // The kernel does not ask the driver of an interface that is down.
            let text = match is_up && !*refuses {
                true => device.read(at, now, buffer),
                false => Err(std::io::ErrorKind::InvalidInput.into()),
            };
            answers |= text.is_ok();
            values.take(place, text);
        }
        device.rest();
        *refuses = !answers;
        if *odd != 0
            && let Ok(directory) = Directory::open(device.path())
        {
            for (at, file) in files::NAMES.iter().enumerate() {
                if *odd & (1 << at) != 0 {
                    values.take(at, directory.read(file, buffer));
                }
            }
        }
    }
}
