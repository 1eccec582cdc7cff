//! The ledger: where every line is that was read, per container.
//!
//! `read = acknowledged + in flight + dead letters + dropped by a rule + lost`, in lines and in bytes, whenever it is looked
//! at. What is lost before anybody could read it counts as read too, so that the sum holds; of that only the bytes are known,
//! or, of numbered records, only how many they were.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use nodewarden_collectors::{Kind, Samples};
use serde::Serialize;

/// Containers with series of their own, at most; what is beyond counts for its namespace.
pub const CONTAINERS_SHOWN: usize = 1000;
/// Different reasons that are told apart, at most: a server makes up some of them.
const REASONS: usize = 32;
/// What the others are.
const OTHER: &str = "other";

/// Lines and their bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// Lines.
    pub lines: u64,
    /// Bytes of the file that they take.
    pub bytes: u64,
}

impl Amount {
    /// So many bytes of lines that nobody could count.
    pub fn of_bytes(bytes: u64) -> Self {
        Self { lines: 0, bytes }
    }

    /// So many lines whose size nobody knows.
    pub fn of_lines(lines: u64) -> Self {
        Self { lines, bytes: 0 }
    }

    /// Takes `other` in.
    pub fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.bytes += other.bytes;
    }

    /// At most this much; it is taken away.
    pub fn take(&mut self, wanted: Self) -> Self {
        let taken = Self { lines: wanted.lines.min(self.lines), bytes: wanted.bytes.min(self.bytes) };
        self.lines -= taken.lines;
        self.bytes -= taken.bytes;
        taken
    }

    /// Whether there is neither a line nor a byte.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Amounts by the reason why no sink took them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reasons(Vec<(Cow<'static, str>, Amount)>);

impl Reasons {
    /// Takes in an amount.
    pub fn add(&mut self, reason: Cow<'static, str>, amount: Amount) {
        if amount.is_empty() {
            return;
        }
        let is_full = self.0.len() >= REASONS;
        match self.0.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, known)) => known.add(amount),
            None if is_full && reason != OTHER => self.add(OTHER.into(), amount),
            None => self.0.push((reason, amount)),
        }
    }

    /// What is there for one reason.
    pub fn of(&self, reason: &str) -> Amount {
        self.0.iter().find(|(known, _)| known == reason).map(|(_, amount)| *amount).unwrap_or_default()
    }

    /// What is there for any reason.
    pub fn total(&self) -> Amount {
        self.0.iter().fold(Amount::default(), |mut total, (_, amount)| {
            total.add(*amount);
            total
        })
    }

    fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(reason, amount)| self.add(reason.clone(), *amount));
    }
}

/// Who writes the lines of an account; all three are empty for what no container writes.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Owner {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
}

impl Owner {
    /// All containers of its namespace together.
    pub fn of_namespace(&self) -> Self {
        Self { namespace: self.namespace.clone(), ..Self::default() }
    }
}

/// The figures of one account.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Figures {
    /// What was read, or is known to be lost.
    pub read: Amount,
    /// What the sink confirmed.
    pub acked: Amount,
    /// What was read and waits for its confirmation.
    pub in_flight: Amount,
    /// What the sink refused for good and is kept.
    pub dead: Reasons,
    /// What a rule left out.
    pub dropped: Reasons,
    /// What no sink will ever see.
    pub lost: Reasons,
    /// What of that in flight nobody carries any more: it is read again.
    again: Amount,
}

impl Figures {
    /// Lines were read and are on their way.
    pub fn read(&mut self, amount: Amount) {
        let new = self.without_known(amount);
        self.read.add(new);
        self.in_flight.add(new);
    }

    /// Of what was just read, what was not counted before. Lines may be put together in another way than when they were
    /// counted: then it is the next ones that make up for the difference.
    fn without_known(&mut self, mut amount: Amount) -> Amount {
        let known = self.again.take(amount);
        amount.take(known);
        amount
    }

    /// Whoever carried what is in flight has given up: it is read again.
    fn start_again(&mut self) {
        self.again = self.in_flight;
    }

    /// The sink confirmed what was on its way.
    pub fn acked(&mut self, amount: Amount) {
        let settled = self.settle(amount);
        self.acked.add(settled);
    }

    /// The sink refused for good what was on its way, and it is kept.
    pub fn dead(&mut self, reason: &str, amount: Amount) {
        let settled = self.settle(amount);
        self.dead.add(reason.to_owned().into(), settled);
    }

    /// What was on its way was to be read again, and is gone.
    pub fn gone(&mut self, reason: &'static str, amount: Amount) {
        let settled = self.settle(amount);
        self.lost.add(reason.into(), settled);
    }

    /// What never was on its way is lost.
    pub fn lost(&mut self, reason: &'static str, amount: Amount) {
        self.read.add(amount);
        self.lost.add(reason.into(), amount);
    }

    /// A rule leaves out what was read.
    pub fn dropped(&mut self, reason: &'static str, amount: Amount) {
        let settled = self.settle(amount);
        self.dropped.add(reason.into(), settled);
    }

    fn settle(&mut self, amount: Amount) -> Amount {
        let settled = self.in_flight.take(amount);
        debug_assert_eq!(settled, amount, "more is settled than was read: {self:?}");
        settled
    }

    fn merge(&mut self, other: &Self) {
        self.read.add(other.read);
        self.acked.add(other.acked);
        self.in_flight.add(other.in_flight);
        self.dead.merge(&other.dead);
        self.dropped.merge(&other.dropped);
        self.lost.merge(&other.lost);
    }
}

/// The figures as the API says them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in Figures")]
pub struct Sums {
    pub read_lines: u64,
    pub read_bytes: u64,
    pub acked_lines: u64,
    pub acked_bytes: u64,
    pub in_flight_lines: u64,
    pub in_flight_bytes: u64,
    pub dead_letter_lines: u64,
    pub dead_letter_bytes: u64,
    pub dropped_lines: u64,
    pub dropped_bytes: u64,
    pub lost_lines: u64,
    pub lost_bytes: u64,
}

impl From<&Figures> for Sums {
    fn from(figures: &Figures) -> Self {
        let Figures { read, acked, in_flight, .. } = figures;
        let (dead, dropped, lost) = (figures.dead.total(), figures.dropped.total(), figures.lost.total());
        Self {
            read_lines: read.lines,
            read_bytes: read.bytes,
            acked_lines: acked.lines,
            acked_bytes: acked.bytes,
            in_flight_lines: in_flight.lines,
            in_flight_bytes: in_flight.bytes,
            dead_letter_lines: dead.lines,
            dead_letter_bytes: dead.bytes,
            dropped_lines: dropped.lines,
            dropped_bytes: dropped.bytes,
            lost_lines: lost.lines,
            lost_bytes: lost.bytes,
        }
    }
}

/// The account of one container. Whoever has lines to enter holds it; it is locked once a turn, not once a line.
#[derive(Debug, Default)]
pub struct Account(Mutex<Figures>);

impl Account {
    /// Its figures; the sum is exact when they are let go.
    pub fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All accounts. Clones share them.
#[derive(Debug, Default, Clone)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Book>,
    shows_containers: AtomicBool,
}

#[derive(Debug, Default)]
struct Book {
    accounts: BTreeMap<Owner, Arc<Account>>,
    /// By namespace, of containers that are gone.
    past: BTreeMap<String, Figures>,
}

impl Ledger {
    /// Whether the metrics tell containers apart, not only namespaces.
    pub fn show_containers(&self, shown: bool) {
        self.0.shows_containers.store(shown, Relaxed);
    }

    /// Whether they do.
    pub fn shows_containers(&self) -> bool {
        self.0.shows_containers.load(Relaxed)
    }

    /// The account of a container.
    pub fn account(&self, owner: Owner) -> Arc<Account> {
        Arc::clone(self.lock().accounts.entry(owner).or_default())
    }

    /// The log path begins anew from the confirmed positions: what is in flight is read again, and counted once all the same.
    pub fn start_again(&self) {
        self.lock().accounts.values().for_each(|account| account.lock().start_again());
    }

    /// Closes the accounts of containers that nobody reads any more: what they hold counts for their namespace.
    pub fn close_unused(&self) {
        let mut book = self.lock();
        let Book { accounts, past } = &mut *book;
        accounts.retain(|owner, account| {
            let is_used = Arc::strong_count(account) > 1;
            let figures = account.lock();
            if is_used || !figures.in_flight.is_empty() {
                return true;
            }
            past.entry(owner.namespace.clone()).or_default().merge(&figures);
            false
        });
    }

    /// Every container's figures.
    pub fn containers(&self) -> Vec<(Owner, Figures)> {
        let book = self.lock();
        book.accounts.iter().map(|(owner, account)| (owner.clone(), account.lock().clone())).collect()
    }

    /// The figures of all containers together, the past ones included.
    pub fn total(&self) -> Figures {
        let mut total = Figures::default();
        self.grouped(|_| Owner::default()).values().for_each(|figures| total.merge(figures));
        total
    }

    /// Says them, by namespace or by container.
    pub fn say(&self, out: &mut Samples) {
        if self.shows_containers() {
            let mut left = CONTAINERS_SHOWN;
            let groups = self.grouped(|owner| {
                let is_shown = left > 0;
                left = left.saturating_sub(1);
                if is_shown { owner.clone() } else { owner.of_namespace() }
            });
            say(&groups, true, out);
        } else {
            say(&self.grouped(Owner::of_namespace), false, out);
        }
    }

    /// The figures by what `group` makes of their owners; what is past belongs to a namespace only.
    fn grouped(&self, mut group: impl FnMut(&Owner) -> Owner) -> BTreeMap<Owner, Figures> {
        let mut groups: BTreeMap<Owner, Figures> = BTreeMap::new();
        let book = self.lock();
        for (owner, account) in &book.accounts {
            groups.entry(group(owner)).or_default().merge(&account.lock());
        }
        for (namespace, figures) in &book.past {
            let owner = Owner { namespace: namespace.clone(), ..Owner::default() };
            groups.entry(owner).or_default().merge(figures);
        }
        groups
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One family without reasons: the part of its name, what it is, and the value.
type Plain = (&'static str, &'static str, Kind, fn(&Figures) -> u64);
/// One family by reason.
type ByReason = (&'static str, &'static str, fn(&Figures) -> &Reasons, fn(Amount) -> u64);

const PLAIN: [Plain; 6] = [
    ("read_lines_total", "Lines read from log files, or known to be lost.", Kind::Counter, |it| {
        it.read.lines
    }),
    ("read_bytes_total", "Bytes read from log files, or known to be lost.", Kind::Counter, |it| {
        it.read.bytes
    }),
    ("acked_lines_total", "Lines that the sink confirmed.", Kind::Counter, |it| it.acked.lines),
    ("acked_bytes_total", "Bytes of log files that the sink confirmed.", Kind::Counter, |it| it.acked.bytes),
    ("in_flight_lines", "Lines that were read and wait for their confirmation.", Kind::Gauge, |it| {
        it.in_flight.lines
    }),
    (
        "in_flight_bytes",
        "Bytes of log files that were read and wait for their confirmation.",
        Kind::Gauge,
        |it| it.in_flight.bytes,
    ),
];

const BY_REASON: [ByReason; 6] = [
    ("dead_letters_total", "Documents that the sink refused for good.", |it| &it.dead, |it| it.lines),
    (
        "dead_letter_bytes_total",
        "Bytes of log files in documents that the sink refused for good.",
        |it| &it.dead,
        |it| it.bytes,
    ),
    ("dropped_lines_total", "Lines left out by a rule.", |it| &it.dropped, |it| it.lines),
    ("dropped_bytes_total", "Bytes of log files left out by a rule.", |it| &it.dropped, |it| it.bytes),
    (
        "lost_lines_total",
        "Lines, kernel messages and journal entries that went away before the sink confirmed them, as far as they could be counted.",
        |it| &it.lost,
        |it| it.lines,
    ),
    (
        "lost_bytes_total",
        "Bytes of log files that went away before the sink confirmed them.",
        |it| &it.lost,
        |it| it.bytes,
    ),
];

fn say(groups: &BTreeMap<Owner, Figures>, by_container: bool, out: &mut Samples) {
    let (labels, with_reason): (&[&str], &[&str]) = if by_container {
        (&["container", "namespace", "pod"], &["container", "namespace", "pod", "reason"])
    } else {
        (&["namespace"], &["namespace", "reason"])
    };
    let values = |owner| -> Vec<_> {
        let Owner { namespace, pod, container }: &Owner = owner;
        if by_container { vec![container.as_str(), namespace, pod] } else { vec![namespace] }
    };
    for (name, help, kind, value) in PLAIN {
        let family = out.dynamic_family(&format!("nodewarden_log_{name}"), help, kind, labels);
        for (owner, figures) in groups {
            out.push_to(family, &values(owner), value(figures) as f64);
        }
    }
    for (name, help, reasons, value) in BY_REASON {
        let name = format!("nodewarden_log_{name}");
        let family = out.dynamic_family(&name, help, Kind::Counter, with_reason);
        for (owner, figures) in groups {
            for (reason, amount) in reasons(figures).0.iter().filter(|(_, amount)| value(*amount) > 0) {
                let mut values = values(owner);
                values.push(reason);
                out.push_to(family, &values, value(*amount) as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nodewarden_collectors::text;

    use super::*;

    fn owner(pod: &str) -> Owner {
        Owner { namespace: "shop".into(), pod: pod.into(), container: "app".into() }
    }

    fn page(ledger: &Ledger) -> String {
        let (mut samples, mut page) = (Samples::new(), Vec::new());
        ledger.say(&mut samples);
        text::write(&samples, &mut page);
        String::from_utf8(page).expect("UTF-8")
    }

    const TEN: Amount = Amount { lines: 10, bytes: 100 };

    fn filled() -> Ledger {
        let ledger = Ledger::default();
        let account = ledger.account(owner("cart-0"));
        let mut figures = account.lock();
        figures.read(TEN);
        figures.acked(Amount { lines: 4, bytes: 40 });
        figures.dead("mapper", Amount { lines: 1, bytes: 10 });
        figures.gone("spill_full", Amount { lines: 2, bytes: 20 });
        figures.lost("spill_full", Amount::of_bytes(7));
        figures.read(Amount { lines: 1, bytes: 9 });
        figures.dropped("rate", Amount { lines: 1, bytes: 9 });
        drop(figures);
        ledger.account(owner("cart-1")).lock().read(TEN);
        ledger
    }

    fn assert_sums(sums: &Sums) {
        let of_lines = sums.acked_lines
            + sums.in_flight_lines
            + sums.dead_letter_lines
            + sums.dropped_lines
            + sums.lost_lines;
        let of_bytes = sums.acked_bytes
            + sums.in_flight_bytes
            + sums.dead_letter_bytes
            + sums.dropped_bytes
            + sums.lost_bytes;
        assert_eq!((sums.read_lines, sums.read_bytes), (of_lines, of_bytes), "{sums:?}");
    }

    #[test]
    fn the_sum_is_exact() {
        let ledger = filled();
        let sums = Sums::from(&ledger.containers()[0].1);
        assert_eq!((sums.read_lines, sums.read_bytes, sums.in_flight_lines), (11, 116, 3));
        assert_eq!((sums.lost_lines, sums.lost_bytes), (2, 27));
        assert_sums(&sums);
        assert_sums(&Sums::from(&ledger.total()));
    }

    #[test]
    fn by_default_only_namespaces_are_told_apart() {
        let ledger = filled();
        let by_namespace = page(&ledger);
        assert!(by_namespace.contains("nodewarden_log_read_lines_total{namespace=\"shop\"} 21\n"));
        assert!(
            by_namespace
                .contains("nodewarden_log_lost_bytes_total{namespace=\"shop\",reason=\"spill_full\"} 27\n")
        );
        assert!(!by_namespace.contains("cart"));
        ledger.show_containers(true);
        let by_container = page(&ledger);
        assert!(by_container.contains(
            "nodewarden_log_in_flight_bytes{container=\"app\",namespace=\"shop\",pod=\"cart-0\"} 30\n"
        ));
    }

    #[test]
    fn the_number_of_series_is_bounded_and_nothing_of_a_gone_container_is_forgotten() {
        let ledger = Ledger::default();
        ledger.show_containers(true);
        for pod in 0..CONTAINERS_SHOWN + 5 {
            ledger.account(owner(&format!("{pod:05}"))).lock().read(TEN);
        }
        let lines = |page: &str| {
            let series = page.lines().filter(|line| line.starts_with("nodewarden_log_read_lines_total{"));
            let values =
                series.map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("one"));
            values.collect::<Vec<_>>()
        };
        let shown = lines(&page(&ledger));
        assert_eq!(
            (shown.len(), shown.iter().sum()),
            (CONTAINERS_SHOWN + 1, 10 * (CONTAINERS_SHOWN as u64 + 5))
        );
        // What is in flight is settled later.
        ledger.close_unused();
        assert_eq!(ledger.containers().len(), CONTAINERS_SHOWN + 5);
        for (owner, _) in ledger.containers() {
            ledger.account(owner).lock().acked(TEN);
        }
        let kept = ledger.account(owner("00007"));
        ledger.close_unused();
        let shown = lines(&page(&ledger));
        assert_eq!((shown.len(), shown.iter().sum()), (2, 10 * (CONTAINERS_SHOWN as u64 + 5)));
        drop(kept);
    }

    #[test]
    fn reasons_that_somebody_else_makes_up_are_bounded() {
        let mut figures = Figures::default();
        for number in 0..100 {
            figures.read(TEN);
            figures.dead(&format!("reason {number}"), TEN);
        }
        assert_eq!(figures.dead.0.len(), REASONS + 1);
        assert_eq!(figures.dead.total().lines, 1000);
    }
}
