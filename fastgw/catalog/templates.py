"""URI templates read backwards: which URIs may be expansions of a simple one (RFC 6570), as a regular expression.

Simple is a literal scheme, then literals and `{x}`, one `{+path}` (at the end, or before a literal that begins with
`/`), and at the very end `{/x}`, then `{?x,y}` and `{&x,y}`. Every expansion fits. What fits need not be one: values
are taken as wide as servers read them, and a query may hold anything.

Templates and URIs are strangers': groups that could give back without need are atomic, so a fit that fails costs at
most about the length of the URI times that of the template.
"""

from __future__ import annotations

import re
from urllib.parse import quote

LONGEST_TEMPLATE = 512

_VARIABLE = r"[A-Za-z0-9_%][A-Za-z0-9_.%]*+(?:\*|:[1-9][0-9]{0,3}+)?+"
_NAMES = f"{_VARIABLE}(?:,{_VARIABLE})*+"
_PLAIN = r"(?:[^{}]|\{" + _NAMES + r"\})*+"
_SIMPLE = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.\-]*+:{_PLAIN}"
    + (r"(?:\{\+" + _NAMES + rf"\}}(?:/{_PLAIN})?+)?+")
    + (r"(?:\{/" + _NAMES + r"\})*+(?:\{[?&]" + _NAMES + r"\})*+")
)
_EXPRESSION = re.compile(r"\{([+#./;?&]?)([^{}]*)\}")
_RUNS = {"": "[^/?#]*", "+": ".*", "?": r"(?:\?[^#]*+)?+", "&": "(?:&[^#]*+)?+"}
_RESERVED = "!#$&'()*+,/:;=?@[]~%"
"""Characters of literals that expand to themselves (RFC 6570, section 3.1); others may stand encoded or not."""


def backwards(text: str) -> str | None:
    """The template as a regular expression for `fullmatch`; None for one that is not simple.

    Equal expressions fit the same URIs: names of variables do not show in them.
    """
    if len(text) > LONGEST_TEMPLATE or _SIMPLE.fullmatch(text) is None:
        return None
    parts = _EXPRESSION.split(text)
    made = [_literal(parts[0])]
    for at in range(1, len(parts), 3):
        operator, names, literal = parts[at : at + 3]
        following = parts[at + 3] if at + 3 < len(parts) else None
        if operator == "" and following in ("", "+") and not re.search("[/?#]", literal):
            # What follows takes whatever this leaves, so the first place where the literal stands is as good as any.
            made.append(f"(?>[^/?#]*?{_literal(literal)})")
        elif operator == "/":
            made.append("(?:/[^?#]*+)?+" if "*" in names else "(?:/[^/?#]*+)?+" * (names.count(",") + 1))
        else:
            made.append(_RUNS[operator] + _literal(literal))
    return "".join(made)


def _literal(text: str) -> str:
    encoded = [(re.escape(one), quote(one, safe=_RESERVED, errors="surrogatepass")) for one in text]
    return "".join(f"(?:{plain}|{other})" if other[0] == "%" != plain else plain for plain, other in encoded)
