"""Run a bundle on a device with numpy, Pillow, tokenizers and onnxruntime alone.

- ``EdgeModel`` (``export.runtime.model``): classify pictures, embed pictures and texts.
- ``export.runtime.decode``: decode a picture to RGB.
- ``export.runtime.preprocess``: resize, crop and normalise it.
- ``export.runtime.manifest``: read what a bundle says about itself.
- ``export.runtime.errors``: the exceptions, and how they relate to each other.

``EdgeModel`` is imported at first use, so importing the errors loads no other library.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import EdgeModel

__all__ = ["EdgeModel"]


def __getattr__(name: str) -> Any:
    if name == "EdgeModel":
        from .model import EdgeModel

        return EdgeModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
