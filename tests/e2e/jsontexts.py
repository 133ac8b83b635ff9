"""JSON texts as nobody would write them and everybody must pass them on, from a seed.

Knows: RFC 8259, and that a text is more than what a parser makes of it. Lone surrogates are left out: they are refused.
"""

from __future__ import annotations

from random import Random

SPACES = ("", "", "", " ", "  ", "\t", "\n", "\n\n", "\r\n", "\r", " \n\t ")
LITERALS = ("null", "true", "false", "{}", "[]", '""', "0", "-0", "-0.0", "1E400", "-1e-400", "0.10", "1e5", "1E+0005")
PIECES = (
    "a", "data: x", "event: y", " ", "é", "日本", "\u2028", "\u2029", "\u0085", "\ufeff", "\uffff", "\x7f", "😀",
    "\\n", "\\r\\n", "\\\"", "\\\\", "\\/", "/", "\\b\\f\\t", "\\u0000", "\\u0041", "\\u00e9", "\\uD83D\\uDE00",
    "{[,:]}", "\\u2028", "\\\\ud800", "<script>", "&amp;", "%00", "\\u001f", "\\uFFFF",
)  # fmt: skip
KEYS = ("", "a", "a", "A", "name", "Name", "arguments", "_meta", "jsonrpc", "content", "__proto__", "\\u0061", "\u2028")
DEEPEST = 3
DIGITS = "0123456789"


def texts(seed: int, number: int) -> list[str]:
    """So many JSON texts, always the same for a seed. The first one is nested 150 deep."""
    dice = Random(seed)
    return ["[" * 150 + "]" * 150, *(value(dice, DEEPEST) for _ in range(number - 1))]


def value(dice: Random, depth: int) -> str:
    """One JSON text, with spaces around its tokens but none at its ends."""
    kinds = (_literal, _integer, _decimal, _text, _text) + ((_array, _object) if depth else ())
    return dice.choice(kinds)(dice, depth)


def joined(dice: Random, members: list[str]) -> str:
    """The texts with commas and spaces between them."""
    return ",".join(space(dice) + member + space(dice) for member in members)


def space(dice: Random) -> str:
    """What may stand between two tokens (RFC 8259, section 2)."""
    return dice.choice(SPACES)


def without_returns(text: str) -> str:
    """The text with LF as its only line break. A carriage return stands between tokens alone, so its sense is kept."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _literal(dice: Random, _: int) -> str:
    return dice.choice(LITERALS)


def _integer(dice: Random, _: int) -> str:
    return (
        dice.choice(("", "-")) + dice.choice(DIGITS[1:]) + "".join(dice.choices(DIGITS, k=dice.choice((0, 5, 29, 80))))
    )


def _decimal(dice: Random, depth: int) -> str:
    exponent = dice.choice(("", "", "e7", "E-12", "e+400", "E0000", "e999999"))
    return _integer(dice, depth) + "." + "".join(dice.choices(DIGITS, k=dice.choice((1, 17, 60)))) + exponent


def _text(dice: Random, _: int) -> str:
    return '"' + "".join(dice.choices(PIECES, k=dice.randrange(6))) + '"'


def _array(dice: Random, depth: int) -> str:
    return "[" + joined(dice, [value(dice, depth - 1) for _ in range(dice.randrange(1, 4))]) + "]"


def _object(dice: Random, depth: int) -> str:
    members = [
        f'"{dice.choice(KEYS)}"{space(dice)}:{space(dice)}{value(dice, depth - 1)}' for _ in range(dice.randrange(1, 4))
    ]
    return "{" + joined(dice, members) + "}"
