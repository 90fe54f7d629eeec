"""The labels of a study that has no report, in the sentences of one."""

from chestx_jax.lexicon import Lexicon
from chestx_jax.mining import wording
from chestx_jax.mining.reference import Reference


def label_report(lexicon: Lexicon, reference: Reference) -> str:
    """A sentence for each label that is known to be present or absent, with the side that boxes give it: what rewards
    and judges compare reasoning with where there is no report. The findings rules read it as `reference.findings`."""
    sentences = (
        wording.present(lexicon, finding, 0) if finding.polarity else wording.absent(lexicon, (finding.concept,), 0)
        for finding in reference.findings
    )
    return " ".join(filter(None, sentences))
