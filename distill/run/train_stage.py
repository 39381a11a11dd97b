"""The train stage: from a project to the plain arguments of the training loop."""

import torch
from accelerate import Accelerator
from torch.nn.modules.batchnorm import _BatchNorm

from distill.basis.progress import make_console
from distill.labels.label_set import average_prompts
from distill.run.cache_stage import build_caches, teacher_encoder
from distill.run.folder import RunFolder
from distill.run.project import Project
from distill.run.ridge_start import solve_projections
from distill.run.settings import fill_settings
from distill.run.student import student_preprocessing
from distill.run.validation import StudentValidator, ValidationSettings
from distill.teacher.cache.cache import CachedTeacher
from distill.teacher.cache.ensemble import CachedEnsemble
from distill.teacher.teaching import Teaching
from distill.train.banks import TeacherBanks
from distill.train.batches import Inputs, StepDataset, cut
from distill.train.checkpoint import latest_checkpoint
from distill.train.loop import LoopSettings, Trainer, Work
from distill.train.optimizer import OptimizerSettings
from distill.train.processes import start_trackers
from distill.train.run_log import flatten
from distill.train.step import TrainableStudent
from distill.train.towers import corpus_parts
from export.runtime.errors import RecipeError
from students.switches import compile_towers


def train_stage(
    project: Project, folder: RunFolder, accelerator: Accelerator, *, keep_teacher: bool = False
) -> None:
    """Train a project's student in this process.

    Once the cache holds everything that training needs from the teacher, the teacher's weights are
    freed, or moved to the CPU if a later stage needs them (``keep_teacher``).

    Raises:
        RunError: The cache cannot be completed, or the loss is not finite.
        KeyboardInterrupt: Ctrl-C was pressed; the text says what was saved.
    """
    teacher = _who_teaches(project, folder, accelerator)
    work = _work(project, teacher, accelerator)
    if latest_checkpoint(folder.path / "checkpoints") is None:
        solve_projections(project, work, accelerator)
    if project.config.train.compile:
        compile_towers(project.student.model)
    if not keep_teacher:
        project.release_teacher()
    elif project.config.train.teacher == "cached":
        project.rest_teacher()
    trainer = Trainer(work, _loop_settings(project), folder=folder.path, accelerator=accelerator)
    _announce(project, trainer)
    start_trackers(
        accelerator, folder=folder.path, values=flatten(project.config.model_dump(mode="json"))
    )
    try:
        trainer.run()
    finally:
        if accelerator.is_main_process:
            unread = [] if work.validate is None else work.validate.skipped
            folder.add_skips([*trainer.skipped.values(), *unread])
    if teacher is not None:
        _tell_truncated(teacher)
    if accelerator.is_main_process:
        folder.finish("train")
    accelerator.wait_for_everyone()


def _loop_settings(project: Project) -> LoopSettings:
    config = project.config
    return fill_settings(
        LoopSettings,
        config.train,
        seed=config.seed,
        steps=project.steps,
        workers=config.data.workers,
        max_skipped=config.data.max_skipped,
    )


def _announce(project: Project, trainer: Trainer) -> None:
    """Print how far the run is, and what may surprise the user about it.

    Raises:
        RecipeError: Batch norm would see a single picture.
    """
    console, accelerator = make_console(), trainer.accelerator
    cut_norms = not trainer.frozen_norms and _cuts_batch_norms(project, accelerator)
    console.print(
        f"train: step {trainer.state.step} of {project.steps}, "
        f"{project.config.train.batch_size} pairs a step on "
        f"{accelerator.num_processes} process(es), {accelerator.device}"
    )
    lanes = project.position.lanes
    if lanes is not None and lanes % accelerator.num_processes:
        console.print(
            f"train: some shards are read by two processes, since {accelerator.num_processes} "
            f"processes do not divide {lanes} lane(s); write more shards, or set data.lanes"
        )
    if trainer.frozen_norms:
        console.print("train: batch norm is frozen, since several processes run on CPUs")
    elif cut_norms:
        console.print(
            "train: batch norm uses the statistics of a micro-batch, and updates its running "
            "statistics once a step"
        )


def _tell_truncated(teacher: Teaching) -> None:
    for title, count in teacher.cut_captions().items():
        if count:
            make_console().print(
                f"train: captions were longer than {title} reads {count} times; their ends were cut"
            )


def _cuts_batch_norms(project: Project, accelerator: Accelerator) -> bool:
    """Return whether batch norms see less than this process's share of a batch.

    Raises:
        RecipeError: One would see a single picture, which has no statistics.
    """
    if not any(isinstance(module, _BatchNorm) for module in project.student.model.modules()):
        return False
    train = project.config.train
    pieces = cut(train.batch_size // accelerator.num_processes, train.micro_batch_size)
    if min(piece.stop - piece.start for piece in pieces) == 1:
        raise RecipeError(
            "train.micro_batch_size: batch norm needs at least two pictures in a micro-batch, but "
            f"one has a single picture ({pieces[-1].stop} pictures in {len(pieces)} "
            "micro-batches); raise it, or train.batch_size if that is small itself"
        )
    return len(pieces) > 1


def _who_teaches(project: Project, folder: RunFolder, accelerator: Accelerator) -> Teaching | None:
    """Return the teachers, live or cached; all processes build what a cache lacks."""
    mode, teacher = project.config.train.teacher, project.teacher
    if mode == "absent" or teacher is None:
        return None
    if mode == "live":
        return teacher
    caches = build_caches(project, folder, accelerator)
    cached = CachedEnsemble([CachedTeacher(of_one) for of_one in caches], teacher.shares)
    cached.attach(project.sources)
    return cached


def _work(project: Project, teacher: Teaching | None, accelerator: Accelerator) -> Work:
    config, student = project.config, project.student
    look = student_preprocessing(student)
    dataset = StepDataset(
        project.sources,
        project.position,
        project.captions,
        Inputs(
            views=project.views,
            view_count=config.cache.views,
            student=look,
            teachers=teacher.preprocessing if teacher is not None and look else (),
            cached=None if teacher is None else teacher.cached,
            towers=project.towers,
            tokenizer=student.tokenizer,
            tokenizing={"context_length": student.context_length, "padding": student.padding},
            mask=project.loss.mask,
            find_partners=any(term.row.needs_partners for term in config.terms.values()),
            piece_rows=config.train.micro_batch_size,
        ),
        # Every W-th row: lanes of shards that no other process reads.
        rows=slice(accelerator.process_index, None, accelerator.num_processes),
    )
    banks = _banks(project, teacher, accelerator.device)
    sets = project.evaluation_sets
    validate = StudentValidator(
        source=project.validation_source,
        captions=project.captions,
        headline_set=sets[0].limited(config.train.validation_samples) if sets else None,
        student=student,
        teacher=None if teacher is None else teacher_encoder(project, config.folder),
        loss=project.loss,
        banks=banks,
        settings=ValidationSettings(
            samples=config.train.validation_samples,
            batch_size=config.train.batch_size,
            max_skipped=config.data.max_skipped,
            device=accelerator.device,
        ),
    )
    return Work(
        student=student,
        trainable=TrainableStudent(
            student.model,
            mean=look.mean if look else (0.0,) * 3,
            std=look.std if look else (1.0,) * 3,
        ),
        position=project.position,
        dataset=dataset,
        samples=sum(len(source) for source in project.sources),
        teacher=teacher,
        loss=project.loss,
        banks=banks,
        optimizer=fill_settings(OptimizerSettings, config.train),
        validate=validate if accelerator.is_main_process else None,
    )


def _banks(project: Project, teacher: Teaching | None, device: torch.device) -> TeacherBanks | None:
    """Return what the recipe's terms compare with beyond the batch; None if no term does."""
    terms, prompts = project.config.terms, None
    samples = max(
        (term.options["samples"] for term in terms.values() if term.row.needs_corpus), default=0
    )
    prompted = any(term.row.needs_prompts for term in terms.values())
    if teacher is None or not (samples or prompted):
        return None
    if prompted:
        rows = teacher.encode_texts(project.bank_texts).cpu().numpy()
        prompts = torch.from_numpy(average_prompts(rows, project.bank_templates)).to(device)
    return TeacherBanks(
        seed=project.config.seed,
        device=device,
        prompts=prompts,
        cached=teacher.cached if samples else None,
        samples=samples,
        parts=corpus_parts(project.towers, terms),
    )
