//! The times of RFC 3164, which have neither a year nor a zone.

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

/// How far ahead of this machine's clock the writer's may be.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);
/// Far enough back for a 29th of February.
const YEARS_BACK: i16 = 8;
/// For how long what was found for a minute is good, in nanoseconds.
const GOOD_FOR: i64 = 60_000_000_000;

/// When a line says that it was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Written {
    /// It does not say.
    #[default]
    Nowhere,
    /// Nanoseconds since the epoch.
    At(i64),
    /// By the clock on the wall.
    Local(LocalTime),
}

/// "Nov 21 10:10:10"
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    second: i8,
}

impl LocalTime {
    /// Reads it with the space that follows.
    pub fn parse(text: &[u8; 16]) -> Option<Self> {
        const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
        let &[a, b, c, b' ', tens, day, b' ', h1, h2, b':', m1, m2, b':', s1, s2, b' '] = text else {
            return None;
        };
        let (months, _) = MONTHS.as_chunks::<3>();
        let month = months.iter().position(|month| *month == [a, b, c])?;
        let tens = if tens == b' ' { b'0' } else { tens };
        let two = |one: u8, other: u8| {
            let is_number = one.is_ascii_digit() && other.is_ascii_digit();
            is_number.then(|| ((one - b'0') * 10 + other - b'0') as i8)
        };
        let time = Self {
            month: month as i8 + 1,
            day: two(tens, day)?,
            hour: two(h1, h2)?,
            minute: two(m1, m2)?,
            second: two(s1, s2)?,
        };
        let is_fit = (1..=31).contains(&time.day) && time.hour < 24 && time.minute < 60 && time.second <= 60;
        is_fit.then_some(time)
    }
}

/// Makes instants of them.
#[derive(Debug, Default)]
pub struct Clock {
    /// Instead of this machine's.
    zone: Option<TimeZone>,
    last: Option<Minute>,
}

/// What was found for a minute: the next line is likely of the same.
#[derive(Debug)]
struct Minute {
    local: LocalTime,
    seconds: i64,
    read: i64,
}

impl Clock {
    /// One in a zone of its own.
    #[cfg(test)]
    pub fn in_zone(zone: TimeZone) -> Self {
        Self { zone: Some(zone), last: None }
    }

    /// Nanoseconds since the epoch of a line that was read at `read`; that itself where nothing better is known.
    pub fn nanos(&mut self, written: Written, read: i64) -> i64 {
        match written {
            Written::Nowhere => read,
            Written::At(time) => time,
            Written::Local(local) => self.local(local, read).unwrap_or(read),
        }
    }

    fn local(&mut self, local: LocalTime, read: i64) -> Option<i64> {
        let minute = LocalTime { second: 0, ..local };
        let known = self
            .last
            .as_ref()
            .filter(|last| last.local == minute && (0..GOOD_FOR).contains(&read.saturating_sub(last.read)));
        let seconds = match known {
            Some(last) => last.seconds,
            None => {
                let zone = self.zone.clone().unwrap_or_else(TimeZone::system);
                let seconds = latest(minute, Timestamp::from_nanosecond(read.into()).ok()?, &zone)?;
                self.last = Some(Minute { local: minute, seconds, read });
                seconds
            }
        };
        (seconds + i64::from(local.second)).checked_mul(1_000_000_000)
    }
}

/// The last time that clocks showed this minute before `now` or shortly after it, in seconds since the epoch.
fn latest(minute: LocalTime, now: Timestamp, zone: &TimeZone) -> Option<i64> {
    let LocalTime { month, day, hour, minute, .. } = minute;
    let limit = now.checked_add(AHEAD).ok()?;
    let this_year = zone.to_datetime(now).year();
    (this_year - YEARS_BACK..=this_year + 1).rev().find_map(|year| {
        let shown = Date::new(year, month, day).ok()?.at(hour, minute, 0, 0);
        let time = zone.to_ambiguous_timestamp(shown);
        // In the hour that comes twice, lines are read soon after they are written.
        let again = time.later().ok().filter(|again| time.is_ambiguous() && *again <= now);
        let time = again.or_else(|| time.compatible().ok())?;
        (time <= limit).then(|| time.as_second())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn read(zone: &str, text: &str, now: &str) -> String {
        let mut clock = Clock::in_zone(TimeZone::posix(zone).expect("a zone"));
        nanos(&mut clock, text, now)
    }

    fn nanos(clock: &mut Clock, text: &str, now: &str) -> String {
        let text: [u8; 16] = format!("{text} ").into_bytes().try_into().expect("16 bytes");
        let local = LocalTime::parse(&text).expect("a time");
        let now: Timestamp = now.parse().expect("a time");
        let nanos = clock.nanos(Written::Local(local), now.as_nanosecond() as i64);
        Timestamp::from_nanosecond(nanos.into()).expect("a time").to_string()
    }

    #[test]
    fn a_time_is_that_of_the_machines_zone() {
        assert_eq!(read(BERLIN, "Nov 21 10:10:10", "2026-11-21T09:10:11Z"), "2026-11-21T09:10:10Z");
        assert_eq!(read(BERLIN, "Jul  1 00:00:00", "2026-11-21T09:10:11Z"), "2026-06-30T22:00:00Z");
    }

    #[test]
    fn the_year_is_the_last_one_that_fits() {
        for (text, now, time) in [
            // New Year, read late and read by a clock that is behind.
            ("Dec 31 23:59:59", "2027-01-01T00:00:01Z", "2026-12-31T23:59:59Z"),
            ("Jan  1 00:00:01", "2026-12-31T23:59:58Z", "2027-01-01T00:00:01Z"),
            // In a year's old log.
            ("Nov 30 10:00:00", "2026-11-21T09:10:11Z", "2025-11-30T10:00:00Z"),
            ("Feb 29 10:00:00", "2026-11-21T09:10:11Z", "2024-02-29T10:00:00Z"),
            // A clock that is ahead.
            ("Nov 21 10:10:10", "2026-11-21T09:10:11Z", "2026-11-21T10:10:10Z"),
            // A leap second.
            ("Dec 31 23:59:60", "2027-01-01T00:00:01Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(read("UTC0", text, now), time, "{text} at {now}");
        }
        assert_eq!(read(BERLIN, "Jan  1 00:30:00", "2026-12-31T23:30:01Z"), "2026-12-31T23:30:00Z");
    }

    #[test]
    fn the_hour_that_comes_twice_is_told_by_when_it_is_read() {
        let mut clock = Clock::in_zone(TimeZone::posix(BERLIN).expect("a zone"));
        assert_eq!(nanos(&mut clock, "Oct 25 02:30:00", "2026-10-25T00:30:01Z"), "2026-10-25T00:30:00Z");
        assert_eq!(nanos(&mut clock, "Oct 25 02:30:00", "2026-10-25T01:30:01Z"), "2026-10-25T01:30:00Z");
        // The hour that never comes.
        assert_eq!(nanos(&mut clock, "Mar 29 02:30:00", "2026-03-29T01:30:01Z"), "2026-03-29T01:30:00Z");
    }

    #[test]
    fn a_day_that_never_was_has_the_time_of_reading() {
        assert_eq!(read("UTC0", "Feb 30 10:00:00", "2026-11-21T09:10:11Z"), "2026-11-21T09:10:11Z");
    }

    #[test]
    fn other_texts_are_no_time() {
        for text in [
            "Nov 21 24:10:10 ",
            "Nov 21 10:60:10 ",
            "Nov 21 10:10:61 ",
            "Nov 00 10:10:10 ",
            "nov 21 10:10:10 ",
        ] {
            let text: &[u8; 16] = text.as_bytes().try_into().expect("16 bytes");
            assert_eq!(LocalTime::parse(text), None);
        }
    }

    proptest! {
        #[test]
        fn a_written_time_reads_back(written in 0_i64..8_000_000_000, age in 0_i64..31_000_000) {
            let zone = TimeZone::posix("NZST-12").expect("a zone");
            let time = Timestamp::from_second(written).expect("a time");
            let text = time.to_zoned(zone.clone()).strftime("%b %e %H:%M:%S ").to_string();
            let text: [u8; 16] = text.into_bytes().try_into().expect("16 bytes");
            let local = LocalTime::parse(&text).expect("a time");
            let read = (written + age) * 1_000_000_000;
            let mut clock = Clock::in_zone(zone);
            // The second time from what is remembered.
            for _ in 0..2 {
                prop_assert_eq!(clock.nanos(Written::Local(local), read), written * 1_000_000_000);
            }
        }

        #[test]
        fn no_bytes_panic(text: [u8; 16], read: i64) {
            if let Some(local) = LocalTime::parse(&text) {
                Clock::in_zone(TimeZone::UTC).nanos(Written::Local(local), read);
            }
        }
    }
}
