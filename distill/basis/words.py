"""Write numbers and texts for people to read."""


def counted(number: float, noun: str) -> str:
    """Return a number with its noun; a float is rounded to three digits."""
    text = f"{number:,}" if isinstance(number, int) else f"{number:,.3g}"
    return f"{text} {noun}" if text == "1" else f"{text} {noun}s"


def human_bytes(count: float) -> str:
    """Return a number of bytes as text in B, kB, MB, GB or TB, in powers of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_time(seconds: float) -> str:
    """Return a duration as text: seconds, minutes and seconds, or hours and minutes."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def shorten(text: str, *, limit: int = 80) -> str:
    """Return a text in quotes on one line, cut to ``limit`` characters."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
