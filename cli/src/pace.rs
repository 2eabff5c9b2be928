//! Progress of an import on a cluster, in a line for people.

use longshore_crds::contract::Progress;

use crate::bytes::bytes;

/// Share, bytes, rate and time left, as far as they are known.
pub(crate) fn text(progress: &Progress) -> String {
    if let Some(why) = &progress.unknown {
        return format!("how far is not known: {why}");
    }
    let mut parts = Vec::new();
    if let Some(percent) = progress.percent {
        parts.push(format!("{percent:.1}%"));
    }
    parts.push(format!("{} read", bytes(progress.read)));
    if progress.rate > 0 {
        parts.push(format!("{}/s", bytes(progress.rate)));
    }
    if let Some(left) = progress.eta_seconds {
        parts.push(format!("{} left", duration(left)));
    }
    parts.join(", ")
}

/// `3 d 4 h`, `5 min`, `7 s`.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..600 => format!("{minutes} min {} s", seconds % 60),
        600..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut progress = Progress {
            read: 3 << 20,
            ..Progress::default()
        };
        assert_eq!(text(&progress), "3 MiB read");
        progress.percent = Some(12.34);
        progress.rate = 1 << 20;
        progress.eta_seconds = Some(61);
        assert_eq!(
            text(&progress),
            "12.3%, 3 MiB read, 1 MiB/s, 1 min 1 s left"
        );
        progress.unknown = Some("no way".to_owned());
        assert_eq!(text(&progress), "how far is not known: no way");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, text) in [
            (7, "7 s"),
            (599, "9 min 59 s"),
            (3599, "59 min"),
            (3660, "1 h 1 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
