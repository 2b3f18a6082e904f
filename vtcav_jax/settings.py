"""Settings: dataclass fields that carry a help text, allowed values and bounds.

    @dataclass(frozen=True)
    class FitConfig:
        l2: float = setting(0.01, "L2 penalty", above=0)

        def __post_init__(self):
            check_settings(self)

`check_settings` raises one `SettingError` that names every field at fault; the command line makes a flag of each
setting and renders the error with the flags' names.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

KEY = "setting"
MAX_SEED = 2**32 - 1
SEED_HELP = "seed of everything random"
BATCH_HELP = "clips per forward pass"


@dataclass(frozen=True)
class Setting:
    """What is known of a field beside its type and default."""

    help: str
    metavar: str = ""  # the value in a message about a missing flag: --run=NAME
    choices: tuple[str, ...] = ()
    minimum: int | float | None = None
    maximum: int | float | None = None
    above: int | float | None = None
    below: int | float | None = None
    repeated: bool = False  # the flag is given once per value, whose commas are its own
    convert: Callable[[Any], Any] | None = None  # from the flag's text (or list) to the field's value
    is_nested: bool = False  # the field is a config dataclass, whose settings are flags too


def setting(default: Any, description: str, *, default_factory: Any = MISSING, **details: Any) -> Any:
    """A dataclass field with a default; `details` are fields of `Setting`."""
    metadata = {KEY: Setting(description, **details)}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def required(metavar: str, description: str, **details: Any) -> Any:
    """A dataclass field without a default."""
    return field(metadata={KEY: Setting(description, metavar, **details)})


def nested(config: type) -> Any:
    """A dataclass field that holds a config; its settings become flags of the same command."""
    return field(default_factory=config, metadata={KEY: Setting("", is_nested=True)})


class SettingError(ValueError):
    """One or more settings at fault: `problems` are pairs of a field's name and what is wrong with its value."""

    def __init__(self, *problems: tuple[str, str]):
        self.problems = problems
        super().__init__("; ".join(f"{name}: {text}" for name, text in problems))


@contextmanager
def concerning(name: str) -> Iterator[None]:
    """Attribute an error to the setting `name`, unless it names one already."""
    try:
        yield
    except SettingError:
        raise
    except ValueError as error:
        raise SettingError((name, str(error))) from error


def setting_fields(config: type) -> dict[str, tuple[Any, Setting, Any]]:
    """The type, the `Setting` and the default (or MISSING) of each setting of a dataclass, by name."""
    hints = get_type_hints(config)
    return {
        f.name: (
            hints[f.name],
            f.metadata[KEY],
            f.default if f.default_factory is MISSING or f.metadata[KEY].is_nested else f.default_factory(),
        )
        for f in fields(config)
        if KEY in f.metadata
    }


def choices_of(hint: Any, info: Setting) -> tuple[str, ...]:
    """The allowed values: those of a Literal type, or those that are given."""
    options = get_args(hint) if get_origin(hint) is Literal else ()
    return tuple(options) or info.choices


def without_none(hint: Any) -> Any:
    """The type without `| None`."""
    if isinstance(hint, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    return hint


def find_problems(config: Any) -> list[tuple[str, str]]:
    """Every setting of a config whose value is not allowed."""
    problems = []
    for name, (hint, info, _) in setting_fields(type(config)).items():
        value, choices = getattr(config, name), choices_of(without_none(hint), info)
        if value is None or info.is_nested:
            continue
        if choices and (unknown := [v for v in (value if isinstance(value, tuple) else (value,)) if v not in choices]):
            problems.append((name, f"expected one of {', '.join(choices)}, got {', '.join(map(repr, unknown))}"))
        checks = (
            (info.minimum, "at least", lambda bound, v=value: v >= bound),
            (info.maximum, "at most", lambda bound, v=value: v <= bound),
            (info.above, "more than", lambda bound, v=value: v > bound),
            (info.below, "less than", lambda bound, v=value: v < bound),
        )
        wanted = [(words, bound, holds) for bound, words, holds in checks if bound is not None]
        if wanted and not all(holds(bound) for _, bound, holds in wanted):
            bounds = " and ".join(f"{words} {bound:g}" for words, bound, _ in wanted)
            problems.append((name, f"expected {bounds}, got {value:g}"))
    return problems


def check_settings(config: Any, *more: tuple[str, str]) -> None:
    """Raise a `SettingError` with every problem of a config, and those in `more` (name, text)."""
    if problems := [*find_problems(config), *more]:
        raise SettingError(*problems)
