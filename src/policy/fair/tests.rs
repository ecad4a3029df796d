use super::*;

const SECRET: u128 = 7;

fn lane(n: u8) -> Lane {
    Lane::of(IpAddr::from([10, 0, 0, n]), SECRET)
}

fn job(class: Class, n: u8, cost: u32) -> Job {
    Job { class, lane: lane(n), cost }
}

/// All items, in their order.
fn drain<T: Copy + PartialEq>(fair: &mut Fair<T>) -> Vec<T> {
    std::iter::from_fn(|| fair.pop()).map(|(item, _)| item).collect()
}

#[test]
fn of_one_prefix_the_first_comes_first() {
    let mut fair = Fair::new(100);
    for n in 0..50 {
        fair.push(n, job(Class::Other, 1, 1 + n % 4), 0);
    }
    assert_eq!(drain(&mut fair), (0..50).collect::<Vec<_>>());
    assert!(fair.is_empty() && fair.cost() == 0);
}

#[test]
fn a_prefix_with_a_thousand_delays_another_by_one_visit() {
    for cost in [1, QUANTUM] {
        let mut fair = Fair::new(10_000);
        for _ in 0..1_000 {
            fair.push("flood", job(Class::Other, 1, cost), 0);
        }
        fair.push("one", job(Class::Other, 2, QUANTUM), 0);
        let order = drain(&mut fair);
        let before = order.iter().position(|item| *item == "one").unwrap();
        assert!(before as u32 * cost <= QUANTUM, "{before} of cost {cost} came before");
        assert_eq!(order.len(), 1_001);
    }
}

/// However many floods there are: one round, which is one visit to each of them.
#[test]
fn a_newcomer_waits_for_one_round_at_most_at_any_moment() {
    let mut fair = Fair::new(100_000);
    let floods = 20_u8;
    for n in (0..200).flat_map(|_| 0..floods) {
        fair.push("flood", job(Class::Other, n, 1), 0);
    }
    for skipped in 0..200 {
        fair.push("new", job(Class::Other, 200, 1), 0);
        let before = std::iter::from_fn(|| fair.pop()).take_while(|(item, _)| *item != "new").count();
        assert!(before <= floods as usize * QUANTUM as usize, "{before} after {skipped}");
        for n in 0..before {
            fair.push("flood", job(Class::Other, n as u8 % floods, 1), 0);
        }
    }
}

#[test]
fn lanes_spend_the_same_whatever_their_items_cost() {
    let mut fair = Fair::new(100_000);
    for _ in 0..4_000 {
        fair.push(1_u32, job(Class::Other, 1, 1), 0);
    }
    for _ in 0..1_000 {
        fair.push(2, job(Class::Other, 2, 4), 0);
    }
    for _ in 0..2_000 {
        fair.push(3, job(Class::Other, 3, 3), 0);
    }
    let mut spent = [0_u32; 4];
    for _ in 0..1_000 {
        let (item, cost) = fair.pop().unwrap();
        spent[item as usize] += cost;
    }
    let (least, most) = (spent[1..].iter().min().unwrap(), spent[1..].iter().max().unwrap());
    assert!(most - least <= 2 * QUANTUM, "{spent:?}");
}

#[test]
fn classes_have_their_shares_and_none_starves() {
    use Class::{Admitted, Other, Preferred};
    let served = |classes: &[Class]| {
        let mut fair = Fair::new(100_000);
        for class in classes {
            for n in 0..500 {
                fair.push(*class, job(*class, n as u8, 4), 0);
            }
        }
        let first: Vec<_> = (0..400).map(|_| fair.pop().unwrap().0).collect();
        [Admitted, Preferred, Other].map(|class| first.iter().filter(|of| **of == class).count())
    };
    assert_eq!(served(&[Admitted, Preferred, Other]), [200, 100, 100]);
    assert_eq!(served(&[Preferred, Other]), [0, 300, 100]);
    assert_eq!(served(&[Admitted, Other]), [300, 0, 100]);
    assert_eq!(served(&[Admitted, Preferred]), [300, 100, 0]);
    assert_eq!(served(&[Other]), [0, 0, 400]);
}

#[test]
fn beyond_the_bound_the_youngest_of_the_fullest_lane_goes() {
    let mut fair = Fair::new(10);
    for n in 0..8 {
        fair.push(n, job(Class::Other, 1, 1), 0);
    }
    fair.push(100, job(Class::Preferred, 1, 1), 0);
    fair.push(200, job(Class::Other, 2, 1), 0);
    assert_eq!(fair.displace(), None);
    // One of another prefix comes in, and one of the flood goes: preferred ones are last to go.
    for n in 0..9 {
        fair.push(300 + n, job(Class::Other, 10 + n as u8, 1), 0);
        let gone = if n < 7 { Some(7 - n) } else { None };
        if let Some(gone) = gone {
            assert_eq!(fair.displace(), Some(gone));
        } else {
            let gone = fair.displace().unwrap();
            assert_ne!(gone, 100, "all lanes are alike, or this one has two");
        }
        assert_eq!(fair.displace(), None);
        assert_eq!(fair.len(), 10);
    }
    // Of its own prefix the one that comes last goes, and admitted ones never do.
    let mut fair = Fair::new(2);
    for n in 0..5 {
        fair.push(n, job(Class::Admitted, 1, 1), 0);
    }
    for n in 5..9 {
        fair.push(n, job(Class::Preferred, 1, 1), 0);
    }
    assert_eq!([fair.displace(), fair.displace(), fair.displace()], [Some(8), Some(7), None]);
    fair.set_max(0);
    assert_eq!([fair.displace(), fair.displace(), fair.displace()], [Some(6), Some(5), None]);
    assert_eq!((fair.len(), fair.expire(u64::MAX)), (5, None));
}

#[test]
fn those_that_wait_too_long_go_first_in_their_order() {
    let mut fair = Fair::new(100);
    let places: Vec<_> = (0..10).map(|n| fair.push(n, job(Class::Other, n as u8, 2), n * 10)).collect();
    assert!(fair.remove(places[1], 1) && !fair.remove(places[1], 1) && !fair.remove(places[2], 1));
    let expired: Vec<_> = std::iter::from_fn(|| fair.expire(45)).collect();
    assert_eq!(expired, [0, 2, 3, 4]);
    assert_eq!((fair.len(), fair.cost(), drain(&mut fair)), (5, 10, vec![5, 6, 7, 8, 9]));
}

/// Against a model: nothing is lost, doubled or kept, and what it holds is bounded.
#[test]
fn whatever_is_done_each_item_comes_out_once() {
    for seed in 0..50_u64 {
        let mut state = seed;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let (mut fair, mut held, mut next) = (Fair::new(40), Vec::<(Place, u64, u32)>::new(), 0_u64);
        for now in 0..3_000 {
            let mut gone = Vec::new();
            match below(8) {
                0..4 => {
                    let class = [Class::Admitted, Class::Preferred, Class::Other][below(3) as usize];
                    let cost = 1 + below(4) as u32;
                    let place = fair.push(next, job(class, below(12) as u8, cost), now);
                    held.push((place, next, cost));
                    next += 1;
                }
                4..6 => gone.extend(fair.pop().map(|(item, _)| item)),
                6 if !held.is_empty() => {
                    let (place, item, _) = held[below(held.len() as u64) as usize];
                    assert!(fair.remove(place, item));
                    gone.push(item);
                }
                _ => gone.extend(fair.expire(now.saturating_sub(30))),
            }
            gone.extend(std::iter::from_fn(|| fair.displace()));
            for item in gone {
                let at = held.iter().position(|(_, held, _)| *held == item).expect("it was held, once");
                held.swap_remove(at);
            }
            assert_eq!(fair.len(), held.len());
            assert_eq!(fair.cost(), held.iter().map(|(_, _, cost)| *cost).sum::<u32>());
            assert!(fair.line.len() <= 40 && fair.entries.len() <= 41 + next as usize);
        }
        let mut left = drain(&mut fair);
        left.sort_unstable();
        let mut expected: Vec<_> = held.iter().map(|(_, item, _)| *item).collect();
        expected.sort_unstable();
        assert_eq!(left, expected, "seed {seed}");
    }
}

/// The table is used again, and so is what it holds: no memory more for a storm that lasts.
#[test]
fn a_storm_that_lasts_takes_no_memory_more() {
    let mut fair = Fair::new(64);
    for n in 0..100_000_u64 {
        fair.push(n, job(Class::Other, n as u8, 4), n);
        while fair.displace().is_some() {}
        if n % 3 == 0 {
            fair.pop();
        }
    }
    assert!(fair.entries.len() <= 65 && fair.entries.capacity() <= 128 && fair.free.capacity() <= 128);
}

#[test]
fn lanes_follow_from_the_secret() {
    let lanes = |secret| (0..200).map(|n| Lane::of(IpAddr::from([192, 0, 2, n]), secret)).collect::<Vec<_>>();
    assert_eq!(lanes(1), lanes(1));
    let same = lanes(1).iter().zip(lanes(2)).filter(|(one, other)| **one == *other).count();
    assert!(same < 10, "{same} of 200 share their lane under both");
}
