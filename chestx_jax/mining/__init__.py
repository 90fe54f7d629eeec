"""Studies to RadR samples: what a study shows, questions about it, and reasoning that agrees with its report."""
