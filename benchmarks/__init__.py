"""The suite measured by itself: `python -m benchmarks`; figures in docs/results/, nothing asserted."""
