"""Training: the configuration of a run, its plan, the loop, and what interrupts and resumes it."""
