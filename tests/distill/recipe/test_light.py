"""Reading a recipe and finding its mistakes loads no heavy library."""

import json
from pathlib import Path

from tests.test_layering import LOADER, ROOT, TRAIN_LIBRARIES, modules, python

HEAVY = sorted(TRAIN_LIBRARIES - {"pydantic", "yaml"} | {"numpy", "PIL", "onnxruntime"})
READ = """
from pathlib import Path
from distill.recipe.defaults import default_values
from distill.recipe.load import load_recipe, resolve
from distill.recipe.schema import json_schema
from distill.recipe.text import to_yaml
from export.runtime.errors import RecipeError

for path in sorted(Path(sys.argv[2]).glob("*.yaml")):
    assert to_yaml(load_recipe(path), comments=True)
try:
    load_recipe(Path(sys.argv[3]))
except RecipeError as error:
    print(error)
assert resolve(default_values(data=sys.argv[4], labels=sys.argv[4]), where="command line")
assert json_schema()
"""
MISTAKES = """
teacher: {model: 3}
losses: {kl_divergense: 1}
train: {batch_sise: 4}
data: {train: {kind: scene}}
"""


def test_recipes_are_read_with_pydantic_and_yaml_alone(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(MISTAKES)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").touch()
    names = json.dumps([modules("distill.recipe", "distill.labels.names"), HEAVY])
    done = python("-c", LOADER + READ, names, str(ROOT / "configs"), str(wrong), str(tmp_path))
    assert done.returncode == 0, done.stderr
    loaded, *lines = done.stdout.splitlines()
    assert {name.partition(".")[0] for name in json.loads(loaded)}.isdisjoint(HEAVY)
    fields = ["teacher.model", "data.train.kind", "losses.kl_divergense", "train.batch_sise"]
    assert [line.split(": ")[1] for line in lines] == fields
