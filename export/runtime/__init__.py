"""What a device needs: numpy, Pillow, tokenizers and onnxruntime, nothing else.

``EdgeModel`` is loaded when it is first asked for, since everything else imports this package
for its errors and its preprocessing.
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
