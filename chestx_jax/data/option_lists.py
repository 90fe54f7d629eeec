"""The option letters that a text lists: a small grammar, for gold answers and for models' alike.

    list  = item { joint item }
    item  = mark [ option's words ]  |  option's words (which count where no letter is given)
    mark  = letter with a sign behind it ("A)", "(A)", "A.", "A:", "A -")  |  letter that stands alone
    joint = signs, line ends, list numbers, "and"; before a mark with a sign nothing is needed
    hedge = "or", "/": a list of several options with one between two of them is undecided, and no set of letters

`Listed` says how far a list reached, so that a caller can ask for one that is the whole text or for one that begins it.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from chestx_jax.data.questions import parts
from chestx_jax.labels import label_names

_TAG = re.compile(r"</?(?:think|answer)>|<\|[a-z_]+\|>", re.IGNORECASE)
_LATEX = re.compile(r"\\(?:boxed|fbox|text[a-z]*|math[a-z]*|bf|rm|left|right)(?![a-zA-Z])|\\n(?![a-z])")
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff]")
_MARKUP = re.compile(r"[*_#`\"“”„«»$\\{}<>|~]|(?<!\w)['’‘]|['’‘](?!\w)")
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[^\W_{_CJK}]+(?:['’][^\W_{_CJK}]+)*|[{_CJK}]+|\n|[^\s\w]|_")
_ASIAN_SIGNS = str.maketrans("、。•‣▪‐‑–—−", ",." + "-" * 8)  # signs that NFKC leaves as they are

_AND = ("and", "plus", "also", "both", "option", "options", "choice", "choices", "letter")
_OR = ("or", "either", "/")
_LABELS_ANNOUNCED = re.compile(
    r"\A\W*(?:(?:(?:the|final)\s+)*(?:answers?|findings?|labels?|diagnos[ei]s)\s*(?::|=|\bis\b|\bare\b)|答案[是为]?:?)",
    re.IGNORECASE,
)
_LABEL_JOINT = re.compile(r"\s+and\s+|\s*&\s*", re.IGNORECASE)
_LIST_NUMBER = re.compile(r"(?:\A|(?<=[,;\n]))[\s+-]*\(?\d{1,2}[.):]\s*")
_ENDS = ("", "\n", *",;.!?)]&+/-")  # what may follow a letter or an option that is named without a sign


class Token(NamedTuple):
    """A word, or a single sign, of a plain text, and where it stands there."""

    text: str
    start: int
    end: int


class Listed(NamedTuple):
    """A list of options. `letters` is empty where it is undecided; `end` is the number of the token behind it."""

    letters: frozenset[str]
    end: int
    whole: bool  # no word follows


@dataclass(frozen=True)
class Choices:
    """The options that letters are read for. Without texts (the question lists none) every letter is one."""

    texts: Mapping[str, str]
    numbered: bool = False
    small: bool = False  # small letters count as capitals

    @staticmethod
    def of(question: str, small: bool = False) -> "Choices":
        """The options that a question lists."""
        split = parts(question)
        return Choices(split.options, split.numbered, small)

    def letter(self, word: str) -> str | None:
        """The option letter that a word is; a number counts where the options are numbered."""
        if self.numbered and word.isdigit() and 0 < int(word) <= 26:
            return chr(64 + int(word))
        if len(word) != 1 or not (word.isascii() and word.isalpha()):
            return None
        return word.upper() if word.isupper() or self.small else None


def plain(text: str) -> str:
    """The text without tags, markup, LaTeX and quotes; full-width letters and signs as their ASCII equals."""
    text = unicodedata.normalize("NFKC", _TAG.sub(" ", text))
    text = _LATEX.sub(lambda match: "\n" if match[0] == "\\n" else " ", _INVISIBLE.sub("", text))
    return _MARKUP.sub(" ", text.translate(_ASIAN_SIGNS)).strip()


def tokens(text: str) -> list[Token]:
    """The words and signs of a plain text."""
    return [Token(match[0], match.start(), match.end()) for match in _TOKEN.finditer(text)]


def label_set(answer: str) -> frozenset[str]:
    """Labels between commas, semicolons, line ends or "and" as a set of lower-case names, without list numbers."""
    labels = _LABEL_JOINT.sub(",", _LABELS_ANNOUNCED.sub("", plain(answer)))
    return frozenset(label_names(_LIST_NUMBER.sub("", labels), marks=" .*-+:!?()[]'"))


def listed_letters(text: str, choices: Choices) -> frozenset[str] | None:
    """The letters of a text that is a list of options and nothing else; empty where it is undecided, None for any
    other text. Letters may run together ("AC"), and an option of several labels may name them in another order."""
    text = plain(text)
    labels = label_set(text)
    named = [letter for letter, option in choices.texts.items() if labels and labels == label_set(option)]
    if len(named) == 1:
        return frozenset(named)
    words = tokens(text)
    listed = _letters_alone(words, choices) or read_list(words, 0, choices)
    if listed and listed.whole:
        return listed.letters
    letters = [word.text for word in words if word.text.isalnum()]
    joined = frozenset(letters[0]) if len(letters) == 1 and len(letters[0]) > 1 else frozenset()
    return joined if joined and joined <= choices.texts.keys() and len(joined) == len(letters[0]) else None


def read_list(words: Sequence[Token], start: int, choices: Choices, announced: bool = False) -> Listed | None:
    """The list that begins at a token, behind signs; `announced` ("the answer is …"): a capital needs no sign or end
    behind it."""
    at, _ = _skip_joint(words, start, choices)
    item = _item(words, at, choices, announced)
    if item is None:
        return None
    items, hedged = [item], False
    while True:
        end = items[-1].end
        at, hedge = _skip_joint(words, end, choices)
        item = _item(words, at, choices, False)
        if item is None or not (at > end or _has_sign(words, at)):
            return _listed(items, hedged, not _words_behind(words, at))
        items, hedged = [*items, item], hedged or hedge


def _listed(items: Sequence["_Item"], hedged: bool, whole: bool) -> Listed:
    given = frozenset(item.letter for item in items if item.given) or frozenset(item.letter for item in items)
    return Listed(frozenset() if hedged and len(given) > 1 else given, items[-1].end, whole)


def _letters_alone(words: Sequence[Token], choices: Choices) -> Listed | None:
    """The list that a text is whose words are letters and joining words, whatever signs stand between them."""
    items = [_Item(letter, i + 1, True) for i, word in enumerate(words) if (letter := choices.letter(word.text))]
    others = [word.text.casefold() for word in words if word.text[0].isalnum() and not choices.letter(word.text)]
    if not items or not all(word in _AND + _OR for word in others):
        return None
    between = [word.text.casefold() for word in words[items[0].end : items[-1].end]]
    return _listed(items, any(word in _OR for word in between), True)


def bracketed(words: Sequence[Token], choices: Choices) -> list[int]:
    """The tokens at which a letter with a closing bracket begins ("A)", "(A)"), which marks an option anywhere."""
    letters = [i for i in range(len(words) - 1) if choices.letter(words[i].text) and words[i + 1].text == ")"]
    return [i - 1 if i and words[i - 1].text == "(" else i for i in letters]


class _Item(NamedTuple):
    letter: str
    end: int  # the token behind it
    given: bool  # by its letter, not by its words alone


def _item(words: Sequence[Token], at: int, choices: Choices, announced: bool) -> _Item | None:
    opened = _text(words, at) in ("(", "[")
    letter = choices.letter(_text(words, at + opened))
    if letter is None:
        named, end = _option(words, at, choices)
        return _Item(named, end, False) if named and _ends(words, end) else None
    end = at + opened + 1
    if _has_sign(words, at):
        _, behind = _option(words, end + 1, choices)
        return _Item(letter, max(behind, end + 1), True)
    named, behind = _option(words, end + (_text(words, end) == "("), choices)
    if letter == named:  # "B Fracture", "B (Fracture)"
        return _Item(letter, behind, True)
    capital = announced and words[at + opened].text.isupper()
    return _Item(letter, end, True) if capital or _ends(words, end) else None


def _option(words: Sequence[Token], at: int, choices: Choices) -> tuple[str, int]:
    """The option whose words begin at a token, the longest that match, and the token behind them; "" and 0 where there
    is none, or two."""
    ends = {}
    for letter, text in choices.texts.items():
        end = at
        for word in _words_of(text):
            while end > at and _text(words, end) in tuple(",;-/().+&"):
                end += 1
            if (_text(words, end)).casefold() != word:
                break
            end += 1
        else:
            ends[letter] = end
    longest = [letter for letter, end in ends.items() if end == max(ends.values()) > at]
    return (longest[0], ends[longest[0]]) if len(longest) == 1 else ("", 0)


@lru_cache(maxsize=65536)
def _words_of(option: str) -> tuple[str, ...]:
    return tuple(token.text.casefold() for token in tokens(plain(option)) if token.text[0].isalnum())


def _has_sign(words: Sequence[Token], at: int) -> bool:
    """Whether the letter at a token has a sign behind it; a hyphen is one before a word."""
    opened = _text(words, at) in ("(", "[")
    sign = _text(words, at + opened + 1)
    is_word = len(_text(words, at + 2)) > 1
    return sign in (")", "]") or (not opened and (sign in (".", ":") or (sign == "-" and is_word)))


def _skip_joint(words: Sequence[Token], at: int, choices: Choices) -> tuple[int, bool]:
    """The token behind signs, joining words and list numbers, and whether a hedge was among them."""
    hedged = False
    while text := _text(words, at):
        number = text.isdigit() and not choices.numbered and _text(words, at + 1) in (".", ")", ":")
        if text in ("(", "[") and choices.letter(_text(words, at + 1)):
            break
        if text[0].isalnum() and not number and text.casefold() not in _AND + _OR:
            break
        hedged, at = hedged or text.casefold() in _OR, at + 1
    return at, hedged


def _ends(words: Sequence[Token], at: int) -> bool:
    """Whether a letter or an option's words may end before a token: a sign, a joining word or a list number."""
    text = _text(words, at)
    list_number = text.isdigit() and _text(words, at + 1) in (".", ")")
    return text in _ENDS or text.casefold() in (*_AND[:3], *_OR) or list_number


def _words_behind(words: Sequence[Token], at: int) -> bool:
    return any(word.text[0].isalnum() for word in words[at:])


def _text(words: Sequence[Token], at: int) -> str:
    """The word or sign at a number; empty at the end of the text."""
    return words[at].text if at < len(words) else ""
