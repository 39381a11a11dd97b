"""The training loop: fetch, step, sometimes log, sometimes validate, sometimes save."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from distill.basis.draws import draw_integers
from distill.basis.files import whole_folder
from distill.basis.progress import Bar, progress_bar
from distill.data.order.position import Position
from distill.data.pairs import group_rows
from distill.data.sample import Skip, check_skips
from distill.losses.embeddings import Embeddings
from distill.losses.weighted import Banks, WeightedLoss
from distill.teacher.teaching import Teaching
from distill.train._ema import MovingAverage
from distill.train._freeze import locked_towers
from distill.train.banks import TeacherBanks
from distill.train.batches import Batch, StepDataset, batches
from distill.train.checkpoint import (
    Resumable,
    TrainingState,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from distill.train.optimizer import (
    OptimizerSettings,
    build_optimizers,
    build_schedules,
    learning_rates,
)
from distill.train.processes import Interrupts
from distill.train.run_log import RunLog
from distill.train.step import (
    GlobalLoss,
    NonFiniteLossError,
    StepResult,
    TrainableStudent,
    gather_rows,
    training_step,
)
from export.runtime.errors import RunError
from students.encoder import Student, clamp_logit_scale
from students.switches import choose_memory_format


@dataclass(frozen=True)
class LoopSettings:
    """The settings of a run, as plain values."""

    seed: int
    steps: int
    batch_size: int
    workers: int
    max_skipped: float
    gradient_clip: float | None
    tile_rows: int | None
    alignment_first_steps: int
    freeze_image_steps: int
    freeze_text_steps: int
    ema_decay: float | None
    channels_last: bool | None
    log_every: int
    validate_every: int
    save_every: int


class _Validator(Protocol):
    """Measures the student during training; ``skipped`` lists what it could not read."""

    skipped: list[Skip]

    def __call__(self, student: Student) -> dict[str, Any]:
        """Return a line for ``metrics.jsonl``; the value of its headline decides what is best."""
        ...


@dataclass(frozen=True)
class Work:
    """What a loop works with: the student, the data, the teacher and the loss."""

    student: Student
    trainable: TrainableStudent
    position: Position
    dataset: StepDataset
    samples: int
    teacher: Teaching | None
    loss: WeightedLoss
    banks: TeacherBanks | None
    optimizer: OptimizerSettings
    validate: _Validator | None


class Trainer:
    """One run of the loop in one process."""

    def __init__(
        self, work: Work, settings: LoopSettings, *, folder: Path, accelerator: Accelerator
    ) -> None:
        """Prepare model and optimizers, and load the newest checkpoint in ``folder``."""
        self.work = work
        self.settings = settings
        self.folder = folder
        self.accelerator = accelerator
        self.skipped: dict[str, Skip] = {}
        self.alignment = work.loss.alignment if settings.alignment_first_steps else work.loss
        model = work.trainable
        self.frozen_norms = _prepare_norms(model, accelerator)
        model.to(accelerator.device)
        model.memory_format = choose_memory_format(
            work.student.model, wanted=settings.channels_last, device=accelerator.device
        )
        optimizers = build_optimizers(model, work.optimizer)
        schedules = build_schedules(optimizers, work.optimizer, steps=settings.steps)
        self.model, *prepared = accelerator.prepare(model, *optimizers)
        self.average = (
            None
            if settings.ema_decay is None
            else MovingAverage(work.student, decay=settings.ema_decay)
        )
        self.training = Resumable(prepared, schedules, accelerator.scaler, self.average)
        self.state = TrainingState()
        self.rates: dict[str, float] = {}
        newest = latest_checkpoint(folder / "checkpoints")
        if newest is not None:
            self.state = load_checkpoint(newest, model=work.student.model, training=self.training)

    @property
    def result(self) -> Student:
        """The result so far: the student, or its moving average."""
        return self.work.student if self.average is None else self.average.student

    def run(self) -> None:
        """Train to the end, or until the first Ctrl-C.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; the message says what was saved.
            RunError: The loss is not finite, or too many samples cannot be read.
        """
        settings, state = self.settings, self.state
        log = RunLog(self.folder, self.accelerator, step=state.step)
        fetched = batches(
            self.work.dataset,
            range(state.step, settings.steps),
            workers=settings.workers,
            pin=self.accelerator.device.type == "cuda",
        )
        with (
            Interrupts() as interrupts,
            progress_bar("training", settings.steps, done=state.step) as bar,
        ):
            for batch in log.fetch(fetched):
                result = self._step(batch)
                state.step += 1
                last = state.step == settings.steps
                self._note_skips(batch)
                if last or state.step % settings.log_every == 0:
                    self._log(result, log, bar)
                stop = interrupts.anywhere(self.accelerator)
                with log.aside():
                    if last or state.step % settings.validate_every == 0:
                        self._validate(log)
                    if last or stop or state.step % settings.save_every == 0:
                        self._save()
                if stop and not last:
                    raise KeyboardInterrupt(
                        f"stopped at step {state.step} of {settings.steps}, saved in "
                        f"{self.folder}; run the same command to continue"
                    )
        if self.accelerator.is_main_process:
            with whole_folder(self.folder / "student") as new:
                self.result.save(new)
        self.accelerator.wait_for_everyone()

    def _step(self, batch: Batch) -> StepResult:
        """Run one step; its random draws are a function of the seed, the step and the rank."""
        step, device = self.state.step, self.accelerator.device
        rank = self.accelerator.process_index
        torch.manual_seed(draw_integers("step", self.settings.seed, step, rank)[0] >> 1)
        self.model.train()
        _freeze(self.frozen_norms)
        self.rates = learning_rates(self.training.optimizers)
        with torch.no_grad():
            teacher = self._teach(batch)
        loss = GlobalLoss(
            self.alignment if step < self.settings.alignment_first_steps else self.work.loss,
            teacher=teacher,
            groups=self._groups(batch),
            banks=self._banks(batch),
            progress=step / self.settings.steps,
            tile_rows=self.settings.tile_rows,
        )
        lock = locked_towers(
            self.work.student.model,
            image=step < self.settings.freeze_image_steps,
            text=step < self.settings.freeze_text_steps,
        )
        try:
            with lock:
                result = training_step(
                    self.model,
                    [piece.to(device) for piece in batch.pieces],
                    loss,
                    optimizers=self.training.optimizers,
                    accelerator=self.accelerator,
                    gradient_clip=self.settings.gradient_clip,
                )
        except NonFiniteLossError as error:
            raise RunError(
                f"step {step + 1}: {error}; lower train.learning_rate, raise train.warmup_steps, "
                f"or set train.precision to fp32; earlier results in {self.folder} are kept"
            ) from error
        for schedule in self.training.schedules:
            schedule.step()
        clamp_logit_scale(self.work.student.model)
        if self.average is not None:
            self.average.update(step + 1)
        return result

    def _teach(self, batch: Batch) -> Embeddings | None:
        """Return the teacher's embeddings of the global batch."""
        teacher, device = self.work.teacher, self.accelerator.device
        if teacher is None:
            return None
        image, text = teacher.embed(batch)
        return Embeddings(
            image=None if image is None else gather_rows(image.to(device)),
            text=None if text is None else gather_rows(text.to(device)),
            scale=torch.tensor(teacher.logit_scale, device=device),
            bias=torch.tensor(teacher.logit_bias, device=device),
        )

    def _groups(self, batch: Batch) -> Tensor:
        """Return the group ids of the global batch, the same on every process."""
        ids = self.accelerator.gather(batch.pair_ids.to(self.accelerator.device)).cpu()
        groups = group_rows(ids[:, 0].tolist(), ids[:, 1].tolist())
        return torch.from_numpy(groups).to(self.accelerator.device)

    def _banks(self, batch: Batch) -> Banks | None:
        """Return the banks of this step, with the true partners of the global batch."""
        source, step = self.work.banks, self.state.step
        if source is None:
            return None
        banks = source.at(step)
        if batch.partners is None:
            return banks
        first = self.accelerator.process_index * len(batch.pair_ids)
        banks = source.with_partners(banks, batch.partners, step=step, first=first)
        return replace(
            banks,
            image_partners=self._gather_pairs(banks.image_partners),
            text_partners=self._gather_pairs(banks.text_partners),
        )

    def _gather_pairs(self, pairs: Tensor | None) -> Tensor | None:
        """Return the pairs of all processes, whose numbers may differ."""
        if pairs is None:
            return None
        pairs = pairs.to(self.accelerator.device)
        if self.accelerator.num_processes == 1:
            return pairs
        padded = self.accelerator.pad_across_processes(pairs, dim=0, pad_index=-1)
        everyone: Tensor = self.accelerator.gather(padded)
        return everyone[everyone[:, 0] >= 0]

    def _note_skips(self, batch: Batch) -> None:
        self.skipped.update({skip.where: skip for skip in batch.skipped})
        if batch.skipped:
            check_skips(
                "training data",
                list(self.skipped.values()),
                self.work.samples,
                max_skipped=self.settings.max_skipped,
            )

    def _log(self, result: StepResult, log: RunLog, bar: Bar) -> None:
        line = log.training(
            self.state.step,
            result,
            batch_size=self.settings.batch_size,
            learning_rates=self.rates,
        )
        rate = line["samples_per_second"]
        bar.update(self.state.step, f"loss {result.loss:.4f}  {rate:.0f} samples/s")

    def _validate(self, log: RunLog) -> None:
        """Measure the student on the main process, and keep it if it is the best so far."""
        if self.work.validate is not None and self.accelerator.is_main_process:
            self.model.eval()
            found = self.work.validate(self.result)
            log.validation(self.state.step, found)
            headline = found.get("headline")
            best = self.state.best
            if headline and (best is None or headline["value"] > best["value"]):
                self.state.best = {"step": self.state.step, **headline}
                with whole_folder(self.folder / "student_best") as new:
                    self.result.save(new)
        self.accelerator.wait_for_everyone()

    def _save(self) -> None:
        skips = gather_object(list(self.skipped.values()))
        if self.accelerator.is_main_process:
            self.skipped = {skip.where: skip for skip in skips}
            save_checkpoint(
                self.folder / "checkpoints",
                self.state,
                student=self.work.student,
                training=self.training,
            )
        self.accelerator.wait_for_everyone()


def _prepare_norms(model: nn.Module, accelerator: Accelerator) -> Sequence[nn.Module]:
    """Return the batch norms to freeze.

    With several processes on CPUs, these are all of them. On GPUs they are synchronised instead,
    and with one process they train as usual.
    """
    if accelerator.num_processes == 1:
        return []
    if accelerator.device.type == "cuda":
        convert_sync_batchnorm(model)
        return []
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    ]


def _freeze(norms: Sequence[nn.Module]) -> None:
    """Let batch norms use their running statistics without updating them."""
    for norm in norms:
        norm.eval()
