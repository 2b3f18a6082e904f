"""Settings: dataclass fields with a help text, allowed values and bounds.

    @dataclass(frozen=True)
    class FitConfig:
        l2: float = setting(0.01, "L2 penalty", above=0)

        def __post_init__(self):
            check_settings(self)

`check_settings` raises one `SettingError` that lists every invalid field; the command line turns each setting into a
flag and reports the error with the names of the flags.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

KEY = "setting"
MAX_SEED = 2**32 - 1
MAX_COUNT = 10**9  # of an int setting without a maximum
MAX_BATCH_SIZE, MAX_WORKERS = 2**16, 512
SEED_HELP = "random seed"
BATCH_HELP = "clips per forward pass"


@dataclass(frozen=True)
class Setting:
    """Metadata of a dataclass field: help text, allowed values, bounds and conversion."""

    help: str
    metavar: str = ""  # the value in a message about a missing flag: --run=NAME
    choices: tuple[str, ...] = ()
    minimum: int | float | None = None
    maximum: int | float | None = None
    above: int | float | None = None
    below: int | float | None = None
    repeated: bool = False  # the flag is repeated, once per value; a value may contain commas
    convert: Callable[[Any], Any] | None = None  # from the flag's text (or list) to the field's value
    is_nested: bool = False  # the field is a config dataclass, whose settings become flags too


def setting(default: Any, description: str, *, default_factory: Any = MISSING, **details: Any) -> Any:
    """Return a dataclass field with a default; `details` are fields of `Setting`."""
    metadata = {KEY: Setting(description, **details)}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def required(metavar: str, description: str, **details: Any) -> Any:
    """Return a dataclass field without a default; `details` are fields of `Setting`."""
    return field(metadata={KEY: Setting(description, metavar, **details)})


def nested(config: type) -> Any:
    """Return a dataclass field that holds a config; its settings become flags of the same command."""
    return field(default_factory=config, metadata={KEY: Setting("", is_nested=True)})


class SettingError(ValueError):
    """Error of one or more invalid settings: `problems` are pairs of a field name and an error message."""

    def __init__(self, *problems: tuple[str, str]):
        self.problems = problems
        super().__init__("; ".join(f"{name}: {text}" for name, text in problems))


@contextmanager
def concerning(name: str) -> Iterator[None]:
    """Attribute a `ValueError` to the setting `name`; a `SettingError` passes unchanged."""
    try:
        yield
    except SettingError:
        raise
    except ValueError as error:
        raise SettingError((name, str(error))) from error


def setting_fields(config: type) -> dict[str, tuple[Any, Setting, Any]]:
    """Return the type, the `Setting` and the default (or MISSING) of each setting of a dataclass, keyed by name."""
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
    """Return the allowed values: those of a Literal type, else `info.choices`."""
    options = get_args(hint) if get_origin(hint) is Literal else ()
    return tuple(options) or info.choices


def without_none(hint: Any) -> Any:
    """Return the type without `| None`."""
    if isinstance(hint, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    return hint


def find_problems(config: Any) -> list[tuple[str, str]]:
    """Return the name and an error message of every setting of `config` with an invalid value."""
    problems = []
    for name, (hint, info, _) in setting_fields(type(config)).items():
        value, choices = getattr(config, name), choices_of(without_none(hint), info)
        if value is None or info.is_nested:
            continue
        if choices and (unknown := [v for v in (value if isinstance(value, tuple) else (value,)) if v not in choices]):
            problems.append((name, f"expected one of {', '.join(choices)}, got {', '.join(map(repr, unknown))}"))
        maximum = MAX_COUNT if info.maximum is None and without_none(hint) is int else info.maximum
        checks = (
            (info.minimum, "at least", lambda bound, v=value: v >= bound),
            (maximum, "at most", lambda bound, v=value: v <= bound),
            (info.above, "more than", lambda bound, v=value: v > bound),
            (info.below, "less than", lambda bound, v=value: v < bound),
        )
        limits = [(bound, words, holds) for bound, words, holds in checks if bound is not None]
        if limits and not all(holds(bound) for bound, _, holds in limits):
            problems.append((name, _out_of_bounds(value, {words: bound for bound, words, _ in limits})))
    return problems


def _out_of_bounds(value: Any, bounds: dict[str, int | float]) -> str:
    """Return the message about a value; the general maximum is only named for a value above it."""
    named = (f"{words} {bound:g}" for words, bound in bounds.items() if bound != MAX_COUNT or value > 0)
    return f"expected {' and '.join(named)}, got {f'{value:g}' if abs(value) < 1e300 else 'more'}"


def check_settings(config: Any, *more: tuple[str, str]) -> None:
    """Raise one `SettingError` with all problems of `config` and those in `more` (name, message)."""
    if problems := [*find_problems(config), *more]:
        raise SettingError(*problems)
