"""The doctor's visit to the recipe itself."""

from collections.abc import Sequence

from distill.doctor.finding import Finding, fine, note, wrong
from distill.losses.catalogue import TERMS
from distill.recipe.config import RunConfig

# The smallest batch for terms that compare pairs only within it.
_LEAST_PAIRS = 64


def examine_batch(batch_size: int, terms: Sequence[str]) -> list[Finding]:
    """Check that a batch has enough pairs for the terms that compare within it."""
    within_batch = [name for name in terms if TERMS[name].within_batch]
    if not within_batch or batch_size >= _LEAST_PAIRS:
        return [fine("batch", f"{batch_size} pictures a step")]
    return [
        wrong(
            "batch",
            f"train.batch_size is {batch_size}, but {', '.join(within_batch)} can compare a pair "
            "only with the others of its batch",
            f"set it to {_LEAST_PAIRS} or more; if memory is short, set train.micro_batch_size too",
        )
    ]


def examine_length(config: RunConfig, *, steps: int, pictures: int) -> list[Finding]:
    """Check that warmup and alignment leave enough of a run of ``steps`` steps."""
    train, found = config.train, []
    if train.warmup_steps > steps // 2:
        found.append(
            note(
                "length",
                f"train.warmup_steps is {train.warmup_steps}, but the run has {steps} steps, so "
                f"only {steps // 2} warm up",
                "make the run longer or the warmup shorter",
            )
        )
    others = [name for name in config.terms if not TERMS[name].aligns]
    if others and train.alignment_first_steps >= steps:
        found.append(
            wrong(
                "length",
                f"train.alignment_first_steps is {train.alignment_first_steps}, but the run has "
                f"{steps} steps, so these terms are never used: {', '.join(others)}",
                "make the run longer, or lower train.alignment_first_steps",
            )
        )
    if found:
        return found
    epochs = steps * train.batch_size / pictures
    return [fine("length", f"{steps:,} steps, {epochs:,.3g} passes over {pictures:,} pictures")]


def examine_entries(config: RunConfig) -> list[Finding]:
    """Check that sources and evaluation sets are what the user may have meant."""
    found = []
    if any(entry.rendered(config.folder) is not None for entry in config.train_sources):
        found.append(
            note(
                "data",
                "training uses procedural pictures (kind: scenes)",
                "to train on your own pictures, name them in data.train",
            )
        )
    trained = [entry.model_copy(update={"weight": None}) for entry in config.train_sources]
    named = {f"evaluate {entry.name}": entry.data for entry in config.evaluation_entries}
    if config.data.validation is not None:
        named["data.validation"] = config.data.validation
    found += [
        note(
            name,
            "it is also in data.train, so its scores flatter the student",
            "use pictures that training does not see",
        )
        for name, data in named.items()
        if data.model_copy(update={"weight": None}) in trained
    ]
    return found
