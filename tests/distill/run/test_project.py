"""Projects: what a recipe names, opened once and without side effects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.recipe.config import RunConfig
from distill.train.towers import BOTH, Towers
from export.runtime.errors import DataError, RecipeError, StudentError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.run import project as project_module
    from distill.run.project import Project
    from students.encoder import logit_scale

Configure = Callable[..., RunConfig]
WORDS = ["red circle", "blue square", "green star"]


def weights(project: Project) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in project.student.model.state_dict().items()}


def test_nothing_is_opened_before_it_is_asked_for(configure: Configure) -> None:
    data = {"train": {"kind": "table", "path": "nowhere.csv"}}
    config = configure(teacher={"model": "nowhere"}, data=data)
    assert Project(config).config is config
    assert not config.folder.exists()


def test_the_student_follows_from_the_seed_and_leaves_the_random_state(
    configure: Configure,
) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (weights(Project(configure(seed=seed))) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_teacher_and_sources_are_opened_once(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(name: str) -> None:
        original = getattr(project_module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            opened.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(project_module, name, call)

    counted("load_teachers")
    counted("open_source")
    project = Project(configure())
    for _ in range(2):
        project.open_data()
        project.open_models()
        _ = project.evaluation_sets, project.loss, project.views, project.captions
    assert sorted(opened) == ["load_teachers", "open_source"]


def test_a_teacher_says_the_same_after_a_rest(configure: Configure) -> None:
    project = Project(configure())
    assert project.teacher is not None
    before = project.teacher.encode_texts(WORDS)
    project.rest_teacher()
    awake = project.wake_teacher()
    assert awake is project.teacher
    assert torch.equal(awake.encode_texts(WORDS), before)


def test_a_released_teacher_is_loaded_again_when_it_is_needed(configure: Configure) -> None:
    project = Project(configure())
    first = project.teacher
    project.release_teacher()
    assert project.teacher is not None
    assert project.teacher is not first


def test_a_recipe_without_a_teacher_has_none(configure: Configure) -> None:
    project = Project(configure(teacher=None, student={"width": 32}, losses={"contrastive": 1}))
    assert project.teacher is None
    assert project.wake_teacher() is None
    project.rest_teacher()
    assert project.student.width == 32


def test_what_is_held_out_is_not_trained_on(configure: Configure) -> None:
    project = Project(configure())
    (source,) = project.sources
    held_out = project.validation_source
    assert held_out is not None
    keys = {source[number].key for number in range(len(source))}
    others = {held_out[number].key for number in range(len(held_out))}
    assert others
    assert not keys & others
    assert len(keys | others) == 24


def test_named_validation_data_leaves_the_training_data_whole(
    configure: Configure, pictures: Path
) -> None:
    data = {"kind": "table", "path": str(pictures)}
    project = Project(configure(data={"validation": data}))
    assert [len(source) for source in project.sources] == [24]
    assert project.validation_source is not None
    assert len(project.validation_source) == 24


def test_nothing_is_held_out_beside_evaluation_sets(configure: Configure, pictures: Path) -> None:
    entry = {"name": "a", "task": "retrieval", "data": {"kind": "table", "path": str(pictures)}}
    project = Project(configure(evaluate=entry))
    assert [len(source) for source in project.sources] == [24]
    assert project.validation_source is None


@pytest.mark.parametrize(
    ("train", "steps"),
    [({"steps": 7}, 7), ({"steps": None, "epochs": 3}, 6), ({"steps": None, "epochs": 0.1}, 1)],
)
def test_steps_follow_from_steps_or_epochs(
    configure: Configure, train: dict[str, Any], steps: int
) -> None:
    # 23 pictures are left to train on, of which a batch of 8 fits in twice.
    assert Project(configure(train=train)).steps == steps


def test_prompts_come_from_a_file_the_labels_or_the_captions(
    configure: Configure, tmp_path: Path
) -> None:
    bank = tmp_path / "bank.txt"
    bank.write_text("one\ntwo\n")
    labelled = {"labels": WORDS, "templates": ["a {}", "the {}"]}
    from_file = Project(
        configure(losses={"prompt_kl": {"weight": 1, "bank": str(bank)}}, data=labelled)
    )
    assert (from_file.bank_texts, from_file.bank_templates) == (("one", "two"), 1)
    from_labels = Project(configure(losses={"prompt_kl": 1}, data=labelled))
    assert from_labels.bank_texts[:2] == ("a red circle", "the red circle")
    assert (len(from_labels.bank_texts), from_labels.bank_templates) == (6, 2)
    drawn = Project(configure(losses={"prompt_kl": {"weight": 1, "bank_size": 5}}))
    known = {text for source in drawn.sources for text in captions(source)}
    assert len(set(drawn.bank_texts)) == 5
    assert set(drawn.bank_texts) <= known
    assert Project(configure()).bank_texts == ()


def captions(source: Any) -> list[str]:
    return [text for number in range(len(source)) for text in source[number].captions]


def test_a_bank_without_anything_to_fill_it_is_an_error(
    configure: Configure, pictures: Path
) -> None:
    bare = {"train": {"kind": "images", "path": str(pictures.parent / "images")}}
    project = Project(configure(student={"text": None}, losses={"prompt_kl": 1}, data=bare))
    with pytest.raises(DataError, match=r"^losses\.prompt_kl\.bank: "):
        _ = project.bank_texts


def test_towers_are_those_of_the_recipe_or_of_an_earlier_student(
    configure: Configure, tmp_path: Path
) -> None:
    assert Project(configure()).towers == BOTH
    one = Project(configure(student={"text": None}, losses={"embedding_alignment": 1}))
    assert one.towers == Towers(image=True, text=False)
    assert one.teacher_parts == {"images"}
    one.student.save(tmp_path / "one")
    start = {"start": str(tmp_path / "one")}
    again = Project(configure(student=start, losses={"embedding_alignment": 1}))
    assert again.towers == Towers(image=True, text=False)


def test_one_tower_takes_the_scale_of_the_teacher(configure: Configure) -> None:
    one = Project(configure(student={"text": None}, losses={"embedding_alignment": 1}))
    assert one.teacher is not None
    scale = float(logit_scale(one.student.model).detach())
    assert scale == pytest.approx(min(one.teacher.logit_scale, 100.0), rel=1e-4)
    two = Project(configure()).student.model
    assert float(logit_scale(two).detach()) == pytest.approx(1 / 0.07)


def test_an_earlier_student_that_is_not_there_names_its_field(
    configure: Configure, tmp_path: Path
) -> None:
    project = Project(configure(student={"start": str(tmp_path / "nowhere")}))
    with pytest.raises(StudentError, match=r"^student\.start: "):
        _ = project.student


def test_shares_belong_to_the_loss_of_several_teachers_alone(
    configure: Configure, teacher: Path, tmp_path: Path
) -> None:
    one = Project(configure()).loss
    assert one.shares == ()
    assert list(one.terms) == ["kl_divergence", "embedding_alignment"]
    half = {"model": str(teacher), "dtype": "bfloat16", "weight": 3}
    several = Project(configure(teacher=[{"model": str(teacher)}, half])).loss
    assert [share.weight for share in several.shares] == [0.25, 0.75]


def test_drafts_are_as_large_as_the_largest_model_needs(configure: Configure) -> None:
    assert Project(configure()).views.draft is None
    drafted = Project(configure(views={"draft": True, "scale": [1, 1]})).views.draft
    # The teacher sees 48 pixels, the student 32.
    assert drafted is not None
    assert drafted >= 48


def test_a_width_is_required_without_a_teacher(configure: Configure) -> None:
    with pytest.raises(RecipeError, match=r"student\.width: missing"):
        configure(teacher=None, losses={"contrastive": 1})
