//! How much a pod or a namespace may write.
//!
//! It is the time of the lines that counts, not when they are read: after an outage a backlog is read in seconds that was
//! written in hours. Time is cut into windows, so that what is left out comes in one piece at a window's end, and the same
//! lines are judged the same way however the files of a pod are read in turn.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::rules::Reason;
use crate::{
    logs::record::{FileFacts, Span},
    metrics::ledger::Amount,
};

const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// Windows that are remembered: files of one pod are read one after the other, each some windows ahead of the others.
const WINDOWS: usize = 32;
/// Ranges of lines that are remembered as left out until they are confirmed.
const RANGES: usize = 1024;

/// What may be written; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// Lines per second.
    pub lines: u64,
    /// Bytes per second.
    pub bytes: u64,
    /// So many lines, or bytes where only they are limited, may come at once: the limit is held over the time that they take.
    pub burst: u64,
}

impl Rate {
    /// Whether nothing is limited.
    pub fn is_none(self) -> bool {
        self.lines == 0 && self.bytes == 0
    }

    /// The seconds over which it is held.
    fn seconds(self) -> u64 {
        let rate = if self.lines > 0 { self.lines } else { self.bytes };
        self.burst.div_ceil(rate.max(1)).clamp(1, 24 * 3600)
    }
}

/// The limits of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Of each pod.
    pub per_pod: Rate,
    /// Of each namespace.
    pub per_namespace: Rate,
}

/// What one pod or namespace has written.
#[derive(Debug)]
struct Budget {
    rate: Rate,
    /// In the order of their times.
    windows: VecDeque<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    number: i64,
    lines: u64,
    bytes: u64,
    /// It is over for this window, also for a shorter line.
    is_spent: bool,
}

impl Budget {
    fn new(rate: Rate) -> Self {
        Self { rate, windows: VecDeque::new() }
    }

    /// Whether a line of a time may pass. What is older than every window that is remembered may.
    fn take(&mut self, time: i64, amount: Amount) -> bool {
        let seconds = self.rate.seconds();
        let number = time.div_euclid(NANOS_PER_SECOND).div_euclid(seconds as i64);
        let after = self.windows.iter().rposition(|window| window.number <= number);
        let at = match after {
            Some(at) if self.windows.get(at).is_some_and(|window| window.number == number) => at,
            None if self.windows.len() >= WINDOWS => return true,
            before => {
                let at = before.map_or(0, |at| at + 1);
                self.windows.insert(at, Window { number, lines: 0, bytes: 0, is_spent: false });
                let surplus = usize::from(self.windows.len() > WINDOWS);
                self.windows.drain(..surplus);
                at - surplus
            }
        };
        let Some(window) = self.windows.get_mut(at) else { return true };
        // An event that is more than the limit passes when it is the first.
        let is_first = window.lines == 0;
        window.lines += amount.lines;
        window.bytes = window.bytes.saturating_add(amount.bytes);
        let is_over = |used: u64, rate: u64| rate > 0 && used > rate.saturating_mul(seconds);
        let is_over = is_over(window.lines, self.rate.lines) || is_over(window.bytes, self.rate.bytes);
        window.is_spent |= !is_first && is_over;
        !window.is_spent
    }
}

/// All that is limited, each shared by the files that belong to it.
#[derive(Debug, Default)]
pub struct Registry {
    budgets: Mutex<HashMap<String, Weak<Mutex<Budget>>>>,
}

/// The limits that one file is under.
#[derive(Debug, Default)]
pub struct FileLimits {
    budgets: Vec<(Reason, Arc<Mutex<Budget>>)>,
    /// The lines that were left out and not confirmed yet: they are when they are read again, too. No line that passed lies
    /// within one of these ranges.
    refused: VecDeque<Span>,
    /// Whether no line passed since the last of them.
    is_open: bool,
}

impl Registry {
    /// The limits of a container's file; `None` when it has none.
    pub fn of_file(&self, facts: &FileFacts, limits: &Limits) -> Option<FileLimits> {
        let container = facts.origin.container()?;
        let wanted = [
            (Reason::PodLimit, limits.per_pod, format!("pod {}", container.uid)),
            (Reason::NamespaceLimit, limits.per_namespace, format!("namespace {}", container.namespace)),
        ];
        let mut budgets = Vec::new();
        for (reason, rate, key) in wanted.into_iter().filter(|(_, rate, _)| !rate.is_none()) {
            budgets.push((reason, self.budget(key, rate)));
        }
        (!budgets.is_empty()).then(|| FileLimits { budgets, ..FileLimits::default() })
    }

    fn budget(&self, key: String, rate: Rate) -> Arc<Mutex<Budget>> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = budgets.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        // What is gone is forgotten when something new comes.
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let made = Arc::new(Mutex::new(Budget::new(rate)));
        budgets.insert(key, Arc::downgrade(&made));
        made
    }
}

impl FileLimits {
    /// Whether a line is left out, and why. A line that was read before is judged as it was then, as far as that is known.
    pub fn judge(&mut self, time: i64, span: Span, amount: Amount, is_new: bool) -> Option<Reason> {
        if !is_new {
            let was_refused =
                self.refused.iter().any(|range| range.start <= span.start && span.end <= range.end);
            return self.budgets.first().map(|(reason, _)| *reason).filter(|_| was_refused);
        }
        let mut refused = None;
        for (reason, budget) in &self.budgets {
            let passes = budget.lock().unwrap_or_else(PoisonError::into_inner).take(time, amount);
            refused = refused.or((!passes).then_some(*reason));
        }
        // Other lines may lie within a line that came in parts.
        let is_whole = amount.bytes == span.end - span.start;
        if refused.is_none() {
            self.is_open = false;
        } else if is_whole {
            match self.refused.back_mut().filter(|last| self.is_open && last.end == span.start) {
                Some(last) => last.end = span.end,
                None => self.refused.push_back(span),
            }
            self.is_open = true;
            let surplus = self.refused.len().saturating_sub(RANGES);
            self.refused.drain(..surplus);
        }
        refused
    }

    /// What is below this offset will not be read again.
    pub fn passed(&mut self, confirmed: u64) {
        while self.refused.front().is_some_and(|range| range.end <= confirmed) {
            self.refused.pop_front();
        }
    }

    /// The limit in words.
    pub fn describe(reason: Reason, limits: &Limits) -> String {
        let (of, rate) = match reason {
            Reason::NamespaceLimit => ("namespace", limits.per_namespace),
            _ => ("pod", limits.per_pod),
        };
        let lines = (rate.lines > 0).then(|| format!("{} lines", rate.lines));
        let bytes = (rate.bytes > 0).then(|| format!("{} bytes", rate.bytes));
        let parts: Vec<String> = lines.into_iter().chain(bytes).collect();
        format!("a {of} may write {} a second", parts.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{logs::record::FileId, testing::container};

    const SECOND: i64 = NANOS_PER_SECOND;

    fn line(bytes: u64) -> Amount {
        Amount { lines: 1, bytes }
    }

    fn facts() -> FileFacts {
        FileFacts::new(FileId([1; 12]), "/a", container(0))
    }

    fn passed(budget: &mut Budget, second: i64, lines: u64) -> u64 {
        (0..lines).map(|_| u64::from(budget.take(second * SECOND, line(10)))).sum()
    }

    #[test]
    fn each_second_has_its_own_lines() {
        let mut budget = Budget::new(Rate { lines: 5, ..Rate::default() });
        assert_eq!(passed(&mut budget, 100, 9), 5);
        assert_eq!(passed(&mut budget, 101, 3), 3);
        // Another file of the pod is read later.
        assert_eq!(passed(&mut budget, 99, 9), 5);
        assert_eq!((passed(&mut budget, 100, 1), passed(&mut budget, 101, 3)), (0, 2));
    }

    #[test]
    fn a_burst_may_come_at_once() {
        let mut budget = Budget::new(Rate { lines: 5, burst: 50, ..Rate::default() });
        assert_eq!(passed(&mut budget, 100, 60), 50);
        assert_eq!((passed(&mut budget, 109, 9), passed(&mut budget, 110, 9)), (0, 9));
    }

    #[test]
    fn bytes_are_limited_too_and_a_window_that_is_spent_stays_so() {
        let mut budget = Budget::new(Rate { bytes: 25, ..Rate::default() });
        assert_eq!(passed(&mut budget, 100, 9), 2);
        assert!(!budget.take(100 * SECOND, line(1)));
        // One line that is longer than all of it would never pass.
        assert!(budget.take(101 * SECOND, line(1000)) && !budget.take(101 * SECOND, line(1)));
    }

    #[test]
    fn files_of_a_pod_share_its_limit() {
        let limits = Limits { per_pod: Rate { lines: 2, ..Rate::default() }, ..Limits::default() };
        let registry = Registry::default();
        let mut one = registry.of_file(&facts(), &limits).expect("limits");
        let mut other = registry.of_file(&facts(), &limits).expect("limits");
        let span = Span { start: 0, end: 10 };
        assert_eq!(one.judge(0, span, line(10), true), None);
        assert_eq!(other.judge(0, span, line(10), true), None);
        assert_eq!(one.judge(0, span, line(10), true), Some(Reason::PodLimit));
        drop((one, other));
        assert_eq!(registry.of_file(&facts(), &limits).expect("limits").judge(0, span, line(10), true), None);
        assert!(registry.of_file(&facts(), &Limits::default()).is_none());
    }

    #[test]
    fn a_line_that_is_read_again_is_judged_as_before() {
        let limits = Limits { per_namespace: Rate { lines: 2, ..Rate::default() }, ..Limits::default() };
        let mut file = Registry::default().of_file(&facts(), &limits).expect("limits");
        let span = |line: u64| Span { start: 10 * line, end: 10 * line + 10 };
        let judge = |file: &mut FileLimits, is_new| -> Vec<bool> {
            (0..6)
                .map(|number| {
                    file.judge(number as i64 / 4 * SECOND, span(number), line(10), is_new).is_none()
                })
                .collect()
        };
        let first = judge(&mut file, true);
        assert_eq!(first, [true, true, false, false, true, true]);
        assert_eq!(judge(&mut file, false), first);
        assert_eq!(file.refused.len(), 1);
        file.passed(40);
        assert!(file.refused.is_empty());
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_its_lines(times in proptest::collection::vec(0_i64..20, 0..300)) {
            let mut budget = Budget::new(Rate { lines: 7, ..Rate::default() });
            let mut counts = [0; 20];
            for time in times {
                let passes = budget.take(time * SECOND, line(1));
                counts[time as usize] += 1;
                prop_assert_eq!(passes, counts[time as usize] <= 7);
            }
        }
    }
}
