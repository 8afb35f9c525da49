//! What a token may ask for at most: requests in a time, and jobs that wait.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName};

/// The names of units, and their seconds.
const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

/// Names of the headers that tell a client of its limit.
pub const HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
];

/// Requests in a second, a minute or an hour: `10/s`, `600/m`, `3000/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The number of requests, at least 1.
    pub requests: u32,
    /// The seconds: 1, 60 or 3600.
    pub seconds: u64,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let rate = text.split_once('/').and_then(|(requests, unit)| {
            let requests = requests.parse().ok().filter(|requests| *requests > 0)?;
            let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
            Some(Rate { requests, seconds })
        });
        rate.ok_or_else(|| {
            format!("expected a number of requests, such as 10/s, 600/m or 3000/h, found {text:?}")
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit =
            UNITS.into_iter().find(|(_, seconds)| *seconds == self.seconds).map_or("s", |(name, _)| name);
        write!(f, "{}/{unit}", self.requests)
    }
}

/// The limits of a token.
#[derive(Debug, Default)]
pub struct Limits {
    /// Requests. `None`: as many as the client likes.
    pub requests: Option<Bucket>,
    /// Jobs that wait, of all kinds. `None`: as many as the queue takes.
    pub waiting: Option<usize>,
}

/// Counts requests: the bucket is full at first, each request takes one out of it, and it fills up again evenly over the rate's time. So a
/// client may make all of its requests at once, and then has to wait for each.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    /// What is left of the requests, and when that was so.
    left: Mutex<(f64, Option<Instant>)>,
}

/// What a client has left after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// The requests of a full bucket.
    pub limit: u32,
    /// The requests that may be made at once.
    pub remaining: u32,
    /// Seconds until the bucket is full.
    pub reset: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Bucket {
        Bucket { rate, left: Mutex::new((f64::from(rate.requests), None)) }
    }

    /// Takes a request out of the bucket, at the time `now`.
    ///
    /// # Errors
    /// The bucket is empty. The number says after how many seconds there is one more request.
    pub fn take(&self, now: Instant) -> Result<Left, (Left, u64)> {
        let most = f64::from(self.rate.requests);
        let each = self.rate.seconds as f64 / most;
        let mut kept = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, then) = *kept;
        let passed = then.map_or(Duration::ZERO, |then| now.saturating_duration_since(then)).as_secs_f64();
        let has = (left + passed / each).min(most);
        let is_taken = has >= 1.0;
        let left = if is_taken { has - 1.0 } else { has };
        *kept = (left, then.max(Some(now)));
        let reset = ((most - left) * each).ceil() as u64;
        let shown = Left { limit: self.rate.requests, remaining: left as u32, reset };
        if is_taken { Ok(shown) } else { Err((shown, ((1.0 - has) * each).ceil().max(1.0) as u64)) }
    }
}

impl Left {
    /// Tells the client.
    pub fn tell(&self, headers: &mut HeaderMap) {
        for (name, number) in HEADERS.into_iter().zip([self.limit.into(), self.remaining.into(), self.reset])
        {
            headers.insert(name, number.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects limits that an operator writes: each unit, and nothing else.
    #[test]
    fn rates() {
        for (text, requests, seconds) in [("10/s", 10, 1), ("600/m", 600, 60), ("1/h", 1, 3600)] {
            assert_eq!(text.parse(), Ok(Rate { requests, seconds }));
            assert_eq!(Rate { requests, seconds }.to_string(), text);
        }
        for wrong in ["", "600", "0/m", "-1/m", "1.5/s", "600/d", "600 / m", "99999999999/s"] {
            assert!(wrong.parse::<Rate>().unwrap_err().contains(wrong), "{wrong}");
        }
    }

    /// Protects clients and services: as many requests as allowed, then one for each share of the time, and the client knows when.
    #[test]
    fn a_bucket() {
        let bucket = Bucket::new(Rate { requests: 3, seconds: 60 });
        let start = Instant::now();
        let at = |seconds: u64| bucket.take(start + Duration::from_secs(seconds));
        let left = |remaining, reset| Left { limit: 3, remaining, reset };
        assert_eq!(at(0), Ok(left(2, 20)));
        assert_eq!(at(0), Ok(left(1, 40)));
        assert_eq!(at(0), Ok(left(0, 60)));
        assert_eq!(at(0), Err((left(0, 60), 20)));
        assert_eq!(at(5), Err((left(0, 55), 15)));
        assert_eq!(at(21), Ok(left(0, 59)));
        assert_eq!(at(22), Err((left(0, 58), 18)));
        // Never more than the bucket holds; a clock that goes back gives nothing.
        assert_eq!(at(3600), Ok(left(2, 20)));
        assert_eq!(at(3000), Ok(left(1, 40)));
    }
}
