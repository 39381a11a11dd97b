"""EasyNLP's schema: the columns of a file without a header."""

import re

_COLUMN = re.compile(r"(\w+):(str|int|float):[0-9]+")


def parse_schema(schema: str) -> tuple[str, ...]:
    """Return the names of the columns of a schema such as ``text:str:1,image:str:1``.

    Raises:
        ValueError: The text is not a schema, or two columns have the same name.
    """
    found = [_COLUMN.fullmatch(column.strip()) for column in schema.split(",")]
    names = tuple(match.group(1) for match in found if match)
    if len(names) < len(found) or len(set(names)) < len(names):
        raise ValueError(
            "must be name:type:length for each column, each name once, such as "
            "text:str:1,image:str:1"
        )
    return names
