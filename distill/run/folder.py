"""Run folders: what a run has done, and whether a recipe may continue it.

``recipe.yaml`` is the resolved recipe. ``state.json`` says which values each stage started with and
whether it is finished. ``skipped.jsonl`` lists what was left out of the data. A stage with another
digest (distill/run/digests.py) belongs to another run.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.basis.differences import differences
from distill.basis.files import is_temporary, write_whole
from distill.basis.progress import make_console
from distill.data.sample import Skip
from distill.labels.names import name_labels
from distill.recipe.config import RunConfig
from distill.recipe.stages import Stage
from distill.recipe.text import inline, to_yaml
from distill.run.digests import expanded_losses, stage_digest, stage_values
from distill.run.labels import recipe_labels, recipe_templates
from export.runtime.errors import RunError

_FORMAT = 1

# What a stage keeps in the folder. Until some of it exists, the stage's values may change.
_KEPT: Mapping[str, tuple[str, ...]] = {
    "cache": ("cache",),
    "train": ("checkpoints", "student", "student_best"),
}
# What a finished stage leaves; if it is missing, the stage is done again.
_RESULTS: Mapping[str, str] = {"train": "student", "evaluate": "report.json", "export": "bundle"}
_LONGEST_LIST = 8
_LONGEST_VALUE = 200
_ELSEWHERE = "another output (--out, or --set output=…)"


class RunFolder:
    """The folder of one run, from the point of view of one recipe.

    Attributes:
        config: The recipe.
        path: The folder.
    """

    def __init__(self, config: RunConfig) -> None:
        """Take the recipe; nothing is read or created yet."""
        self.config = config
        self.path = Path(config.output)

    def check(self) -> None:
        """Refuse a folder that holds something else; create nothing.

        Raises:
            RunError: The folder is not a run folder, or its cache or training started with other
                values; the message names the fields that differ and what to do.
        """
        if not self.path.exists() and not self.path.is_symlink():
            return
        if not self.path.is_dir():
            raise RunError(f"{self.path}: not a folder; choose {_ELSEWHERE}")
        state = self._read()
        if state is None:
            # A run that was killed while writing may have left temporary files.
            held = sorted(
                entry.name for entry in self.path.iterdir() if not is_temporary(entry.name)
            )
            if held:
                raise RunError(
                    f"{self.path}: the folder is not empty ({_some(held)}) and not a run folder; "
                    f"choose {_ELSEWHERE}, or move its content away"
                )
            return
        for stage in ("cache", "train"):
            begun = state["stages"].get(stage)
            if begun is None or not self._keeps(stage):
                continue
            changes = _changes(begun["values"], stage_values(self.config, stage))
            if stage == "train" and not changes:
                changes = self._other_split(begun)
            if changes:
                raise RunError(
                    f"{self.path}: the folder holds another recipe's run: {_some(changes, '; ')}; "
                    f"choose {_ELSEWHERE}, restore the old values, or delete the folder"
                )

    def open(self) -> None:
        """Create the folder if it is missing, and write recipe.yaml and state.json.

        Raises:
            RunError: As `check`, or the folder cannot be written.
        """
        self.check()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            state = self._read() or {"format": _FORMAT, "stages": {}}
            for stage in ("cache", "train"):
                self._record(state, stage, finished=self._is_finished(state, stage))
            # Presets and labels are written out: the recipe stays the same when they change.
            written = self.config.model_copy(
                update={"losses": expanded_losses(self.config), **_written_labels(self.config)}
            )
            self._write_state(state)
            write_whole(self.path / "recipe.yaml", to_yaml(written, comments=True))
        except OSError as error:
            raise RunError(
                f"{self.path}: the run folder cannot be written ({error.strerror}); choose "
                f"{_ELSEWHERE}"
            ) from error

    def finished(self, stage: Stage) -> bool:
        """Return whether a stage is finished with the values of this recipe."""
        return self._is_finished(self._read() or {"stages": {}}, stage)

    def finish(self, stage: Stage) -> None:
        """Record that a stage is finished."""
        state = self._read() or {"format": _FORMAT, "stages": {}}
        self._record(state, stage, finished=True)
        self._write_state(state)

    def add_skips(self, skips: Iterable[Skip]) -> None:
        """Add to skipped.jsonl what it does not list yet."""
        path = self.path / "skipped.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        new = [
            # A name that is not valid Unicode is written with JSON's escapes.
            json.dumps(
                {"where": skip.where, "reason": skip.reason, "kind": skip.kind}, ensure_ascii=False
            )
            .encode("utf-8", "backslashreplace")
            .decode("utf-8")
            for skip in skips
        ]
        kept = list(dict.fromkeys([*lines, *new]))
        if len(kept) > len(lines):
            write_whole(path, "".join(f"{line}\n" for line in kept))
            more = f"{len(kept) - len(lines)} {'more ' if lines else ''}pictures or rows"
            make_console().print(f"skipped: {more}; the reasons are in {path}")

    def _other_split(self, begun: Mapping[str, Any]) -> list[str]:
        """Return what differs if this recipe trains on other pictures than the run did.

        A finished run that held pictures out may be measured on anything. Any other run would
        continue on other data, or be measured on pictures that it was trained on.
        """
        held_out, holds_out = begun["holds_out"], self.config.holds_out
        if held_out == holds_out or (held_out and begun["finished"]):
            return []
        names = {True: "held out", False: "trained on"}
        was, is_now = names[held_out], names[holds_out]
        return [f"data.validation and evaluate: 5 % of data.train were {was}, and are now {is_now}"]

    def _is_finished(self, state: Mapping[str, Any], stage: Stage) -> bool:
        entry = state["stages"].get(stage)
        result = self.path / _RESULTS.get(stage, "")
        return bool(
            entry
            and entry["finished"]
            and entry["digest"] == stage_digest(self.config, stage)
            and result.exists()
        )

    def _keeps(self, stage: str) -> bool:
        return any((self.path / name).exists() for name in _KEPT[stage])

    def _record(self, state: dict[str, Any], stage: Stage, *, finished: bool) -> None:
        begun, digest = state["stages"].get(stage), stage_digest(self.config, stage)
        # A finished stage keeps the values that it was done with.
        done = begun is not None and begun["finished"] and begun["digest"] == digest
        state["stages"][stage] = {
            "digest": digest,
            "finished": finished,
            "holds_out": begun["holds_out"] if done else self.config.holds_out,
            "values": stage_values(self.config, stage),
        }

    def _read(self) -> dict[str, Any] | None:
        """Return the content of state.json, None if there is none."""
        path = self.path / "state.json"
        try:
            state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            known = state["format"] == _FORMAT and all(
                isinstance(entry["digest"], str)
                and isinstance(entry["finished"], bool)
                and isinstance(entry["holds_out"], bool)
                and isinstance(entry["values"], dict)
                for entry in state["stages"].values()
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise RunError(_damaged(path)) from error
        if not known:
            raise RunError(_damaged(path))
        return state

    def _write_state(self, state: Mapping[str, Any]) -> None:
        write_whole(self.path / "state.json", json.dumps(state, indent=1) + "\n")


def _written_labels(config: RunConfig) -> dict[str, Any]:
    """Return the sections that may name files of labels, with the labels in place of the names."""
    labels = recipe_labels(config.data)
    names = None if labels is None else labels.names
    templates = recipe_templates(config.data)
    given = config.export.labels
    own = None if given is None else name_labels(given, field="export.labels")
    return {
        "data": config.data.model_copy(update={"labels": names, "templates": templates}),
        "export": config.export.model_copy(update={"labels": own}),
    }


def _changes(held: Any, asked: Any) -> list[str]:
    """Return a phrase for each field that is not the same."""
    return [
        f"{path} was {_brief(was)} and is now {_brief(now)}"
        for path, was, now in differences(held, asked)
    ]


def _brief(value: Any) -> str:
    text = inline(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _some(phrases: list[str], separator: str = ", ") -> str:
    shown = separator.join(phrases[:_LONGEST_LIST])
    more = len(phrases) - _LONGEST_LIST
    return f"{shown}{separator}and {more} more" if more > 0 else shown


def _damaged(path: Path) -> str:
    return (
        f"{path}: damaged, or not of format {_FORMAT}; choose {_ELSEWHERE}, or delete {path.parent}"
    )
