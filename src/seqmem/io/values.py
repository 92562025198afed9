"""Values in text files."""


def is_number(cell: str) -> bool:
    """Return whether Python reads a text as a number; blanks around it do not count, and "nan" and "inf" are numbers."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def shortened(text: str) -> str:
    """Return at most the first 40 characters of a text, for a message."""
    return text if len(text) <= 40 else f"{text[:40]}..."
