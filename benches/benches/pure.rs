//! How long each piece of work takes, by criterion: `cargo bench --manifest-path benches/Cargo.toml`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gatepost_benches::work;

fn pure(criterion: &mut Criterion) {
    for mut work in work::all() {
        let mut group = criterion.benchmark_group("pure");
        if let Some(octets) = work.octets {
            group.throughput(Throughput::Bytes(octets));
        }
        group.bench_function(work.name, |bencher| bencher.iter(|| (work.run)()));
        group.finish();
    }
}

criterion_group!(all, pure);
criterion_main!(all);
