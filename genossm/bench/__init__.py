"""Benchmarks: what is verified is timed, beside what else can be installed."""
