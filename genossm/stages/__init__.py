"""One module a stage: the only code where data, models and training meet."""
