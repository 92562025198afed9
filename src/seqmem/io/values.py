"""Values in text files."""


def is_number(cell: str) -> bool:
    """Return whether a text is a number; blanks around it do not count, and "nan" and "inf" are numbers.

    >>> is_number(" 1e3"), is_number("2020_01")
    (True, False)
    """
    if "_" in cell:  # which Python takes, and pandas does not
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return True


def shortened(text: str) -> str:
    """Return at most the first 40 characters of a text, for a message."""
    return text if len(text) <= 40 else f"{text[:40]}..."
