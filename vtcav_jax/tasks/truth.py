"""--task=truth: every method scored where the cause is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vtcav_jax import models, runs
from vtcav_jax.models import Loaded
from vtcav_jax.progress import progress
from vtcav_jax.report.run_folder import read_rows
from vtcav_jax.tasks import answer, say
from vtcav_jax.tasks.report import report
from vtcav_jax.tcav.cache import fingerprint
from vtcav_jax.tcav.table import write_rows
from vtcav_jax.truth import concept_table, concepts, exact, kept
from vtcav_jax.truth.kernels import kernels
from vtcav_jax.truth.kind import kinds
from vtcav_jax.truth.lineup import DEAR, Entry, lineup
from vtcav_jax.truth.material import Material, material, questions_of
from vtcav_jax.truth.meta import cheap, meta
from vtcav_jax.truth.scoring import CLIPS, SEED, Measured, answered, asked, groups, measure, rows
from vtcav_jax.truth.table import ALL, EXACT, FILE, GATES, METRICS, REFUSED, TRUTH, MetaRow, Refused, Row

FIRST = "small"  # the world of which everything is told


def truth(
    networks: Sequence[str],
    run: Path | None,
    *,
    methods: Sequence[str] = (),
    own: Sequence[str] = (),
    worlds: Sequence[str] = (),
    clips: int = CLIPS,
    seed: int = SEED,
    flags: str = "",
) -> None:
    """Scores `methods` (by default all of the package) and functions of one's `own` on `networks` (by default all that
    ship and answer a question of the worlds), into the folder `run`."""
    if run is None:
        raise ValueError("--task=truth needs --run=NAME, the folder of the run; see --help")
    loaded = {name: models.load(name) for name in dict.fromkeys(networks or models.shipped())}
    if not networks:
        loaded = {name: one for name, one in loaded.items() if questions_of(one)}
    wanted = [w for w in worlds if w != exact.WORLD]
    if wanted and not networks:
        loaded = {name: one for name, one in loaded.items() if answered(one, wanted)} or loaded
    some = {name: wanted if networks else answered(one, wanted) for name, one in loaded.items()}
    questions = {name: asked(one, some[name], name) for name, one in loaded.items()}
    if worlds and set(worlds) <= {exact.WORLD}:
        questions = {}
    lines = {name: lineup(one, methods, own) for name, one in loaded.items()}
    about = {"task": "truth", "clips": clips, "seed": seed, "methods": methods, "own": own, "worlds": worlds}
    folder = runs.open_run(run, about, flags)  # networks may be added
    found: dict[str, list[Measured]] = {name: [] for name in loaded}
    refused: list[Refused] = []
    exact_too = not worlds or exact.WORLD in worlds
    exactly, not_for = wired(next(iter(lines.values())), clips, seed) if exact_too else ([], [])
    refused += not_for
    further: list[Row] = []
    metrics: list[MetaRow] = []
    tested: list[concept_table.Row] = []
    gated = []
    for name, by_world in questions.items():
        for world, ids in by_world.items():
            say(f"{name}: {', '.join(ids)}, {len(lines[name])} rows on {clips} clips")
            line = lines[name] if world == FIRST or methods else tuple(e for e in lines[name] if e.method not in DEAR)
            got = network(folder, name, loaded[name], world, ids, line, clips, seed, not methods)
            found[name] += got.found
            further += got.further
            refused += got.refused
            metrics += got.metrics
            tested += got.concepts
            gated.append(f"{name}, world {world}\n\n{got.gates}\n")
    table = [*exactly, *(row for name, some in found.items() for row in rows(some, name)), *further]
    write_rows(folder / FILE, Row, table)
    write_rows(folder / REFUSED, Refused, list(dict.fromkeys(refused)))
    if metrics:
        write_rows(folder / METRICS, MetaRow, metrics)
    if tested:
        write_rows(folder / concept_table.FILE, concept_table.Row, tested)
    runs.write_text(folder / GATES, "\n".join(gated))
    answer(told(table, refused))
    answer(f"\nall of it: {folder / FILE}")
    report([folder])


@dataclass(frozen=True, eq=False)
class Scored:
    """Of one network and world."""

    found: list[Measured]
    refused: list[Refused]
    gates: str
    further: list[Row]  # of shares of motion, and of pyramids
    metrics: list[MetaRow]
    concepts: list[concept_table.Row]


def network(
    folder: Path,
    name: str,
    loaded: Loaded,
    world: str,
    ids: tuple[str, ...],
    line: Sequence[Entry],
    n: int,
    seed: int,
    everything: bool,
) -> Scored:
    """Of one network and world every row; what is there already is only read."""
    about: Material | None = None
    found: list[Measured] = []
    refused: list[Refused] = []
    key = "-".join((world, *ids, fingerprint(loaded.model)[:8]))
    gate = kept.part(folder, name, key, "gates").with_suffix(".txt")

    def ready() -> Material:
        nonlocal about
        if about is None:
            about = material(loaded, world, ids, n, seed)
            gate.parent.mkdir(parents=True, exist_ok=True)
            runs.write_text(gate, about.gates.table())
        return about

    def made() -> Iterator[int]:
        for group, some in groups(line).items():
            path = kept.part(folder, name, key, group)
            if some[0].function is not None or not path.exists():  # one's own may have changed
                what = ready()  # a network that fails its gates is no method that is not for it
                try:
                    kept.write(path, measure(what, some))
                except ValueError as error:
                    if some[0].function is not None:
                        raise
                    kept.write(path, [], [Refused(some[0].method, name, str(error).splitlines()[0])])
            got, not_for = kept.read(path)
            found.extend(got)
            refused.extend(not_for)
            yield len(some)

    for _ in progress(made(), len(line), f"rows of {name}", size=int):
        pass
    moving, order, named = (
        kept.part(folder, name, key, what).with_suffix(".csv") for what in ("motion", "metrics", "pyramids")
    )
    if everything and not moving.exists():
        write_rows(moving, Row, kinds(ready(), name))
    if everything and not order.exists():
        say(f"{name}: do metrics that know no truth put maps in its order?")
        write_rows(order, MetaRow, meta(ready(), name, cheap(line, found), found))
    if everything and world == FIRST and not named.exists():
        write_rows(named, Row, kernels(ready(), name))
    tests = kept.part(folder, name, key, "concepts").with_suffix(".csv")
    if everything and world == FIRST and not tests.exists():
        say(f"{name}: which concept tests tell what is a cause?")
        write_rows(tests, concept_table.Row, concepts.table(loaded, network=name))
    return Scored(
        found,
        refused,
        gate.read_text(encoding="utf-8"),
        [row for path in (moving, named) for row in read_rows(path, Row)] if everything else [],
        list(read_rows(order, MetaRow)) if everything else [],
        list(read_rows(tests, concept_table.Row)) if everything else [],
    )


def wired(line: Sequence[Entry], clips: int, seed: int) -> tuple[list[Row], list[Refused]]:
    """The hand-wired network, where each voxel's value is known."""
    wanted = [entry for entry in line if exact.applies(entry)]
    found, refused = [], []
    for entry in progress(wanted, len(wanted), "rows of the hand-wired network", size=lambda _: 1):
        try:
            got = exact.exact(entry, clips, seed)
        except ValueError as error:  # what is made for another network may fail on this one
            refused.append(Refused(entry.method, exact.NETWORK, str(error).splitlines()[0]))
            continue
        about = entry.method, got.stage, exact.WORLD, got.forwards, float("nan")
        found.append(Measured(*about, {EXACT: got.parts}))
    return rows(found, exact.NETWORK), refused


def told(table: Sequence[Row], refused: Sequence[Refused]) -> str:
    """The best row of each method, network by network, and what the others must beat."""
    lines = []
    for name in dict.fromkeys(row.network for row in table if row.axis == TRUTH):
        some = [row for row in table if row.network == name and row.axis == TRUTH]
        overall = [row for row in some if row.world == ALL] or some
        best: dict[str, Row] = {}
        for row in sorted(overall, key=lambda row: -row.value):
            best.setdefault(row.method, row)
        lines += [
            "",
            f"{name}: mean over axes and questions; 0 is chance, 1 all there is to get; each at its best stage",
        ]
        lines.append(f"  {'method':26}{'stage':20}{'truth':>22}{'forwards':>10}{'s a clip':>10}")
        for row in best.values():
            value = f"{row.value:+.3f} ({row.low:+.3f} {row.high:+.3f})"
            lines.append(f"  {row.method:26.26}{row.stage:20.20}{value:>22}{row.forwards:>10}{row.seconds:>10.2g}")
        if where := [r for r in refused if r.network == name]:
            lines.append(f"  not for this network: {', '.join(dict.fromkeys(r.method for r in where))}")
    return "\n".join(lines[1:])
