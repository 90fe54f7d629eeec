"""An independent reading of text, the oracle of `chestx_jax.findings`: one text at a time, each rule a plain walk."""

from chestx_jax.findings.slots import Finding
from chestx_jax.lexicon import automaton, tags
from chestx_jax.lexicon.lexicon import Lexicon
from tests.helpers.oracle.findings import read_findings
from tests.helpers.oracle.words import read_words


def extract_bytes(lexicon: Lexicon, data: bytes, *, think_only: bool = False) -> list[Finding]:
    """What `chestx_jax.findings.text.extract_bytes` must find."""
    machine = automaton.build(lexicon)
    words = read_words(lexicon, machine, data)
    think_closed = any(word.zone in (tags.BETWEEN, tags.ANSWER, tags.AFTER) for word in words)
    findings = read_findings(lexicon, machine, words)
    zone_at = {word.last: word.zone for word in words}
    if think_only or think_closed:
        return [finding for finding in findings if zone_at[finding.last] == tags.THINK]
    return [finding for finding in findings if zone_at[finding.last] not in (tags.ANSWER, tags.ANSWER_ALONE)]
