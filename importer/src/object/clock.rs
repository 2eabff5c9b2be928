//! Times as object stores write them: `20261121T201641Z` in signatures, `2026-11-21T20:16:41Z` where
//! something runs out. Always UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// Seconds since 1970. A clock that is before that is at that.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// `YYYYMMDDTHHMMSSZ`.
pub(crate) fn compact(time: SystemTime) -> String {
    let seconds = seconds(time);
    let (year, month, day) = date(seconds / DAY);
    let (hour, minute, second) = (seconds % DAY / 3600, seconds % 3600 / 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Reads `YYYY-MM-DDTHH:MM:SSZ`, with or without a fraction.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let plain = text.trim().strip_suffix('Z')?;
    let (date, time) = plain.split_once('T')?;
    let time = time.split('.').next()?;
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let mut parts = text.split(between).map(|part| part.parse().ok());
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_lengths(year: u64) -> [u64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// Leap days from 1970 to the start of `year`.
fn leap_days(year: u64) -> u64 {
    let until = |year: u64| year / 4 - year / 100 + year / 400;
    until(year - 1) - until(1969)
}

/// Days from 1970-01-01 to the start of this day. `year` is 1970 or later.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let before: u64 = (1..month)
        .zip(month_lengths(year))
        .map(|(_, length)| length)
        .sum();
    (year - 1970) * 365 + leap_days(year) + before + day - 1
}

/// Year, month and day of a number of days after 1970-01-01.
fn date(days_since: u64) -> (u64, u64, u64) {
    // Never too late, and too early by a year at the most.
    let mut year = 1970 + days_since / 366;
    while days(year + 1, 1, 1) <= days_since {
        year += 1;
    }
    let mut rest = days_since - days(year, 1, 1);
    let mut month = 1;
    for length in month_lengths(year) {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        // By date(1).
        for (seconds, long) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_369_353_600, "2013-05-24T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(parse(long), Some(at(seconds)), "{long}");
            let short: String = long.chars().filter(|c| !"-:".contains(*c)).collect();
            assert_eq!(compact(at(seconds)), short);
        }
        assert_eq!(parse("2013-05-24T00:00:00.987Z"), Some(at(1_369_353_600)));
    }

    #[test]
    fn every_day_of_four_centuries_is_found_again() {
        for day in 0..146_097 {
            let (year, month, date) = date(day);
            assert_eq!(days(year, month, date), day);
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "Z",
            "2013-05-24",
            "2013-05-24T00:00:00",
            "2013-13-24T00:00:00Z",
            "1969-01-01T00:00:00Z",
            "99999-01-01T00:00:00Z",
            "2013-05-24T00:00:00:00Z",
            "2013-05-24T99:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
