"""Attributes of findings: side, site, severity, change and film.

One rule serves them all. An attribute comes from the nearest cue before the mention in its sentence, else from the
nearest after it, with no other mention in between.

* A cue before does not count if a conjunction or comma parts it from a second mention ("left effusion and nodule").
* A cue after counts up to a conjunction, comma or clause; one that no mention follows in its clause counts beyond, in
  the sentence ("the heart is enlarged, though only mildly") and in one that refers back ("It is on the left.").
* A change that no mention follows, or a verb of change ("has grown"), holds for all mentions before it in its clause.
* A degree next to a change is the change's ("slightly increased").
* A film named before any mention holds for its sentence; one named after a mention dates it if no
  conjunction or comma parts them, and outdoes one of an earlier clause. The current film outdoes the earlier one ("the
  effusion of the first film is still seen now"), and what has changed is not of the earlier film.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from chestx_jax.findings.arrays import Array
from chestx_jax.findings.rules import nearest
from chestx_jax.findings.rules.marked import MarkedText
from chestx_jax.findings.rules.nearest import Nearest, before
from chestx_jax.lexicon.lexicon import FILMS

_TRAILING, _REFERS, _VALUE = 1, 2, 2  # bits of a cue after a mention, and where its value begins


class Attributes(NamedTuple):
    """What is said of a mention that ends at each step; 0 where nothing is."""

    side: Int[Array, "T B"]
    site: Int[Array, "T B"]
    severity: Int[Array, "T B"]
    change: Int[Array, "T B"]
    film: Int[Array, "T B"]


def read_attributes(text: MarkedText) -> Attributes:
    """The attributes of a mention at each step."""
    ops, matches, last, following = text.ops, text.matches, text.last, text.next
    xp = ops.xp
    verb_of_change = matches.has("change_after")
    of_change = text.change_start <= text.words.content + 1
    cues = {
        "side": matches.side,
        "site": matches.site,
        "severity": xp.where(of_change, 0, matches.severity),
        "change": xp.where(verb_of_change, 0, matches.change),
        "film": matches.film,
    }
    trailing = following.mention.step >= following.clause.step
    refers = (last.refers.step >= 0) & (last.refers.step >= last.boundary.step)
    bits = xp.where(trailing, _TRAILING, 0) | xp.where(refers, _REFERS, 0)
    opens = xp.where(last.mention.step < last.boundary.step, matches.film, 0)
    cues_behind = nearest.up_to_here(ops, opening=opens, **cues)
    late = xp.where(verb_of_change & trailing, matches.change, cues["change"])
    own = matches.has("repeats")  # what is said of the finding there, not of the one before
    current = (matches.film == FILMS.index("current")) & ~own
    cues_ahead = nearest.after(
        ops,
        current=current,
        verb_of_change=xp.where(verb_of_change | ((cues["change"] > 0) & trailing), matches.change, 0),
        **{
            name: xp.where((cue > 0) & ~own, cue << _VALUE | bits, 0).astype(np.int32)
            for name, cue in {**cues, "change": late}.items()
        },
    )

    def behind(name: str) -> Array:
        return _from_behind(text, getattr(cues_behind, name))

    def ahead(name: str) -> Array:
        return _from_ahead(text, getattr(cues_ahead, name))

    def nearest_of(name: str) -> Array:
        return xp.where(behind(name) > 0, behind(name), ahead(name))

    change, of_all = nearest_of("change"), cues_ahead.verb_of_change
    reaches = (of_all.step < following.clause.step) & (following.barrier.step >= of_all.step)
    change = xp.where(change > 0, change, xp.where(reaches, of_all.value, 0))
    opening = xp.where(last.boundary.step <= cues_behind.opening.step, cues_behind.opening.value, 0)
    near = xp.minimum(following.link.step, following.clause.step)
    beside, now = cues_ahead.film.step < near, cues_ahead.current.step
    in_clause = cues_behind.film.step >= last.clause.step
    film = opening
    for said in (behind("film"), xp.where(beside, ahead("film"), 0), xp.where(in_clause, behind("film"), 0)):
        film = xp.where(said > 0, said, film)
    film = xp.where((now < near) & (now <= following.mention.step), FILMS.index("current"), film)
    film = xp.where((film == FILMS.index("earlier")) & (change > 0), 0, film)
    return Attributes(nearest_of("side"), nearest_of("site"), nearest_of("severity"), change, film)


def _from_behind(text: MarkedText, cue: Nearest) -> Int[Array, "T B"]:
    last = text.last
    mention = before(text.ops, last.mention)
    parted = (last.link.step > cue.step) & (mention.step >= 0) & (mention.step >= last.clause.step)
    reaches = (cue.step >= 0) & (mention.step < cue.step) & (last.boundary.step <= cue.step) & ~parted
    return text.ops.xp.where(reaches, cue.value, 0)


def _from_ahead(text: MarkedText, cue: Nearest) -> Int[Array, "T B"]:
    xp, following = text.ops.xp, text.next
    near = cue.step < xp.minimum(following.link.step, following.clause.step)
    beyond = _bit(cue, _TRAILING) & ((cue.step < following.boundary.step) | _bit(cue, _REFERS))
    return xp.where((near | beyond) & (cue.step <= following.mention.step), cue.value >> _VALUE, 0)


def _bit(cue: Nearest, bit: int) -> Bool[Array, "T B"]:
    return (cue.value & bit) != 0
