"""Mining the reports of Open-i: `python -m tests.benchmarks.mining [rules] [llm]`.

rules   by rules: what is asked, how far the chains agree with the coders and with an independent reading, and how far
        the questions can be answered without a film (a few minutes)
llm     200 studies by a stand-in for an LLM on loopback that makes every kind of mistake
"""

import csv
import itertools
import json
import random
import sys
import tempfile
import tomllib
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from chestx_jax.endpoint.client import Endpoint
from chestx_jax.eval.statistics.blind_baselines import GUESSERS, count_answers, guess
from chestx_jax.eval.statistics.intervals import share_interval
from chestx_jax.findings import ASSERTED, HYPOTHETICAL, pad_findings, read_texts
from chestx_jax.findings.sections import asserting_text
from chestx_jax.findings.targets import distinct
from chestx_jax.lexicon import load, relations
from chestx_jax.mining import llm
from chestx_jax.mining.dataset import by_rules
from chestx_jax.mining.questions import FAMILIES
from chestx_jax.mining.reference import FINDINGS, read_references
from chestx_jax.rewards import verify
from chestx_jax.sources.catalog import read_studies
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.splits import with_splits
from tests.benchmarks.rewards_openi import LABELS14, coded, f1
from tests.helpers.chat_server import serve
from tests.helpers.oracle import extract_bytes
from tests.helpers.paths import DATA
from tests.helpers.reasoning_writer import CHAIN_MISTAKES, EVIDENCE_MISTAKES, FAULTS, right_replies, spoil

LEXICON = load()
READ_BY_ORACLE = 400  # chains
FOLDS = 5
DRAWS = 5  # of the questions that guessers answer


def mined(with_labels):
    """(split, question, what was mined) of all families; without the coders' headings where these are compared with."""
    studies = with_splits(list(read_studies("openi", DATA / "openi_xml", Problems())))
    if not with_labels:
        studies = [replace(study, labels=()) for study in studies]
    references = read_references(LEXICON, studies)
    items = []
    for family in FAMILIES:
        items += [(split, question, by_rules(LEXICON, question, 0)) for split, question in drawn(references, family, 0)]
    print(f"{len(items)} questions", file=sys.stderr)
    return references, items


def drawn(references, family, seed):
    """(split, question) of a family, drawn with a seed."""
    for number, split in enumerate(("train", "validation", "test")):
        rng = np.random.default_rng((seed, number, list(FAMILIES).index(family)))
        of_split = [reference for reference in references if reference.study.split == split]
        yield from ((split, question) for question in FAMILIES[family](LEXICON, of_split, 0, rng))


def interval(values, groups=None):
    share = share_interval(values, groups=groups)
    return f"{100 * share.mean:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]" if values else "–"


def rules():
    references, items = mined(with_labels=True)
    used = [(question, result.reasoning) for _, question, result in items if result.reasoning]
    asked = {question.reference.study.id for question, _ in used}
    print(f"studies that yield samples: {interval([r.study.id in asked for r in references])} of {len(references)}")
    print(f"refused: {dict(Counter(result.refused[0] for *_, result in items if result.refused[0]))}")
    print(f"repaired: {dict(Counter(result.repaired for *_, result in items if result.repaired))}")
    for family in FAMILIES:
        chains = [reasoning.steps for question, reasoning in used if question.task == family]
        if chains:
            print(f"{family}: {len(chains)} samples, {np.mean([len(chain) for chain in chains]):.2f} steps a sample")
    blind(references)
    oracle(used)
    coders()


def coders():
    """Chains of questions that ask for all a film shows, mined without the coders' labels, against these."""
    _, items = mined(with_labels=False)
    tables = tomllib.loads(Path(__file__).with_name("rewards_openi.toml").read_text(encoding="utf-8"))
    with (DATA / "openi/indiana_reports.csv").open(encoding="utf-8") as file:
        headings = {f"CXR{row['uid']}": coded(row) for row in csv.DictReader(file)}
    with LABELS14.open(encoding="utf-8") as file:
        rows = {row["filename"]: row for row in csv.DictReader(file)}
    told = defaultdict(set)
    for _, question, result in items:
        if result.reasoning and question.task == "anomaly":
            (reading,) = read_texts(LEXICON, [" ".join(result.reasoning.steps)])
            told[question.reference.study.id] |= {
                LEXICON.concepts[f.concept].name for f in reading.findings if f.polarity and f.certainty == ASSERTED
            }
    nih = {label: set(concepts) for label, concepts in tables["labels14"].items()}
    mesh = {label["name"]: set(label["concepts"]) for label in tables["label"]}
    terms = {label["name"]: {term.lower() for term in label["terms"]} for label in tables["label"]}
    # Headings that are one of the labels or a kind of it: these alone must be in an answer.
    is_a, index = relations(LEXICON).is_a, {concept.name: i for i, concept in enumerate(LEXICON.concepts)}
    mesh = {k: v for k, v in mesh.items() if all(is_a[index[name], : len(FINDINGS)].any() for name in v)}
    nih = {k: v for k, v in nih.items() if all(is_a[index[name], : len(FINDINGS)].any() for name in v)}
    for name, labels, gold in (
        ("labels of ChestX-ray14", nih, lambda id, label: id in rows and rows[id][label] == "1"),
        ("coders' headings", mesh, lambda id, label: bool(terms[label] & headings.get(id, set()))),
    ):
        studies = [id for id in told if name != "labels of ChestX-ray14" or id in rows]
        scores = {}
        for label, concepts in labels.items():
            found = np.asarray([bool(told[id] & concepts) for id in studies])
            right = np.asarray([gold(id, label) for id in studies])
            if right.sum() >= 5:
                scores[label] = f1(np.asarray([(found & right).sum(), (found & ~right).sum(), (~found & right).sum()]))
        listed = ", ".join(f"{label} {score:.2f}" for label, score in scores.items())
        print(f"anomaly chains against {name}: macro F1 {np.mean(list(scores.values())):.3f} over {len(scores)} labels "
              f"with 5 or more, {len(studies)} studies: {listed}")  # fmt: skip


def oracle(used):
    """Claims of chains and findings of reports, both by an independent reading, against each other."""
    sample = random.Random(0).sample(used, min(READ_BY_ORACLE, len(used)))
    tables, right = relations(LEXICON), []
    for question, reasoning in sample:
        claims = [f for f in extract_bytes(LEXICON, " ".join(reasoning.steps).encode()) if f.certainty != HYPOTHETICAL]
        report = distinct(extract_bytes(LEXICON, asserting_text(question.reference.report).encode()))
        evidence = pad_findings([report], max(1, len(report)))
        verdicts = verify.verify(tables, pad_findings([claims], max(1, len(claims))), evidence)
        right += verdicts.correct[0][verdicts.scored[0]].tolist()
    print(f"claims that agree with the report, both read by the oracle: {interval([v == 1 for v in right])} of "
          f"{len(right)} in {len(sample)} chains")  # fmt: skip


def blind(references):
    """Guessers and a bag-of-words model that see question and options alone, five folds, no study in two of them; over
    several draws of the questions, since one has few of some families. Intervals are by study."""
    for family in ("binary", "single", "multiple"):
        right, studies = defaultdict(list), []
        for seed in range(DRAWS):
            asked = [question for _, question in drawn(references, family, seed)]
            for train, test in _folds(asked):
                counts = count_answers([_Item(q) for q in train])
                weights, words = _fit_bag_of_words(train)
                studies += [question.reference.study.id for question in test]
                for question in test:
                    for guesser in GUESSERS:
                        right[guesser].append(guess(counts, _Item(question), guesser) == question.answer)
                    scores = _features(question, words) @ weights
                    right["bag of words"].append(int(np.argmax(scores)) == ord(question.answer) - 65)
        if studies:
            listed = ", ".join(f"{guesser} {interval(values, studies)}" for guesser, values in right.items())
            print(f"blind {family} ({len(studies)} questions of {DRAWS} draws): {listed}")


class _Item:
    def __init__(self, question):
        self.task, self.question, self.answer = question.task, question.text, question.answer


def _folds(questions):
    """(train, test) of five folds of groups; what a study of the test is asked elsewhere is left out of training."""
    names = sorted({question.group for question in questions})
    random.Random(0).shuffle(names)
    fold_of = {name: number % FOLDS for number, name in enumerate(names)}
    for fold in range(FOLDS):
        test = [q for q in questions if fold_of[q.group] == fold]
        studies = {q.reference.study.id for q in test}
        yield [q for q in questions if fold_of[q.group] != fold and q.reference.study.id not in studies], test


def _tokens(question):
    """The words of each option: its place, its words, each with its place, with those of the stem and of the others."""
    stem = question.text.partition("Options:")[0].lower().split()
    for place, option in enumerate(question.options):
        words = [word.lower() for label in option for word in (label, *label.split())]
        others = [label.lower() for other in question.options if other is not option for label in other]
        pairs = [f"{word} < {other}" for word in words for other in others]
        with_stem = (f"{word} | {other}" for word in words for other in stem)
        yield [f"#{place}", *words, *(f"{word}#{place}" for word in words), *pairs, *with_stem]


def _features(question, words):
    """One row of counts an option."""
    rows = np.zeros((len(question.options), len(words)))
    for row, tokens in zip(rows, _tokens(question), strict=True):
        for token in tokens:
            if token in words:
                row[words[token]] += 1
    return rows


def _fit_bag_of_words(questions, steps=150, rate=0.3, decay=1e-3):
    """A logistic model over the options, by gradient descent."""
    vocabulary = Counter(itertools.chain(*(itertools.chain(*_tokens(question)) for question in questions)))
    words = {word: index for index, (word, count) in enumerate(vocabulary.items()) if count > 1}
    words = {word: index for index, word in enumerate(words)}
    rows = np.stack([_features(question, words) for question in questions])
    gold = np.asarray([ord(question.answer) - 65 for question in questions])
    weights = np.zeros(len(words))
    for _ in range(steps):
        scores = rows @ weights
        chosen = np.exp(scores - scores.max(1, keepdims=True))
        chosen /= chosen.sum(1, keepdims=True)
        chosen[np.arange(len(gold)), gold] -= 1
        weights -= rate * (np.einsum("no,now->w", chosen, rows) / len(gold) + decay * weights)
    return weights, words


def stand_in(count=200):
    """Studies by an LLM that errs in a third of its replies: what it did, and what became of it."""
    references, items = mined(with_labels=True)
    studies = {r.study.id for r in random.Random(1).sample([r for r in references if r.shown], count)}
    questions = [q for _, q, result in items if q.reference.study.id in studies and result.reasoning]
    right = right_replies(LEXICON, questions)
    rng, made = random.Random(0), Counter()
    mistakes = {"chain": [*CHAIN_MISTAKES], "evidence": [*EVIDENCE_MISTAKES], "plan": ["prose", "truncated", "empty"]}
    mistakes = {kind: [*names, *FAULTS] for kind, names in mistakes.items()}

    def script(body, before):
        texts = [message["content"] for message in body["messages"] if message["role"] == "user"]
        kind, question, document = right[texts[0]]
        if before == 0 and rng.random() < 1 / 3:
            name = rng.choice(mistakes[kind])
            made[f"{kind}: {name}"] += 1
            return name if name in FAULTS else spoil(LEXICON, question, kind, document, name)
        return json.dumps(document)

    with tempfile.TemporaryDirectory() as folder, serve(script) as (url, _):
        endpoint = Endpoint("stand-in", url, Path(folder), first_wait=0.01, max_wait=0.1, timeout=1.0)
        results = dict(llm.mine_all(endpoint, LEXICON, questions))
    written = {tuple(document["steps"]) for kind, _, document in right.values() if kind == "chain"}
    through = [results[i] for i in range(len(questions)) if results[i].reasoning]
    print(f"{len(questions)} questions of {count} studies, {sum(made.values())} mistakes: {dict(sorted(made.items()))}")
    print(f"used {len(through)}, of them repaired {dict(Counter(r.repaired for r in through if r.repaired))}")
    print(f"refused {dict(Counter(r.refused[0] for r in results.values() if r.refused[0]))}")
    print(f"unanswered {sum(bool(r.unanswered) for r in results.values())}")
    wrong = [result.reasoning.steps for result in through if result.reasoning.steps not in written]
    print(f"mistakes that got through: {len(wrong)} {wrong}")


if __name__ == "__main__":
    for name in sys.argv[1:] or ["rules", "llm"]:
        {"rules": rules, "llm": stand_in}[name]()
