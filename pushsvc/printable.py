"""How a text that a caller chose stands in a log line and on a terminal."""


def printable(text: str, keep: str = "") -> str:
    """A text in which nothing ends the line, is invisible, or turns the direction of what follows.

    Control and format characters, separators other than the space, lone surrogates and what is not
    assigned are escaped as in Python.

    Args:
        text: any text.
        keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text
    )
