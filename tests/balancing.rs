//! Properties of the choice of endpoints, through the interface that a worker uses: how sessions
//! spread, who moves when endpoints come and go, and that every count returns to zero.

#[path = "balancing/counts.rs"]
mod counts;
#[path = "balancing/distribution.rs"]
mod distribution;
#[path = "balancing/hashing.rs"]
mod hashing;
#[path = "balancing/preference.rs"]
mod preference;
#[path = "balancing/rig.rs"]
mod rig;
#[path = "balancing/split.rs"]
mod split;
#[path = "balancing/threads.rs"]
mod threads;
