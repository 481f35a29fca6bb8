"""What every result is held against: count tables and k-mer regressions."""
