"""Captions counted: who there is, her tags, her looks, and repeats that balance the cast.

`folders` finds the captions, `captions` takes one apart; `counting` and `from_loha` fill `tallies`, `summary` says what
they mean (`looks`: identity and contradictions); `page`, `report`, `chart` and `balance` show it.
"""

from .balance import balance, balance_text, dataset_toml
from .captions import NotACaption
from .chart import draw_chart
from .counting import BY_FIRST_TAG, BY_FOLDER, BY_NAME, TOLD_APART_BY, count_captions, known_names
from .folders import folder_stamp
from .from_loha import count_metadata
from .page import cast_yaml, distribution, page_text
from .report import report_text
from .summary import CharacterSummary, Statistics, TagCount, summarise
from .tallies import Tallies

__all__ = [
    "BY_FIRST_TAG", "BY_FOLDER", "BY_NAME", "TOLD_APART_BY", "CharacterSummary", "NotACaption", "Statistics",
    "TagCount", "Tallies",
    "balance", "balance_text", "cast_yaml", "count_captions", "count_metadata", "dataset_toml", "distribution",
    "draw_chart", "folder_stamp", "known_names", "page_text", "report_text", "summarise",
]  # fmt: skip
