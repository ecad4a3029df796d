//! Intended times: when the next message, connection, ping or stall of a group is due. An open
//! loop: what is due does not wait for earlier replies. Reads no clock.

use crate::run::plan::Arrival;
use fastrand::Rng;

/// A sequence of moments, in nanoseconds of the run's clock.
#[derive(Debug, Clone)]
pub struct Schedule {
    next: f64,
    interval: f64,
    arrival: Arrival,
    left_of_burst: u32,
}

impl Schedule {
    /// So many a second from `start` on. None for a rate of nothing.
    pub fn new(per_second: f64, arrival: Arrival, start: u64) -> Option<Schedule> {
        let interval = 1e9 / per_second;
        let burst = if let Arrival::Burst(n) = arrival { n } else { 0 };
        interval.is_finite().then_some(Schedule { next: start as f64, interval, arrival, left_of_burst: burst })
    }

    pub fn next(&self) -> u64 {
        self.next as u64
    }

    /// Goes on to the moment after the next.
    pub fn advance(&mut self, random: &mut Rng) {
        match self.arrival {
            Arrival::Even => self.next += self.interval,
            // Times between the arrivals of a Poisson process are exponential.
            Arrival::Poisson => self.next += -(1.0 - random.f64()).ln() * self.interval,
            Arrival::Burst(size) => {
                self.left_of_burst = self.left_of_burst.saturating_sub(1);
                if self.left_of_burst == 0 {
                    self.left_of_burst = size;
                    self.next += self.interval * f64::from(size);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many moments lie in a second, and the longest distance of two.
    fn second_of(arrival: Arrival, per_second: f64) -> (u64, u64) {
        let mut schedule = Schedule::new(per_second, arrival, 0).unwrap();
        let (mut random, mut count, mut longest, mut last) = (Rng::with_seed(7), 0, 0, 0);
        while schedule.next() < 1_000_000_000 {
            longest = longest.max(schedule.next() - last);
            last = schedule.next();
            count += 1;
            schedule.advance(&mut random);
        }
        (count, longest)
    }

    #[test]
    fn a_rate_is_kept_however_they_arrive() {
        assert_eq!(second_of(Arrival::Even, 1000.0), (1000, 1_000_000));
        assert_eq!(second_of(Arrival::Burst(100), 1000.0), (1000, 100_000_000));
        let (count, longest) = second_of(Arrival::Poisson, 1000.0);
        assert!((850..1150).contains(&count) && longest > 3_000_000, "{count} {longest}");
        // An interval with a fraction of a nanosecond does not drift.
        assert_eq!(second_of(Arrival::Even, 300_000.7).0, 300_001);
        assert!(Schedule::new(0.0, Arrival::Even, 0).is_none());
    }
}
