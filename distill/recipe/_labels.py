"""Labels and templates in a recipe: lists, or names of files that hold them."""

from typing import Annotated

from pydantic import AfterValidator, Field, Strict

from distill.labels.templates import plain_template
from distill.recipe.base import Text, by_type

_Template = Annotated[str, Strict(), Field(pattern=r"\{c?\}"), AfterValidator(plain_template)]
Templates = Annotated[tuple[_Template, ...], Field(min_length=1)]
Lines = Annotated[
    tuple[Text, ...] | Text | None,
    by_type(
        "a list, imagenet, or the name of a text file, a JSON list or a folder of classes",
        {list: tuple[Text, ...], tuple: tuple[Text, ...], str: Text},
    ),
]
TemplateLines = Annotated[
    tuple[_Template, ...] | Text | None,
    by_type(
        "a list of templates, openai, or the name of a text file with one template per line",
        {list: Templates, tuple: Templates, str: Text},
    ),
]
