"""Data: the task table, readers, encoding, batching and metrics; imports neither `models` nor `distill`."""
