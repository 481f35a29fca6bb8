"""Sequences and their files: FASTA, tokens.h5, windows, masks, labelled tasks."""
