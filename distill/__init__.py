"""Distilling a large frozen CLIP teacher into a compact student."""


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("clip-distill")
        except PackageNotFoundError:
            return "unknown, since it is not installed"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
