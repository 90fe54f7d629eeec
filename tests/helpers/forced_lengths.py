"""Rollouts whose completions have given lengths, in slots or as they are without: padded, until the last one ends."""

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest

from chestx_jax.rollout import loop
from chestx_jax.rollout.schedule import Schedule


@contextlib.contextmanager
def forced_lengths(lengths_B: np.ndarray, padded: bool = False) -> Iterator[None]:
    """Inside, completion b of a rollout has `lengths_B[b]` tokens, whatever is sampled; stop ids must not be allowed.
    Where it is `padded`, caches have their full length from the first token on, and no slot moves."""

    class Forced(Schedule):
        def record(self, ids_BxT, logprobs_BxT):
            live = np.flatnonzero(self.sample.ravel() >= 0)
            last = lengths_B[self._rows()[live]] - 1 - self.position.ravel()[live]
            here = (last >= 0) & (last < ids_BxT.shape[1])
            ids_BxT = np.array(ids_BxT)
            ids_BxT[live[here], last[here]] = self.stop_ids[0]
            return super().record(ids_BxT, logprobs_BxT)

        def move(self):
            return None if padded else super().move()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Schedule", Forced)
        if padded:
            patch.setattr(loop, "ring_columns", lambda needed, limit: limit)
        yield
