//! How many threads loaded models have. In a process of its own: other tests' threads would be counted too.

use ckaad_bundle::Bundle;
use ckaad_inspect::engine::{Plan, Pool};
use ckaad_testing::demo_bundle;
use std::time::{Duration, Instant};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("Linux lists the threads of a process").count()
}

#[test]
fn three_models_that_share_two_threads_have_one_thread_more_than_the_caller() {
    let model = Bundle::read(&demo_bundle()).unwrap().model;
    let image = [100; 192 * 192 * 3];
    let before = threads();
    let pool = Pool::new(2, 1);
    let plans: Vec<Plan> = (0..3).map(|_| Plan::load(&model, pool.clone()).unwrap()).collect();
    assert_eq!(threads(), before + 1, "after loading");
    for plan in &plans {
        plan.run(&image).unwrap();
    }
    assert_eq!(threads(), before + 1, "after running one after the other");
    std::thread::scope(|scope| {
        let runs: Vec<_> = plans.iter().map(|plan| scope.spawn(|| plan.run(&image).unwrap())).collect();
        let maps: Vec<_> = runs.into_iter().map(|run| run.join().unwrap()).collect();
        assert!(maps.iter().all(|map| *map == maps[0]));
    });
    drop((plans, pool));
    // A thread that was waited for may still be listed for a moment.
    let begun = Instant::now();
    while threads() > before && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(threads(), before, "after the last model is gone");
}
