"""The mathematics of linear state spaces: pure functions, no parameters."""
