"""Speed, measured: every figure is a ratio against the obvious alternative, in one run, after both were found equal."""
