"""Very many light clients in one process, for measuring: each knows its transport, counts and takes times, no more."""
