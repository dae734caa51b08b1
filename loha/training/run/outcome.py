"""What a run has found out, for its report: `key: value` lines."""

from __future__ import annotations

from collections.abc import Mapping

from ....text import show
from ..data.tags import few_pictures
from .loop import Training
from .validation import TIMESTEPS, Validation

_SHOWN = 50  # characters


def validation_line(last: Validation, best: Validation) -> str:
    """The last validation, and the best."""
    if last is best:
        return f"validation loss {last.loss:.5f} after step {last.step}, the best so far"
    return f"validation loss {last.loss:.5f} after step {last.step} · best {best.loss:.5f} after step {best.step}"


def validation_lines(training: Training) -> list[str]:
    """How the validations went, and which network was best; none where there was none."""
    validator = training.validator
    if not validator.found:
        return []
    best, last = validator.best, validator.found[-1]

    def when(step: int) -> str:
        epoch, rest = divmod(step, training.steps_per_epoch)
        return f"after epoch {epoch} (step {step})" if not rest else f"after step {step}, in epoch {epoch + 1}"

    lines = [f"best: {when(best.step)}, validation loss {best.loss:.5f}"]
    folder = training.keeper.folder
    if folder is not None:
        file = folder.best(best.step)
        lines.append(f"best file: {show(file, 300) if file else 'gone; the last LoHa is given out instead'}")
    if validator.ends_run:
        since = len(validator.found) - 1 - validator.found.index(best)
        lines.append(f"ended early: {when(training.done)} of {training.total_steps}; {since} validation(s) in a row "
                     "were no better than the best")
    lines.append(f"validated: {len(validator.found)} time(s) on {len(validator.pictures)} picture(s), never trained "
                 f"on; loss {validator.found[0].loss:.5f} at first, {best.loss:.5f} at best, {last.loss:.5f} at last")
    lines += (f"validation at timestep {timestep}: {one:.5f} at best, {other:.5f} at last"
              for timestep, one, other in zip(TIMESTEPS, best.by_timestep, last.by_timestep, strict=True))
    # Of the same pictures each time, and so of the same characters.
    return lines + _capped("validation of", [
        f"validation of {show(name)}: {loss:.5f} at best, {last.by_character[name]:.5f} at last"
        for name, loss in best.by_character.items()])


def character_lines(training: Training) -> list[str]:
    """Pictures and training loss of each character, and who has few; none where the pictures name nobody."""
    pictures: Mapping[str, int] = training.characters.pictures
    losses = [f"character: {show(name)} · {pictures[name]} picture(s) · loss {loss:.5f} over the run"
              for name, loss in training.characters.means().items()]
    few = [f"few pictures: {one}" for one in few_pictures(pictures)]
    return [*_capped("character", losses), *_capped("few pictures", few)]


def _capped(key: str, lines: list[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], f"{key}: … and {more} more"] if more > 0 else lines
