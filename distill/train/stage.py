"""Assembling a training run: from a project to the loop's plain arguments."""

from accelerate import Accelerator

from distill.cache import CachedTeacher
from distill.cache_stage import build_caches, open_caches
from distill.progress import make_console
from distill.project import Project, student_preprocessing
from distill.run_folder import RunFolder
from distill.teacher.protocol import Teacher
from distill.train.batches import Inputs, StepDataset
from distill.train.loop import LoopSettings, Trainer, Work
from distill.train.optimizer import OptimizerSettings
from distill.train.validate import StudentValidator
from export.runtime.errors import RunError


def train_stage(project: Project, folder: RunFolder, accelerator: Accelerator) -> None:
    """Train a project's student in this process.

    Raises:
        RunError: the cache could not be made whole, or the loss is no finite number.
        KeyboardInterrupt: Ctrl-C came; the text says what was saved.
    """
    teacher = _who_teaches(project, folder, accelerator)
    work = _work(project, teacher, accelerator)
    project.release_teacher()
    trainer = Trainer(
        work,
        _loop_settings(project),
        folder=folder.path,
        accelerator=accelerator,
    )
    console = make_console()
    console.print(
        f"train: step {trainer.state.step} of {project.steps}, "
        f"{project.config.train.batch_size} pairs a step on "
        f"{accelerator.num_processes} process(es), {accelerator.device}"
    )
    if trainer.frozen_norms:
        console.print("train: batch norm is frozen, since several processes run on CPUs")
    try:
        trainer.run()
    finally:
        if accelerator.is_main_process:
            folder.add_skips(list(trainer.skipped.values()))
    if accelerator.is_main_process:
        folder.finish("train")
    accelerator.wait_for_everyone()


def _who_teaches(
    project: Project, folder: RunFolder, accelerator: Accelerator
) -> Teacher | CachedTeacher | None:
    """Return the teacher, live or cached; the main process builds a cache that is not whole."""
    mode, teacher = project.config.train.teacher, project.teacher
    if mode == "absent" or teacher is None:
        return None
    if mode == "live":
        return teacher
    if accelerator.is_main_process and open_caches(project, folder.path) is None:
        build_caches(project, folder)
    accelerator.wait_for_everyone()
    caches = open_caches(project, folder.path)
    if caches is None:
        raise RunError(f"{folder.path}: the cache was built, yet does not hold all of the data")
    return CachedTeacher(caches)


def _work(
    project: Project, teacher: Teacher | CachedTeacher | None, accelerator: Accelerator
) -> Work:
    config, student = project.config, project.student
    live = None if isinstance(teacher, CachedTeacher) else teacher
    look = student_preprocessing(student)
    rows = config.train.batch_size // accelerator.num_processes
    first = accelerator.process_index * rows
    dataset = StepDataset(
        project.sources,
        project.position,
        project.captions,
        Inputs(
            views=project.views,
            view_count=config.cache.views,
            student=look,
            teacher=None if live is None else live.preprocessing,
            tokenizer=student.tokenizer,
            tokenizing={"context_length": student.context_length, "padding": student.padding},
        ),
        rows=slice(first, first + rows),
    )
    sets = project.evaluation_sets
    validate = StudentValidator(
        source=project.validation_source,
        captions=project.captions,
        headline_set=sets[0].limited(config.train.validation_samples) if sets else None,
        teacher=project.teacher if config.train.teacher != "absent" else None,
        loss=project.loss,
        samples=config.train.validation_samples,
        batch_size=config.train.batch_size,
        device=accelerator.device,
    )
    return Work(
        student=student,
        preprocessing=look,
        position=project.position,
        dataset=dataset,
        samples=sum(len(source) for source in project.sources),
        teacher=teacher,
        loss=project.loss,
        optimizer=_optimizer_settings(project),
        validate=validate if accelerator.is_main_process else None,
    )


def _loop_settings(project: Project) -> LoopSettings:
    config = project.config
    train = config.train
    return LoopSettings(
        seed=config.seed,
        steps=project.steps,
        batch_size=train.batch_size,
        workers=config.data.workers,
        max_skipped=config.data.max_skipped,
        gradient_clip=train.gradient_clip,
        log_every=train.log_every,
        validate_every=train.validate_every,
        save_every=train.save_every,
    )


def _optimizer_settings(project: Project) -> OptimizerSettings:
    train = project.config.train
    return OptimizerSettings(
        optimizer=train.optimizer,
        learning_rate=train.learning_rate,
        muon_learning_rate=train.muon_learning_rate,
        weight_decay=train.weight_decay,
        betas=train.betas,
        warmup_steps=train.warmup_steps,
        schedule=train.schedule,
    )
