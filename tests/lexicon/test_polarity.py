"""Hand-labelled report sentences: the extractor finds the concept and gets its sign."""

from pathlib import Path

from chestx_jax.lexicon import load
from chestx_jax.lexicon.extract import extract

LINES = Path(__file__).with_name("polarity.tsv").read_text(encoding="utf-8").splitlines()


def wrong() -> list[str]:
    """Sentences whose concept is missed, or found with the other sign."""
    lexicon = load()
    failures = []
    for line in LINES:
        sign, name, sentence = line.split("\t")
        concept = lexicon.concept(name) - 1
        polarities = {finding.polarity for finding in extract(lexicon, sentence) if finding.concept == concept}
        if polarities != {int(sign == "+")}:
            failures.append(f"{line} -> {polarities or 'missed'}")
    return failures


def test_polarity_of_hand_labelled_sentences():
    failures = wrong()
    assert len(LINES) >= 200
    assert len(failures) <= 0.03 * len(LINES), "\n".join(failures)


if __name__ == "__main__":
    print("\n".join(wrong()), f"\n{1 - len(wrong()) / len(LINES):.4f} of {len(LINES)} sentences right")
