"""Rewards from sampled token ids, in jit: `combine.score(config, tables, completion, reference) -> Scores`."""
