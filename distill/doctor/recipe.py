"""What the doctor looks for in a recipe by itself."""

from collections.abc import Sequence

from distill.doctor.finding import Finding, fine, note, wrong
from distill.recipe.config import RunConfig

# Terms that compare each pair with the others of its batch, and with nothing else.
CONTRASTIVE = ("contrastive", "interactive_contrastive", "sigmoid_contrastive", "soft_target")
# What of them a step needs at least.
LEAST_PAIRS = 64


def examine_batch(batch_size: int, terms: Sequence[str]) -> list[Finding]:
    """Look whether a batch has enough pairs to tell the true ones from."""
    told = [name for name in terms if name in CONTRASTIVE]
    if not told or batch_size >= LEAST_PAIRS:
        return [fine("batch", f"{batch_size} pictures a step")]
    return [
        wrong(
            "batch",
            f"train.batch_size is {batch_size}, and {', '.join(told)} can tell a pair only from "
            "the others of its batch",
            f"set it to {LEAST_PAIRS} or more, with train.micro_batch_size where memory is short",
        )
    ]


def examine_length(config: RunConfig, *, steps: int, pictures: int) -> list[Finding]:
    """Look whether a run of so many steps, over so many pictures, gets to what it is for."""
    train, found = config.train, []
    if train.warmup_steps > steps // 2:
        found.append(
            note(
                "length",
                f"train.warmup_steps is {train.warmup_steps} in a run of {steps} steps, of which "
                f"{steps // 2} will warm up",
                "make the run longer, or the warmup shorter",
            )
        )
    others = [name for name in config.terms if name != "embedding_alignment"]
    if others and train.alignment_first_steps >= steps:
        found.append(
            wrong(
                "length",
                f"train.alignment_first_steps is {train.alignment_first_steps} in a run of "
                f"{steps} steps, so that {', '.join(others)} never joins in",
                "make the run longer, or set it lower",
            )
        )
    if found:
        return found
    epochs = steps * train.batch_size / pictures
    return [fine("length", f"{steps:,} steps, {epochs:,.3g} times over {pictures:,} pictures")]


def examine_entries(config: RunConfig) -> list[Finding]:
    """Look whether the sources are what a user may have meant."""
    found = []
    if any(entry.kind == "scenes" for entry in config.train_sources):
        found.append(
            note(
                "data",
                "it trains on procedural pictures (kind: scenes)",
                "name your own in data.train, if you meant them",
            )
        )
    trained = [entry.model_copy(update={"weight": None}) for entry in config.train_sources]
    named = {f"evaluate {entry.name}": entry.data for entry in config.evaluation_entries}
    if config.data.validation is not None:
        named["data.validation"] = config.data.validation
    found += [
        note(
            name,
            "it is what data.train trains on, so that its scores flatter the student",
            "measure on pictures that training does not see",
        )
        for name, data in named.items()
        if data.model_copy(update={"weight": None}) in trained
    ]
    return found
