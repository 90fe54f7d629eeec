"""Tables, archives and lists as they come out of broken downloads, editors and disks."""

import gzip
import re

WORDS = (b"", b"nan", b"-1", b"1e400", b"9" * 30, b'"', b"\n", b"\r", b"\0", b"inf", b"[", b"{}", b",,,", b"\xff")


def damaged(content, rng):
    """Cut short, some bytes changed, a cell replaced, a word put in, or the lines in another order and one twice;
    gzipped files mostly so inside."""
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.8:
        return gzip.compress(damaged(gzip.decompress(content), rng), 1)
    place, kind = rng.randrange(len(content) + 1), rng.randrange(5)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    if kind == 2:
        return content[:place] + rng.choice(WORDS) + content[place:]
    cells = list(re.finditer(rb"[^,\n\":\[\]{} ]+", content))
    if kind == 3 and cells:
        cell = rng.choice(cells)
        return content[: cell.start()] + rng.choice(WORDS) + content[cell.end() :]
    lines = content.split(b"\n")
    lines.append(rng.choice(lines))
    rng.shuffle(lines)
    return b"\n".join(lines)
