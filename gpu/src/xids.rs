//! XIDs, the driver's error numbers: two witnesses tell of them, and each is counted once.
//!
//! NVML keeps some codes to itself, and tells none while its calls hang; the kernel's ring may be overwritten before it is read.
//! Their clocks can't be compared well enough to pair what they say. So each witness counts by GPU and code, and what happened
//! is the higher of the two: an XID is new when its witness has then seen more of that kind than the other one.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// An address on the PCI bus: domain, bus, device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bus(u32, u8, u8);

impl Bus {
    /// `00000000:3B:00.0` as NVML says it, `0000:3b:00` as the kernel does.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split('.').next()?;
        let mut parts = text.split(':');
        let domain = u32::from_str_radix(parts.next()?, 16).ok()?;
        let (bus, device) = (parts.next()?, parts.next()?);
        let [bus, device] = [bus, device].map(|part| u8::from_str_radix(part, 16).ok());
        parts.next().is_none().then_some(Self(domain, bus?, device?))
    }
}

impl std::fmt::Display for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08X}:{:02X}:{:02X}.0", self.0, self.1, self.2)
    }
}

/// Who tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// NVML's events.
    Driver,
    /// The kernel's log.
    Kernel,
}

/// One XID as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Where the GPU is.
    pub bus: Bus,
    /// The GPU instance, when it was only that.
    pub instance: Option<u32>,
    /// Which.
    pub code: u64,
}

impl Told {
    /// `NVRM: Xid (PCI:0000:3b:00): 79, pid=...`, with ` GPU-I:05` behind the address when it was an instance.
    pub fn in_kernel_log(line: &str) -> Option<Self> {
        let (place, rest) = line.strip_prefix("NVRM: Xid (")?.split_once(')')?;
        let place = place.strip_prefix("PCI:").unwrap_or(place);
        let (bus, instance) = match place.split_once(' ') {
            Some((bus, instance)) => (bus, instance.strip_prefix("GPU-I:")),
            None => (place, None),
        };
        let code = rest.strip_prefix(':')?.trim_start().split(',').next()?;
        Some(Self {
            bus: Bus::parse(bus)?,
            instance: instance.and_then(|instance| instance.parse().ok()),
            code: code.trim().parse().ok()?,
        })
    }

    /// Whether calls about this GPU are likely to hang from now on: it fell off the bus, or its own processor does not answer.
    pub fn is_fatal(self) -> bool {
        matches!(self.code, 79 | 119 | 120)
    }
}

/// All that was told. What is kept of each kind is bounded, whatever is written into the log.
#[derive(Debug, Default)]
pub struct Xids {
    counts: BTreeMap<(Bus, u64), Count>,
    last: BTreeMap<(Bus, Option<u32>), u64>,
    recent: VecDeque<(Instant, Told)>,
}

/// How often a code was seen at a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Count {
    by_driver: u64,
    by_kernel: u64,
    /// Unix time in seconds of the last one.
    pub last_seen: f64,
}

impl Count {
    /// How many there were.
    pub fn total(self) -> u64 {
        self.by_driver.max(self.by_kernel)
    }
}

impl Xids {
    /// Takes in what a witness tells; whether that is news.
    pub fn take(&mut self, told: Told, witness: Witness, now: Instant) -> bool {
        const KINDS: usize = 1024;
        const RECENT: usize = 10_000;
        let kind = (told.bus, told.code);
        if self.counts.len() >= KINDS && !self.counts.contains_key(&kind) {
            return false;
        }
        let count = self.counts.entry(kind).or_default();
        let before = count.total();
        match witness {
            Witness::Driver => count.by_driver += 1,
            Witness::Kernel => count.by_kernel += 1,
        }
        if count.total() == before {
            return false;
        }
        count.last_seen = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.last.insert((told.bus, told.instance), told.code);
        self.recent.push_back((now, told));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        true
    }

    /// By GPU and code.
    pub fn counts(&self) -> impl Iterator<Item = (Bus, u64, Count)> {
        self.counts.iter().map(|((bus, code), count)| (*bus, *code, *count))
    }

    /// The last one of a GPU or an instance, 0 without.
    pub fn last(&self, bus: Bus, instance: Option<u32>) -> u64 {
        self.last.get(&(bus, instance)).copied().unwrap_or_default()
    }

    /// How often each code was seen in a window of time.
    pub fn recent(
        &self,
        bus: Bus,
        instance: Option<u32>,
        window: Duration,
        now: Instant,
    ) -> BTreeMap<u64, u64> {
        let mut counts = BTreeMap::new();
        for (_, told) in self.recent.iter().filter(|(then, told)| {
            now.saturating_duration_since(*then) <= window && (told.bus, told.instance) == (bus, instance)
        }) {
            *counts.entry(told.code).or_default() += 1;
        }
        counts
    }
}

/// What NVIDIA's documentation calls a code.
pub fn text_of(code: u64) -> &'static str {
    TEXTS.iter().find(|(known, _)| *known == code).map_or("Unknown Error", |(_, text)| text)
}

#[rustfmt::skip]
const TEXTS: &[(u64, &str)] = &[
    (0, "No Error"),
    (1, "Invalid or corrupted push buffer stream"),
    (2, "Invalid or corrupted push buffer stream"),
    (3, "Invalid or corrupted push buffer stream"),
    (4, "Invalid or corrupted push buffer stream"),
    (6, "Invalid or corrupted push buffer stream"),
    (7, "Invalid or corrupted push buffer address"),
    (8, "GPU stopped processing"),
    (9, "Driver error programming GPU"),
    (11, "Invalid or corrupted push buffer stream"),
    (12, "Driver error handling GPU exception"),
    (13, "Graphics Engine Exception"),
    (16, "Display engine hung"),
    (18, "Bus mastering disabled in PCI Config Space"),
    (19, "Display Engine error"),
    (20, "Invalid or corrupted Mpeg push buffer"),
    (21, "Invalid or corrupted Motion Estimation push buffer"),
    (22, "Invalid or corrupted Video Processor push buffer"),
    (24, "GPU semaphore timeout"),
    (25, "Invalid or illegal push buffer stream"),
    (26, "Framebuffer timeout"),
    (27, "Video processor exception"),
    (28, "Video processor exception"),
    (29, "Video processor exception"),
    (30, "GPU semaphore access error"),
    (31, "GPU memory page fault"),
    (32, "Invalid or corrupted push buffer stream"),
    (33, "Internal micro-controller error"),
    (34, "Video processor exception"),
    (35, "Video processor exception"),
    (36, "Video processor exception"),
    (37, "Driver firmware error"),
    (38, "Driver firmware error"),
    (42, "Video processor exception"),
    (43, "GPU stopped processing"),
    (44, "Graphics Engine fault during context switch"),
    (45, "Preemptive cleanup, due to previous errors"),
    (46, "GPU stopped processing"),
    (47, "Video processor exception"),
    (48, "Double Bit ECC Error"),
    (54, "Auxiliary power is not connected to the GPU board"),
    (56, "Display Engine error"),
    (57, "Error programming video memory interface"),
    (58, "Unstable video memory interface detected"),
    (59, "Internal micro-controller error (older drivers)"),
    (60, "Video processor exception"),
    (61, "Internal micro-controller breakpoint/warning (newer drivers)"),
    (62, "Internal micro-controller halt (newer drivers)"),
    (63, "ECC page retirement or row remapping recording event"),
    (64, "ECC page retirement or row remapper recording failure"),
    (65, "Video processor exception"),
    (66, "Illegal access by driver"),
    (67, "Illegal access by driver"),
    (68, "NVDEC0 Exception"),
    (69, "Graphics Engine class error"),
    (74, "NVLINK Error"),
    (78, "vGPU Start Error"),
    (79, "GPU has fallen off the bus"),
    (80, "Corrupted data sent to GPU"),
    (81, "VGA Subsystem Error"),
    (92, "High single-bit ECC error rate"),
    (93, "Non-fatal violation of provisioned InfoROM wear limit"),
    (94, "Contained ECC error"),
    (95, "Uncontained ECC error"),
    (109, "Context Switch Timeout Error"),
    (110, "Security Fault Error"),
    (118, "GSP RM Error"),
    (119, "GSP RPC Timeout"),
    (120, "GSP Error"),
    (121, "C2C Link Error"),
    (122, "SPI PMU RPC Read Failure"),
    (123, "SPI PMU RPC Write Failure"),
    (124, "SPI PMU RPC Erase Failure"),
    (125, "Inforom FS Failure"),
    (136, "Link Training Failed"),
    (137, "NVLink FLA privilege error"),
    (140, "Unrecovered ECC Error"),
    (143, "GPU Initialization Failure"),
    (154, "GPU Recovery Action Changed"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUS: Bus = Bus(0, 0x3b, 0);

    fn told(code: u64) -> Told {
        Told { bus: BUS, instance: None, code }
    }

    fn total(xids: &Xids, code: u64) -> u64 {
        xids.counts().filter(|(_, known, _)| *known == code).map(|(_, _, count)| count.total()).sum()
    }

    #[test]
    fn addresses_are_one_in_both_spellings() {
        assert_eq!(Bus::parse("00000000:3B:00.0"), Some(BUS));
        assert_eq!(Bus::parse("0000:3b:00"), Some(BUS));
        assert_eq!(BUS.to_string(), "00000000:3B:00.0");
        for odd in ["", "3b:00", "0000:3b:00:1", "0000:xx:00", "0000:3b3b:00"] {
            assert_eq!(Bus::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_kernel_s_lines_are_understood() {
        let line =
            "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.";
        assert_eq!(Told::in_kernel_log(line), Some(told(79)));
        let line = "NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 31, pid=7, name=python3, Ch 00000010";
        assert_eq!(Told::in_kernel_log(line), Some(Told { instance: Some(5), ..told(31) }));
        assert_eq!(Told::in_kernel_log("NVRM: Xid (0000:3b:00): 62, 0abc 1def"), Some(told(62)));
        for odd in [
            "NVRM: Xid",
            "NVRM: Xid (PCI:0000:3b:00): many",
            "NVRM: Xid (PCI:): 1",
            "NVRM: GPU at PCI:0000:3b:00",
        ] {
            assert_eq!(Told::in_kernel_log(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_two_tell_is_counted_once() {
        let (mut xids, now) = (Xids::default(), Instant::now());
        assert!(xids.take(told(31), Witness::Kernel, now));
        assert!(!xids.take(told(31), Witness::Driver, now));
        // The driver keeps this one to itself.
        assert!(xids.take(told(62), Witness::Kernel, now));
        // A burst, of which the kernel's part is read later.
        for _ in 0..3 {
            assert!(xids.take(told(31), Witness::Driver, now));
        }
        for _ in 0..3 {
            assert!(!xids.take(told(31), Witness::Kernel, now));
        }
        assert!(xids.take(told(31), Witness::Kernel, now));
        assert_eq!((total(&xids, 31), total(&xids, 62)), (5, 1));
        assert_eq!(xids.last(BUS, None), 31);
        assert_eq!(xids.recent(BUS, None, Duration::from_secs(300), now), [(31, 5), (62, 1)].into());
        let later = now + Duration::from_secs(301);
        assert!(xids.recent(BUS, None, Duration::from_secs(300), later).is_empty());
    }

    #[test]
    fn instances_have_their_own_last_one() {
        let (mut xids, now) = (Xids::default(), Instant::now());
        xids.take(Told { instance: Some(3), ..told(43) }, Witness::Driver, now);
        assert_eq!((xids.last(BUS, Some(3)), xids.last(BUS, Some(4)), xids.last(BUS, None)), (43, 0, 0));
    }

    #[test]
    fn kinds_are_bounded() {
        let (mut xids, now) = (Xids::default(), Instant::now());
        for code in 0..5000 {
            xids.take(told(code), Witness::Kernel, now);
        }
        assert_eq!(xids.counts().count(), 1024);
        assert_eq!((text_of(79), text_of(4999)), ("GPU has fallen off the bus", "Unknown Error"));
    }

    proptest! {
        #[test]
        fn any_line_is_answered(line in "(NVRM: Xid \\()?\\PC{0,40}") {
            let _ = Told::in_kernel_log(&line);
        }

        #[test]
        fn the_order_of_witnesses_does_not_matter(by_driver in prop::collection::vec(any::<bool>(), 0..60)) {
            let mut xids = Xids::default();
            let now = Instant::now();
            let mut news = 0;
            for is_driver in &by_driver {
                let witness = if *is_driver { Witness::Driver } else { Witness::Kernel };
                news += u64::from(xids.take(told(1), witness, now));
            }
            let drivers = by_driver.iter().filter(|is_driver| **is_driver).count();
            let most = drivers.max(by_driver.len() - drivers) as u64;
            prop_assert_eq!((news, total(&xids, 1)), (most, most));
        }
    }
}
