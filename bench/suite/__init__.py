"""The benchmarks of `make bench`, one file a comparison, and what they share."""
