"""What watching costs: `python -m tests.benchmarks`."""
