"""Addresses of the server and their answers; all names in requests are looked up in tables, none is a path."""

import json
import math
from collections.abc import Callable
from importlib.resources import files
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vtcav_jax.assets import read_asset
from vtcav_jax.concepts.review.page import OVERVIEW_KINDS
from vtcav_jax.console import warn
from vtcav_jax.serve.clip_lists import ClipFilter, clip_page, similar_clips
from vtcav_jax.serve.clip_tables import ClipChoice
from vtcav_jax.serve.clip_views import ClipView, job_state
from vtcav_jax.serve.films import CONCEPT_SIDE, MAX_CONCEPT_FRAMES, FilmPicture
from vtcav_jax.serve.network_session import BusyError
from vtcav_jax.serve.review_store import ReviewChange
from vtcav_jax.serve.workspace import Workspace

T = TypeVar("T")
MAX_BODY_BYTES = 8_000_000
MAX_TEXT = 2000  # of one value in a request
JOB_WAIT_SECONDS = 5.0
MAX_WAITING = 48  # requests that wait for the network; more wait for these
ASSET_TYPES = {"css": "text/css", "js": "text/javascript"}
PAGE_ASSETS = tuple(
    sorted(
        path.name for path in files("vtcav_jax.serve").joinpath("assets").iterdir() if not path.name.endswith("html")
    )
)
THEME = "theme.css"  # of the report pages


class Query:
    """Values of a request, each with its type; ValueError for one that is missing or not of that type."""

    def __init__(self, values: dict[str, Any]):
        self._values = values

    def text(self, name: str, default: str | None = None) -> str:
        value = self._values.get(name, default)
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise ValueError(f"expected {name} as text of at most {MAX_TEXT} characters")
        return value

    def choice(self, name: str, choices: tuple[T, ...]) -> T:
        """Return one of `choices`, by default the first."""
        value = self._values.get(name) or choices[0]
        if (i := next((i for i, choice in enumerate(choices) if choice == value), None)) is None:
            raise ValueError(f"expected {name} as one of {', '.join(map(str, choices))}")
        return choices[i]

    def count(self, name: str) -> int:
        try:
            value = int(self._values.get(name) or 0)
        except (TypeError, ValueError):
            value = -1
        if not 0 <= value < 10**9:
            raise ValueError(f"expected {name} as a whole number of at least 0")
        return value

    def number(self, name: str) -> float | None:
        """Return a finite number, None without one."""
        text = self._values.get(name)
        if text in (None, ""):
            return None
        try:
            value = float(text)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"expected {name} as a number")
        return value

    def items(self, name: str) -> list[Any]:
        value = self._values.get(name)
        if not isinstance(value, list):
            raise ValueError(f"expected {name} as a list")
        return value


def without_nan(value: Any) -> Any:
    """Return the value with None for numbers that JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, (list, tuple)) else value


def answer_json(value: Any, status: int = 200) -> Response:
    return JSONResponse(without_nan(value), status)


def answer_picture(picture: FilmPicture) -> Response:
    """Return a picture with its layout in a header."""
    layout = {
        "frames": picture.n_frames,
        "columns": picture.columns,
        "height": picture.side[0],
        "width": picture.side[1],
        "times": picture.times,
    }
    headers = {"X-Film": json.dumps(layout), "Cache-Control": "private, max-age=60"}
    return Response(picture.data, media_type=picture.mime, headers=headers)


Handler = Callable[[Workspace, Query], Response]


def handle(workspace: Workspace, handler: Handler, limiter: CapacityLimiter | None) -> Callable[[Request], Any]:
    """Return the endpoint of a handler, which runs in a thread of the limiter's; errors become one sentence."""

    async def endpoint(request: Request) -> Response:
        try:
            values: dict[str, Any] = dict(request.query_params)
            if request.method == "POST":
                values = parse_json(await read_body(request))
            return await to_thread.run_sync(handler, workspace, Query(values), limiter=limiter)
        except LookupError as error:
            return answer_json({"error": str(error.args[0] if error.args else error)}, 404)
        except BusyError as error:
            return answer_json({"error": str(error)}, 503)
        except (ValueError, OSError) as error:
            return answer_json({"error": str(error)}, 400)
        except Exception as error:
            warn(f"internal error at {request.url.path}: {type(error).__name__}: {error}")
            return answer_json({"error": f"internal error: {type(error).__name__}: {error}"}, 500)

    return endpoint


def parse_json(body: bytes) -> dict[str, Any]:
    """Return a JSON object; ValueError for anything else, also for one that is nested too deeply."""
    try:
        values = json.loads(body)
    except RecursionError:
        values = None
    if not isinstance(values, dict):
        raise ValueError("expected a JSON object")
    return values


async def read_body(request: Request) -> bytes:
    """Return the body of a request; ValueError for a large one before it is all in memory."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"expected a body of at most {MAX_BODY_BYTES} bytes")
    return bytes(body)


def clip_choice(query: Query) -> ClipChoice:
    return ClipChoice(
        query.text("target", ""),
        query.text("stage", ""),
        query.text("vector", ""),
        query.text("map", ""),
        query.text("measure", ""),
    )


def clip_view(workspace: Workspace, query: Query) -> ClipView:
    run = workspace.run(query.text("run"))
    return ClipView(workspace, run, query.choice("task", run.tasks), query.text("clip"), query.count("part"))


def list_clips(workspace: Workspace, query: Query) -> Response:
    run = workspace.run(query.text("run"))
    clip_filter = ClipFilter(
        query.choice("sort", ("down", "up", "name")),
        query.number("min"),
        query.number("max"),
        query.choice("answers", ("all", "right", "wrong")),
        query.text("text", ""),
        query.count("page"),
    )
    return answer_json(clip_page(run.table(query.choice("task", run.tasks)), clip_choice(query), clip_filter))


def list_similar(workspace: Workspace, query: Query) -> Response:
    run = workspace.run(query.text("run"))
    table = run.table(query.choice("task", run.tasks))
    return answer_json(similar_clips(table, clip_choice(query), query.text("clip"), query.count("part")))


def list_tests(workspace: Workspace, query: Query) -> Response:
    return answer_json({"tests": workspace.tests(query.text("run"), query.text("target"))})


def show_facts(workspace: Workspace, query: Query) -> Response:
    choice = clip_choice(query)
    return answer_json(clip_view(workspace, query).facts(choice.target, choice.stage, choice.vector))


def show_curves(workspace: Workspace, query: Query) -> Response:
    choice = clip_choice(query)
    map_target = query.text("mapTarget", choice.target)
    return answer_json(
        clip_view(workspace, query).curves(choice.target, choice.stage, choice.vector, map_target, choice.map)
    )


def show_overlay(workspace: Workspace, query: Query) -> Response:
    motion_only = query.choice("part_of_map", ("all", "motion")) == "motion"
    return answer_picture(
        clip_view(workspace, query).overlay(query.text("mapTarget"), query.text("map"), motion_only=motion_only)
    )


def show_reproduction(workspace: Workspace, query: Query) -> Response:
    choice = clip_choice(query)
    return answer_json(
        clip_view(workspace, query).reproduction(
            choice.target,
            choice.stage,
            choice.vector,
            query.text("mapTarget", choice.target),
            choice.map,
            query.number("step") or 0.0,
        )
    )


def steer_clip(workspace: Workspace, query: Query) -> Response:
    steps = [float(step) for step in query.items("steps") if isinstance(step, (int, float))]
    choice = clip_choice(query)
    return answer_json(clip_view(workspace, query).steer(choice.target, choice.stage, choice.vector, steps))


def request_map(workspace: Workspace, query: Query) -> Response:
    view = clip_view(workspace, query)
    job = view.request_map(query.text("mapTarget"), query.text("method"), query.text("mapStage", ""))
    return answer_json({"job": job, **job_state(workspace, job, JOB_WAIT_SECONDS)})


def list_methods(workspace: Workspace, query: Query) -> Response:
    run = workspace.run(query.text("run"))
    return answer_json(workspace.methods(run.network(query.choice("task", run.tasks))))


def list_concepts(workspace: Workspace, query: Query) -> Response:
    store = workspace.review(query.text("folder"))
    return answer_json({"folder": str(store.concepts.folder), "concepts": store.concepts.concepts()})


def list_concept_clips(workspace: Workspace, query: Query) -> Response:
    store = workspace.review(query.text("folder"))
    return answer_json(store.concepts.page(query.text("concept"), query.count("page")))


def show_concept_film(workspace: Workspace, query: Query) -> Response:
    concepts, file = workspace.review(query.text("folder")).concepts, query.text("file")
    if file not in concepts.clips:
        raise LookupError(f"there is no concept clip {file}")
    films = workspace.films
    return answer_picture(
        films.picture(
            (concepts.name, file), lambda: films.concept_clip(concepts.clips[file]), CONCEPT_SIDE, MAX_CONCEPT_FRAMES
        )
    )


def show_overview(workspace: Workspace, query: Query) -> Response:
    overviews = workspace.review(query.text("folder")).concepts.overviews
    if (path := overviews.get(query.text("concept"))) is None:
        raise LookupError("there is no overview of this concept")
    return Response(path.read_bytes(), media_type=OVERVIEW_KINDS[path.suffix][0])


def show_reviews(workspace: Workspace, query: Query) -> Response:
    store = workspace.review(query.text("folder"))
    if (revision := query.text("revision", "")) and revision == store.revision():
        return answer_json({"revision": revision})
    return answer_json(store.state())


def save_reviews(workspace: Workspace, query: Query) -> Response:
    changes = []
    for item in query.items("changes"):
        values = item if isinstance(item, dict) else {}
        file, concept = values.get("file", ""), values.get("concept", "")
        verdict, name = values.get("verdict"), values.get("name")
        is_text = isinstance(file, str) and isinstance(concept, str)
        if not (is_text and (file or concept) and isinstance(verdict, str | None) and isinstance(name, str | None)):
            raise ValueError("expected each change as an object with file or concept, and verdict or name, as text")
        changes.append(ReviewChange(file, concept, verdict, name))
    return answer_json(workspace.review(query.text("folder")).save(changes))


GET_HANDLERS: dict[str, Handler] = {
    "workspace": lambda workspace, _: answer_json(workspace.describe()),
    "ping": lambda workspace, _: answer_json({}),
    "clips": list_clips,
    "similar": list_similar,
    "tests": list_tests,
    "facts": show_facts,
    "curves": show_curves,
    "film": lambda workspace, query: answer_picture(clip_view(workspace, query).film()),
    "thumbnail": lambda workspace, query: answer_picture(clip_view(workspace, query).thumbnail()),
    "overlay": show_overlay,
    "reproduce": show_reproduction,
    "methods": list_methods,
    "job": lambda workspace, query: answer_json(job_state(workspace, query.text("job"), JOB_WAIT_SECONDS)),
    "concepts": list_concepts,
    "concept_clips": list_concept_clips,
    "concept_film": show_concept_film,
    "overview": show_overview,
    "reviews": show_reviews,
}
NETWORK_HANDLERS = ("steer", "maps", "methods", "job")  # they wait for the network, on threads of their own
POST_HANDLERS: dict[str, Handler] = {"steer": steer_clip, "maps": request_map, "reviews": save_reviews}


async def show_page(request: Request) -> Response:
    return Response(read_asset("vtcav_jax.serve", "page.html"), media_type="text/html")


async def show_asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in (*PAGE_ASSETS, THEME):
        return answer_json({"error": "there is no such file"}, 404)
    package = "vtcav_jax.report" if name == THEME else "vtcav_jax.serve"
    return Response(read_asset(package, name), media_type=ASSET_TYPES[name.rsplit(".", 1)[1]])


def make_routes(workspace: Workspace) -> list[Route]:
    waiting = CapacityLimiter(MAX_WAITING)

    def limiter_of(name: str) -> CapacityLimiter | None:
        return waiting if name in NETWORK_HANDLERS else None

    return [
        Route("/", show_page),
        Route("/assets/{name}", show_asset),
        *(
            Route(f"/api/{name}", handle(workspace, handler, limiter_of(name)))
            for name, handler in GET_HANDLERS.items()
        ),
        *(
            Route(f"/api/{name}", handle(workspace, handler, limiter_of(name)), methods=["POST"])
            for name, handler in POST_HANDLERS.items()
        ),
    ]
