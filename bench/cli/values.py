"""What was typed behind a verb, read once by the table of options. All mistakes are noted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.core.mistakes import Mistakes
from bench.core.options import OPTIONS, Option


@dataclass(frozen=True, slots=True)
class Values:
    """`values["batch"]` is the value of --batch; None where it has none, or a wrong one.

    `texts` holds what was typed and nothing else: text, a tuple of texts, or a switch as a bool.
    """

    texts: Mapping[str, Any]
    options: Mapping[str, Option]
    command: tuple[str, ...] = ()
    mistakes: Mistakes = field(default_factory=Mistakes)
    _read: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        options: Sequence[Option],
        texts: Mapping[str, Any],
        command: Sequence[str] = (),
        mistakes: Mistakes | None = None,
    ) -> Values:
        """Reads every option of the verb, in the order of the table."""
        typed = {name: text for name, text in texts.items() if text is not None and text != ()}
        known = {option.name: option for option in options}
        values = cls(typed, known, tuple(command), mistakes or Mistakes())
        for option in options:
            values._read[option.name] = values._value(option)
        for option in options:
            if values.has(option.name):
                values._refuse(option)
        return values

    def __getitem__(self, name: str) -> Any:
        """Of an option that the verb does not have: its default."""
        if name not in self._read:
            self._read[name] = self._value(OPTIONS[name])
        return self._read[name]

    def has(self, name: str) -> bool:
        """Whether it was typed."""
        return self.texts.get(name, "") not in ("", False)

    def but(self, **texts: Any) -> Values:
        """The same verb asked with some texts changed; mistakes go into the same list."""
        options, changed = tuple(self.options.values()), {**self.texts, **texts}
        return Values.of(options, changed, self.command, self.mistakes)

    def text(self, name: str) -> str:
        """As it was typed, for a message; nothing of a switch, or of what is secret."""
        text, option = self.texts.get(name, ""), OPTIONS[name]
        if option.is_secret:
            return option.metavar or option.kind.metavar
        if isinstance(text, bool):
            return ""
        return ",".join(text) if isinstance(text, tuple) else option.kind.masked(str(text))

    def wrong(self, name: str, allowed: str, text: str | None = None) -> None:
        """Notes a mistake in the value of an option. `text`: the part of it that is wrong."""
        self.mistakes.wrong(OPTIONS[name].long, self.text(name) if text is None else text, allowed)

    def _value(self, option: Option) -> Any:
        text = self.texts.get(option.name)
        if option.multiple:
            read = [self._parsed(option, one) for one in text or ()]
            return tuple(value for value in read if value is not None)
        if text is None or (text == "" and option.default is None):
            text = os.environ.get(option.variable) if option.variable else None
            text = text or option.default
        if isinstance(text, bool) or text is None:
            if option.required:
                self.mistakes.wrong(
                    option.long, "", f"is missing: give {option.metavar or option.kind.metavar}"
                )
            return text if text is not None or not option.is_switch else False
        return self._parsed(option, text)

    def _parsed(self, option: Option, text: str) -> Any:
        """None after a mistake."""
        shown = (option.metavar or option.kind.metavar) if option.is_secret else option.kind.masked(text)
        try:
            return option.parse(text)
        except ValueError as error:
            self.mistakes.wrong(option.long, shown, str(error))
            return None

    def _refuse(self, option: Option) -> None:
        """An option without those that it needs, or beside one that it excludes."""
        for needed in option.needs:
            names = [name for name in needed if name in self.options]
            if names and not any(self.has(name) for name in names):
                self.wrong(option.name, f"goes with {' or '.join(map(_usage, names))}")
        for excluded in option.excludes:
            if any(self.has(name) for name in excluded.names):
                flags = " and ".join(OPTIONS[name].long for name in excluded.names)
                self.wrong(
                    option.name, f"goes without {flags}" + (f": {excluded.why}" if excluded.why else "")
                )


def _usage(name: str) -> str:
    option = OPTIONS[name]
    return option.long if option.is_switch else f"{option.long} {option.metavar or option.kind.metavar}"
