"""Model names to folders: `owner/name` is fetched through huggingface_hub's cache, a folder is used as it is."""

import re
from collections.abc import Sequence
from pathlib import Path

from chestx_jax.errors import UserError

FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja")
SETTINGS = ("*.json",)  # without the weights


def resolve(path: str | Path, files: Sequence[str] = FILES) -> Path:
    """The local folder of `path`: a folder, or `owner/name` or `owner/name@revision` on the Hugging Face hub, of which
    those `files` (patterns) are fetched.

    Cache, offline mode, endpoint and token are huggingface_hub's own (HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN).
    Raises UserError for a missing folder and for whatever the hub refuses.
    """
    if Path(path).is_dir():
        return Path(path)
    match = re.fullmatch(r"([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?", str(path))
    if match is None or str(path).startswith("."):
        raise UserError(f"{path} is no folder and no owner/name on the Hugging Face hub: check the spelling.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    name, revision = match.groups()
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path} is no folder here and could not be fetched from the hub ({first}): check the name, the network "
            "and, for a gated model, HF_TOKEN."
        ) from error
