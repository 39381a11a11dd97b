"""Make the demo's teacher again: ``python -m distill.demo.make_teacher``, in a checkout.

Renders the pictures, prepares the start, runs ``configs/demo_teacher.yaml`` through the ordinary
training loop, and puts the result into the package as float16.
"""

from importlib import resources
from pathlib import Path

from distill.basis.files import whole_folder
from distill.data.scenes import render_scenes
from distill.demo.start import prepare_start
from distill.recipe.load import load_recipe
from distill.run.opening import student_folder
from distill.run.pipeline import run
from export.runtime.errors import RecipeError
from students.model import load_student

RECIPE = Path("configs/demo_teacher.yaml")


def make_teacher(recipe: Path = RECIPE) -> Path:
    """Run the recipe and return the folder of the package's new teacher.

    Raises:
        RecipeError: the recipe is missing, or is not one that starts from a folder.
    """
    config = load_recipe(recipe)
    source = config.train_sources[0]
    if config.student.start is None or source.kind != "scenes" or source.path is None:
        raise RecipeError(f"{recipe}: needs student.start and scenes with a path")
    table = render_scenes(
        Path(source.path),
        count=source.count,
        seed=source.seed,
        image_size=source.image_size,
        split=source.split,
        captioned=source.captioned,
    )
    prepare_start(Path(config.student.start), table=table, seed=config.seed)
    run(config, stages=("train", "evaluate"))
    student = load_student(student_folder(config.folder, "last"))
    student.model.half()
    with resources.as_file(resources.files("distill.demo")) as package:
        with whole_folder(package / "teacher") as new:
            student.save(new)
        return package / "teacher"


if __name__ == "__main__":
    make_teacher()
