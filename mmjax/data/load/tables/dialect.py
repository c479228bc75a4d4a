"""The format of a CSV file: separators, gaps, decimal and thousands signs, encoding."""

import codecs
import re
from typing import NamedTuple

# The spellings of a gap that pandas.read_csv knows by default, beside the empty cell.
MISSING_SPELLINGS = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
# Thousands are also set apart by spaces that do not break the line.
_SPACES = " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"


class Dialect(NamedTuple):
    r"""How the cells of a CSV file are written. Parquet files and DataFrames do not need it.

    Attributes:
      separator: one character between cells, such as ";" or "\t".
      decimal: one character before the fraction of a number: "." or ",".
      thousands: one character between groups of digits, such as "," or " "; "" if there is none.
      missing: cells that count as empty in every column; by default, those that pandas knows.
        `()` keeps all cells as they are. Their number is printed.
      encoding: name of the encoding as Python knows it, such as "cp1252" or "utf-16".

    Example:
      >>> German = Dialect(separator=";", decimal=",", thousands=".")
      >>> German.format_number("-1.234,5"), German.format_number("1.5")
      ('-1234.5', None)
    """

    separator: str = ","
    decimal: str = "."
    thousands: str = ""
    missing: tuple[str, ...] = MISSING_SPELLINGS
    encoding: str = "utf-8"

    def check(self) -> None:
        """Raises ValueError if a setting is impossible, or two contradict each other."""
        if len(self.separator) != 1 or self.separator in '"\r\n':
            raise ValueError(
                f"the separator of a dialect is {self.separator!r}; give one character that is "
                "neither a quote nor a line break."
            )
        if self.decimal not in (".", ",") or self.thousands == self.decimal:
            raise ValueError(
                f"a dialect has the decimal sign {self.decimal!r} and the thousands sign "
                f"{self.thousands!r}; give '.' or ',' for the first and another for the second."
            )
        # A digit, a letter or the sign of a number could not be told from the number itself.
        if len(self.thousands) > 1 or self.thousands.isalnum() or self.thousands in ("-", "+"):
            raise ValueError(
                f"the thousands sign of a dialect is {self.thousands!r}; give one character, or '' "
                "if there is none."
            )
        if isinstance(self.missing, str):
            raise ValueError(
                f"missing of a dialect is {self.missing!r}; give a tuple, such as "
                f"({self.missing!r},)."
            )
        # Codecs such as "base64" exist, but convert bytes to bytes.
        try:
            is_text = codecs.lookup(self.encoding)._is_text_encoding
        except LookupError:
            is_text = False
        if not is_text:
            raise ValueError(
                f"the encoding of a dialect is {self.encoding!r}, which Python does not know as a "
                "text encoding; give one such as 'cp1252', 'latin-1' or 'utf-16'."
            )

    def writes_other_numbers(self) -> bool:
        """Checks whether the dialect writes numbers differently from Python."""
        return (self.decimal, self.thousands) != (".", "")

    def format_number(self, cell: str) -> str | None:
        """Formats a number as `float` reads it; None if the cell is not one of this dialect."""
        match = self._compile_number().fullmatch(cell.strip())
        if not match:
            return None
        whole, fraction = match["whole"] or "", match["fraction"]
        # Both parts are optional in the pattern, so a lone "-" or "." matches it.
        if not whole and not fraction:
            return None
        signs = _SPACES if self.thousands == " " else self.thousands
        whole = "".join(c for c in whole if c not in signs)
        exponent = match["exponent"] or ""
        return f"{match['sign']}{whole or '0'}{f'.{fraction}' if fraction else ''}{exponent}"

    def _compile_number(self) -> re.Pattern[str]:
        # In groups of three, or two as in India, so that "1,5" is not 15 with thousands=",".
        signs = f"[{_SPACES}]" if self.thousands == " " else re.escape(self.thousands)
        # The last group has three digits, or else "1,50" would be 150.
        grouped = rf"[0-9]{{1,3}}(?:{signs}[0-9]{{2,3}})*{signs}[0-9]{{3}}|" if signs else ""
        return re.compile(  # which keeps what it compiled
            rf"(?P<sign>[+-]?)(?P<whole>{grouped}[0-9]+)?"
            rf"(?:{re.escape(self.decimal)}(?P<fraction>[0-9]*))?(?P<exponent>[eE][+-]?[0-9]+)?"
        )


DEFAULT_DIALECT = Dialect()
