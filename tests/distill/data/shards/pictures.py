"""Pictures, a table of pictures, and the contents of a folder."""

import io
from pathlib import Path

from PIL import Image


def saved(colour: int, form: str = "PNG", *, size: tuple[int, int] = (60, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour, 100, 200)).save(buffer, form)
    return buffer.getvalue()


def table(tmp_path: Path, count: int = 6) -> Path:
    rows = ["image,caption,label"]
    for number in range(count):
        (tmp_path / f"{number}.png").write_bytes(saved(number))
        rows.append(f"{number}.png,a picture of {number},class {number % 2}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    return tmp_path / "pairs.csv"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
