"""What a raw folder lacks or has otherwise than its set's documentation says, counted by kind."""

from collections import Counter
from collections.abc import Callable
from typing import Any


class Problems:
    """Collects while a source is read. `skip` is for studies that cannot be used, `note` for all else; `log` gets one
    sentence for the first of each kind, naming file and row."""

    def __init__(self, log: Callable[[str], None] = lambda _: None) -> None:
        self.skipped: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self._log = log

    def skip(self, reason: str, where: str) -> None:
        """Counts a study that is left out."""
        self._count(self.skipped, reason, where, "the study is left out")

    def note(self, kind: str, where: str, consequence: str) -> None:
        """Counts something missing or odd in a study that is used; `consequence` says how."""
        self._count(self.noted, kind, where, consequence)

    def _count(self, counter: Counter[str], kind: str, where: str, consequence: str) -> None:
        counter[kind] += 1
        if kind not in self.first:
            self.first[kind] = where
            self._log(f"{where}: {kind}; {consequence} (more of the kind are only counted).")

    def to_json(self) -> dict[str, Any]:
        return {
            name: {kind: {"count": count, "first": self.first[kind]} for kind, count in sorted(counter.items())}
            for name, counter in (("skipped", self.skipped), ("noted", self.noted))
        }
