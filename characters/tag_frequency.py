"""`ss_tag_frequency` in a file's metadata: how often each tag stood in the captions of each folder."""

from __future__ import annotations

import json
from collections import Counter


def read_tag_frequency(text: str) -> dict[str, Counter[str]]:
    """Folder → tag → pictures, as kohya's trainers write it; what is no count of a tag is left out.

    `text` may be a stranger's nonsense: then nothing was counted.
    """
    try:
        folders = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    counted: dict[str, Counter[str]] = {}
    for folder, tags in folders.items() if isinstance(folders, dict) else ():
        counts = Counter({tag: count for tag, count in (tags.items() if isinstance(tags, dict) else ())
                          if isinstance(count, int) and not isinstance(count, bool) and 0 < count < 2**40})
        if counts:
            counted[folder] = counts
    return counted
