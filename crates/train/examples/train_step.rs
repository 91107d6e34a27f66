//! CPU seconds and seconds of one training step, for `tests/reference/train_step_speed.py`: the small net on
//! EfficientNet-lite0's strides 8 and 16 at 224 pixels, 16 normal and 8 anomalous images, one joint patch head.
//!
//! ```text
//! cargo run --release -p ckaad-train --example train_step -- 20
//! ```

fn main() {
    use ckaad_train::backbones::Scale;
    use ckaad_train::device::DeviceChoice;
    use ckaad_train::methods::Batch;
    use ckaad_train::methods::ckaad::{
        Cosine, DiscriminatorConfig, LossConfig, NetConfig, Parts, Rates, Size, Trainer,
    };
    use ndarray::Array4;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    let steps: u32 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(20);
    let scales = [Scale { channels: 40, stride: 8 }, Scale { channels: 112, stride: 16 }];
    let mut rng = StdRng::seed_from_u64(1);
    let mut batch = |count: usize| {
        let mut features = |s: &Scale| {
            let shape = (count, s.channels, 224 / s.stride, 224 / s.stride);
            Array4::from_shape_simple_fn(shape, || rng.random_range(-1.7..1.7))
        };
        Batch::of_features(scales.iter().map(&mut features).collect())
    };
    let (normal, anomalous) = (batch(16), batch(8));
    let net = NetConfig { size: Size::Small, ..Default::default() };
    let loss = LossConfig { cosine: Cosine::Position, ..Default::default() };
    let parts =
        Parts { net: &net, discriminator: &DiscriminatorConfig::default(), loss, scales: &scales, spread: None };
    let (device, _) = DeviceChoice::Cpu.open().expect("the CPU is always there");
    let mut trainer = Trainer::new(parts, &device);
    let rates = Rates { auto_encoder: 2e-3, discriminator: 2e-3 };
    let run = |steps: u32, mut trainer: Trainer| {
        for _ in 0..steps {
            trainer = trainer.step(&normal, Some(&anomalous), rates).0;
        }
        trainer
    };
    trainer = run(3, trainer);
    let (cpu, wall) = (cpu_seconds(), std::time::Instant::now());
    run(steps, trainer);
    let each = |seconds: f64| seconds / f64::from(steps);
    println!(
        "{:.4} {:.4} CPU seconds and seconds a step",
        each(cpu_seconds() - cpu),
        each(wall.elapsed().as_secs_f64())
    );
}

/// User and system time of this process, from /proc in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number of ticks")).sum::<f64>() / 100.0
}
