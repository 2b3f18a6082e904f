"""Conversion between argument dataclasses and flags: each field of a task's dataclass is a flag with a help text."""

import math
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin

from absl import flags

from vtcav_jax.settings import (
    MAX_WORKERS,
    Setting,
    SettingError,
    check_settings,
    choices_of,
    required,
    setting,
    setting_fields,
    without_none,
)

T = TypeVar("T")
COMMON_FLAGS = ("quiet", "log_json", "compile_cache")
VIDEOS_HELP = "source of videos: folder, file, .csv manifest, kinetics:..., tfds:... or worlds:... (see below)"
NUM_WORKERS_HELP = "processes that decode videos; 0: decode in the main process"
TARGET_FORMS = (
    "what to explain, separated by commas: CLASS or HEAD:CLASS, HEAD (the class that the head predicts for each clip),"
    " 'A vs B', 'A or B', STAGE#CHANNEL"
)
TARGETS_HELP = f"{TARGET_FORMS} [default: every head]"
PROCESS_FLAGS = ("coordinator", "num_processes", "process_id")  # not recorded: results do not depend on them


@dataclass(frozen=True)
class CommonArguments:
    """Flags of every task."""

    quiet: bool = setting(False, "print only results, warnings and errors")
    log_json: bool = setting(
        False, "write notes, warnings, errors and progress to stderr, one JSON object per line; results stay on stdout"
    )
    compile_cache: Path | None = setting(
        None,
        "folder of compiled programs, which later commands use again; at most 2 GB  [default: vtcav_jax/compiled in the"
        " user's folder for caches, or JAX_COMPILATION_CACHE_DIR]",
    )


@dataclass(frozen=True, kw_only=True)
class ModelArguments:
    model: str = required(
        "NETWORK",
        "network: a shipped one (worlds_swin, worlds_cnn, ...), the path of a trained or converted one, hf:FOLDER (a"
        " video transformer with config.json and model.safetensors), package.module:factory (a function that returns a"
        " Network; the current folder is searched first), or a preset (video_swin_t_k400, ...: without weights)",
    )
    labels: str | None = setting(
        None,
        "class names in place of the network's: a file with one name per line, or a shipped list (ucf101, kinetics600,"
        " ...); of a network with several heads, verb:FILE,noun:FILE",
    )


@dataclass(frozen=True, kw_only=True)
class LabelTreeArguments:
    label_tree: Path | None = setting(
        None,
        "text file with the groups of classes that --targets can name: one class or group per line, indented below its"
        " group",
    )


@dataclass(frozen=True, kw_only=True)
class VideoArguments:
    videos: str = required("WHERE", VIDEOS_HELP)
    num_workers: int = setting(2, NUM_WORKERS_HELP, minimum=0, maximum=MAX_WORKERS)


@dataclass(frozen=True, kw_only=True)
class OutArguments:
    out: Path = required("DIR", "output folder")


def run_folder(name: str) -> Path:
    """Return the folder of a run; a name without a slash is a folder in runs/."""
    if name in ("", ".", ".."):
        raise ValueError(f"expected a name, or a path with a slash, got {name!r}")
    return Path(name) if "/" in name else Path("runs") / name


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    run: Path = required("NAME", "run folder; a name without a slash is a folder in runs/", convert=run_folder)


@dataclass(frozen=True, kw_only=True)
class ProcessArguments:
    """Flags of tasks whose work several processes share; each of them runs the same command."""

    coordinator: str | None = setting(
        None, "several processes: HOST:PORT of the first one, or auto on a cluster that sets it"
    )
    num_processes: int | None = setting(None, "with --coordinator: how many processes take part", minimum=1)
    process_id: int | None = setting(None, "with --coordinator: index of this process, from 0", minimum=0)


@dataclass(frozen=True, kw_only=True)
class RandomWeightsArguments:
    random_weights: bool = setting(
        False, "use a preset with random weights, to try a command; its results mean nothing"
    )


@dataclass(frozen=True)
class FlagSpec:
    """A flag of a task, with the type, setting and default of its field."""

    name: str
    hint: Any
    info: Setting
    default: Any  # MISSING if the flag is required

    @property
    def text(self) -> str:
        """The help text, with the default if there is one."""
        default_text = ",".join(self.default) if isinstance(self.default, tuple) else self.default
        has_default = self.default not in (None, MISSING, (), "") and not isinstance(self.default, bool)
        return f"{self.info.help}  [default: {default_text}]" if has_default else self.info.help


def flag_specs(arguments: type) -> dict[str, FlagSpec]:
    """Return the flags of an argument dataclass by name, including those of nested configs."""
    specs: dict[str, FlagSpec] = {}
    for name, (hint, info, default) in setting_fields(arguments).items():
        if info.is_nested:
            specs = flag_specs(without_none(hint)) | specs
        else:
            specs[name] = FlagSpec(name, hint, info, default)
    return specs


def define_flags(arguments: type) -> flags.FlagValues:
    """Return the flags of a task as absl flag values, which parse a command's arguments when called."""
    values = flags.FlagValues()
    flags.DEFINE_string("task", None, "name of the task", flag_values=values)
    for spec in (flag_specs(CommonArguments) | flag_specs(arguments)).values():
        _define(spec, values)
    return values


def _define(spec: FlagSpec, values: flags.FlagValues) -> None:
    kind, default = without_none(spec.hint), None if spec.default is MISSING else spec.default
    choices = choices_of(kind, spec.info)
    if spec.info.repeated:
        flags.DEFINE_multi_string(spec.name, list(default or ()), spec.text, flag_values=values)
    elif get_origin(kind) is tuple:
        flags.DEFINE_list(spec.name, list(default or ()), spec.text, flag_values=values)
    elif kind is bool:
        flags.DEFINE_boolean(spec.name, default, spec.text, flag_values=values)
    elif kind is int:
        flags.DEFINE_integer(spec.name, default, spec.text, flag_values=values)
    elif kind is float:
        flags.DEFINE_float(spec.name, default, spec.text, flag_values=values)
    elif choices:
        flags.DEFINE_enum(spec.name, default, list(choices), spec.text, flag_values=values)
    else:
        flags.DEFINE_string(spec.name, None if default is None else str(default), spec.text, flag_values=values)


def parse_arguments(arguments: type[T], values: flags.FlagValues, task: str) -> T:
    """Make the argument dataclass from parsed flags; one error names all missing flags, another all bad values."""
    specs = flag_specs(arguments)
    missing = [spec for spec in specs.values() if spec.default is MISSING and not values[spec.name].value]
    if missing:
        needed = ", ".join(f"--{spec.name}={spec.info.metavar}" for spec in missing)
        raise ValueError(f"{task} needs {needed}; see vtcav {task} --help")
    infinite = [
        (s.name, f"expected a finite number, got {v}") for s, v in _floats(specs, values) if not math.isfinite(v)
    ]
    if infinite:
        raise SettingError(*infinite)
    return _build(arguments, values)


def _floats(specs: dict[str, FlagSpec], values: flags.FlagValues) -> Iterator[tuple[FlagSpec, float]]:
    for spec in specs.values():
        if isinstance(value := values[spec.name].value, float):
            yield spec, value


def _build(arguments: type[T], values: flags.FlagValues) -> T:
    kwargs, problems = {}, []
    for name, (hint, info, default) in setting_fields(arguments).items():
        try:
            kwargs[name] = (
                _build(without_none(hint), values) if info.is_nested else _value(name, hint, info, values, default)
            )
        except SettingError as error:
            problems += error.problems
        except ValueError as error:
            problems.append((name, str(error)))
    if problems:
        raise SettingError(*problems)
    built = arguments(**kwargs)
    check_settings(built)  # argument classes, unlike configs, do not check themselves
    return built


def _value(name: str, hint: Any, info: Setting, values: flags.FlagValues, default: Any) -> Any:
    value = values[name].value
    if value is None:
        return None
    if value == "" and default != "":  # as a path it would be the current folder
        raise ValueError("expected a value, got nothing; omit the flag")
    if info.convert is not None:
        return info.convert(value)
    kind = without_none(hint)
    if kind is Path:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def serialize_flags(values: flags.FlagValues, names: Iterator[str]) -> list[str]:
    """Return the flags as a user would type them, without those that have no value."""
    return [text for name in names if values[name].value is not None and (text := values[name].serialize())]


def flagfile_text(values: flags.FlagValues) -> str:
    """Return all flags of a command with their resolved values as the text of a flagfile."""
    names = (name for name in values if name not in (*COMMON_FLAGS, *PROCESS_FLAGS))
    return "".join(f"{line}\n" for line in serialize_flags(values, names))


def explicit_flags(values: flags.FlagValues, arguments: type, exclude: tuple[str, ...] = ()) -> list[str]:
    """Return the flags given in a command that a task with other `arguments` also has."""
    names = (name for name in flag_specs(arguments) if name in values and name not in exclude)
    return serialize_flags(values, (name for name in names if values[name].present))


def describe_flag_error(error: flags.Error) -> str:
    """Return absl's message about an invalid flag as one sentence."""
    text = re.sub(r"invalid literal for int\(\) with base 10: '.*'", "expected a whole number", str(error))
    text = re.sub(r"could not convert string to float: '.*'", "expected a number", text)
    text = re.sub(r"\('Non-boolean argument to boolean flag', .*\)", "expected true or false", text)
    text = text.replace("ERROR:: Unable to open flagfile", "--flagfile cannot be read")
    return f"{re.sub('^flag --', '--', text).rstrip('. ')}; see --help"
