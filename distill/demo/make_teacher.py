"""Train the demo's teacher again: ``python -m distill.demo.make_teacher``, in a checkout.

This renders the pictures, prepares the start, trains by ``configs/demo_teacher.yaml`` and writes
the result into the package as float16.
"""

from importlib import resources
from pathlib import Path

from distill.basis.files import whole_folder
from distill.data.open import open_source
from distill.data.scenes import TABLE_FILE
from distill.demo.start import prepare_start
from distill.recipe.load import load_recipe
from distill.run.opening import student_folder
from distill.run.pipeline import run
from export.runtime.errors import RecipeError
from students.model import load_student

_RECIPE = Path("configs/demo_teacher.yaml")


def _make_teacher(recipe: Path = _RECIPE) -> Path:
    """Run the recipe and return the folder of the new teacher in the package.

    Raises:
        RecipeError: The recipe is missing, has no ``student.start``, or trains on other pictures
            than scenes with a path.
    """
    config = load_recipe(recipe)
    source = config.train_sources[0]
    scenes = source.rendered(config.folder)
    if config.student.start is None or scenes is None or source.renders_inside:
        raise RecipeError(f"{recipe}: needs student.start and scenes with a path")
    open_source(source, output=config.folder)
    table = scenes / TABLE_FILE
    prepare_start(Path(config.student.start), table=table, seed=config.seed)
    run(config, stages=("train", "evaluate"))
    student = load_student(student_folder(config.folder, "last"))
    student.model.half()
    with resources.as_file(resources.files("distill.demo")) as package:
        with whole_folder(package / "teacher") as new:
            student.save(new)
        return package / "teacher"


if __name__ == "__main__":
    _make_teacher()
