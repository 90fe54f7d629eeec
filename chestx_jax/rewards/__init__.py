"""Rewards from sampled token ids, in jit: `reward.score(config, tables, completion, targets) -> Scores`."""
