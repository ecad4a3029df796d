use super::*;
use proptest::prelude::*;
use std::sync::Arc;

fn bucket(units: u64, period_ms: Millis, burst: u64, now: Millis) -> Bucket {
    let rate = Rate { units, period_ms };
    Bucket::new(RateLimit { measure: Measure::Bytes, rate, burst, on_excess: OnExcess::Pause, close_code: 1008 }, now)
}

#[test]
fn a_bucket_gives_its_burst_and_then_what_its_rate_allows() {
    // 100 in 60 s: one in 600 ms.
    let bucket = bucket(100, 60_000, 100, 5);
    assert_eq!(bucket.left(bucket.level(5)), 100);
    for (now, taken, left, debt) in [
        (5, 40, 60, false),
        (5, 60, 0, false),
        (5, 1, 0, true),
        (604, 0, 0, true),
        (605, 0, 0, false),
        (1_204, 0, 0, false),
        (1_205, 0, 1, false),
        (1_205, 1, 0, false),
        (61_205, 0, 100, false),
        (10_000_000, 0, 100, false),
        (10_000_000, 101, 0, true),
    ] {
        let level = bucket.take(taken, now);
        assert_eq!((bucket.left(level), bucket.is_in_debt(level)), (left, debt), "{taken} at {now}");
        assert_eq!(level, bucket.level(now));
    }
}

#[test]
fn reading_is_resumed_when_a_tenth_of_a_second_of_the_rate_may_pass() {
    for (units, period, burst, taken, resumed) in [
        (100, 60_000, 100, 100, 600),   // one message
        (100, 60_000, 100, 101, 1_200), // and one that is owed
        (1_000, 1_000, 1_000, 1_000, 100),
        (1_000, 1_000, 1_000, 1_500, 600),
        (1 << 20, 1_000, 1 << 22, 1 << 22, 100),
        (1_000, 1_000, 50, 50, 50), // the burst is less
    ] {
        let bucket = bucket(units, period, burst, 7);
        let level = bucket.take(taken, 7);
        let at = bucket.resume_at(level, 7);
        assert_eq!(at, 7 + resumed, "{units} in {period} ms");
        assert!(bucket.left(bucket.level(at)) > 0 && !bucket.is_in_debt(bucket.level(at)));
    }
}

#[test]
fn the_largest_values_do_not_overflow() {
    let most = bucket(UNITS_MAX, PERIOD_MAX_MS, BURST_MAX, Millis::MAX / 2);
    assert_eq!(most.left(most.level(Millis::MAX / 2)), BURST_MAX);
    let level = most.take(u64::MAX, Millis::MAX / 2);
    assert!(most.is_in_debt(level) && most.left(level) == 0);
    // Ticks wrap: 2^30 of them in a millisecond, from a time at which they are about to.
    let fast = bucket(UNITS_MAX - 1, 1, UNITS_MAX, (1 << 34) - 1);
    let level = fast.take(UNITS_MAX, (1 << 34) - 1);
    assert_eq!((fast.left(level), fast.is_in_debt(level)), (0, false));
    assert_eq!(fast.left(fast.level(1 << 34)), UNITS_MAX - 1);
    let rested = (1 << 34) + 100 * 24 * 3600 * 1000;
    assert_eq!(fast.left(fast.level(rested)), UNITS_MAX, "a hundred days later");
}

#[test]
fn what_several_threads_take_is_taken() {
    const THREADS: u64 = 4;
    const EACH: u64 = 20_000;
    let shared = Arc::new(bucket(1, 1_000, THREADS * EACH + 5, 0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let bucket = Arc::clone(&shared);
            scope.spawn(move || (0..EACH).for_each(|_| assert!(!bucket.is_in_debt(bucket.take(1, 0)))));
        }
    });
    assert_eq!(shared.left(shared.level(0)), 5);
}

/// A bucket as one would write it down: what is in it, in thousandths of what a unit is.
struct Naive {
    units: i128,
    period: i128,
    burst: i128,
    /// Units in it, times the period.
    tokens: i128,
    at: Millis,
}

impl Naive {
    fn at(&mut self, now: Millis) {
        let gained = i128::from(now - self.at) * self.units;
        (self.tokens, self.at) = ((self.tokens + gained).min(self.burst * self.period), now);
    }
}

proptest! {
    #[test]
    fn a_bucket_is_what_a_naive_one_is(
        units in prop_oneof![1u64..5_000, 1u64 << 18..UNITS_MAX],
        period in 10u64..PERIOD_MAX_MS,
        burst in prop_oneof![1u64..1_000, 1u64 << 10..BURST_MAX],
        start in prop_oneof![Just(0u64), 0u64..1 << 42],
        steps in proptest::collection::vec((0u64..100_000, 0u64..3), 1..50),
    ) {
        let bucket = bucket(units, period, burst, start);
        let mut naive =
            Naive { units: units.into(), period: period.into(), burst: burst.into(), tokens: 0, at: start };
        naive.tokens = naive.burst * naive.period;
        let mut now = start;
        for (step, share) in steps {
            now += step;
            naive.at(now);
            // A third of what is left, all of it, or more.
            let taken = bucket.left(bucket.level(now)) * (share + 1) / 3 + share / 2;
            let level = bucket.take(taken, now);
            naive.tokens -= i128::from(taken) * naive.period;
            prop_assert_eq!(i128::from(bucket.left(level)), naive.tokens.max(0) / naive.period);
            prop_assert_eq!(bucket.is_in_debt(level), naive.tokens < 0);
            let resumed = bucket.resume_at(level, now);
            naive.at(resumed);
            prop_assert!(naive.tokens >= naive.period, "one unit may pass when reading is resumed");
            prop_assert!(resumed > now);
            now = resumed;
        }
    }
}
