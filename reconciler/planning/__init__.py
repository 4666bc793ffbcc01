"""The thinking: pure functions from values to values. No I/O, clock, randomness or async."""
