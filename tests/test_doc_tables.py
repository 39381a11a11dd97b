"""Tables in the documentation are those that the code's rows make."""

import pytest

from tests.doc_tables import ROOT, TABLES, split


@pytest.mark.parametrize(("page", "name"), TABLES, ids=[f"{page}:{name}" for page, name in TABLES])
def test_tables_are_up_to_date(page: str, name: str) -> None:
    _, found, _ = split(ROOT / page, name)
    assert found == TABLES[page, name](), f"{page}: run: make tables"
