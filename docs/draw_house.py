"""Draw docs/house.svg from the folders and imports of the source, and docs/threads.svg.

Run it with ``make pictures``. It needs nothing but Python, and the same source always gives
the same files, which a test compares with the committed ones.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
SOURCE = DOCS.parent / "src" / "daebus"

WIDTH = 900

# Every room from the top of the house to the bottom, with its place in the picture: the
# column of a floor, and the floors of a column. Imports go down this list only.
FLOORS = (
    (("",),),
    (("tasks",), ("monitoring",), ("emitter",), ("client",)),
    (
        (
            "websocket",
            "websocket/api",
            "websocket/cluster",
            "websocket/admission",
            "websocket/messages",
            "websocket/clients",
            "websocket/topics",
            "websocket/topics/persistence",
            "websocket/topics/shared",
            "websocket/connection",
            "websocket/protocol",
        ),
        ("http", "http/serving", "http/site", "http/protocol"),
    ),
    (("backplane", "backplane/redis"),),
    (("server", "server/sockets", "server/threads"),),
    (("checks",), ("interrupts",), ("data",)),
)

# Modules of the top that every room may import, and so lie below all of them.
GROUND = ("arguments", "depth", "errors", "origins", "waits")

# Every ink has a contrast of 4.5 and more on every paper that it stands on; a test holds it.
INK, SOFT, LINE = "#1b2330", "#46505f", "#8a94a3"
PAPER = "#ffffff"
TINTS = {
    "": ("#eeeaf8", "#6a55a8"),
    "tasks": ("#f7eef0", "#a04a62"),
    "monitoring": ("#f7eef0", "#a04a62"),
    "client": ("#f7eef0", "#a04a62"),
    "emitter": ("#f7eef0", "#a04a62"),
    "websocket": ("#e8f1fb", "#2d6cad"),
    "http": ("#e9f5ec", "#2f7d4a"),
    "backplane": ("#f7eef0", "#a04a62"),
    "server": ("#fbf3e2", "#8a5d12"),
    "checks": ("#eff0f2", "#5c6572"),
    "interrupts": ("#f3eee9", "#7a5a3c"),
    "data": ("#f3eef7", "#7a4a99"),
    "ground": ("#eff0f2", "#5c6572"),
}

MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Verdana, sans-serif"


# --- what the source says -------------------------------------------------------------


@dataclass
class Room:
    """A folder of the source: what it is for, what is in it, and what that imports.

    Attributes:
        above: modules that it imports out of the folder which it lies in.
    """

    name: str
    purpose: str = ""
    modules: list[str] = field(default_factory=list)
    rooms: set[str] = field(default_factory=set)
    above: set[str] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)


def read_rooms() -> dict[str, Room]:
    """Return the rooms of the source by name, ``""`` for the top."""
    rooms: dict[str, Room] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.parent.relative_to(SOURCE).as_posix().removeprefix(".")
        room = rooms.setdefault(name, Room(name))
        module = ast.parse(path.read_text(encoding="utf-8"))
        if path.name == "__init__.py":
            text = (ast.get_docstring(module) or "").partition("\n\n")[0].replace("`", "")
            room.purpose = " ".join(text.split()).partition(". ")[0].rstrip(".")
        else:
            room.modules.append(path.stem)
            for target in imports(module, path):
                ours = target.removeprefix("daebus.")
                if ours == target:
                    room.packages.add(target)
                elif ours not in GROUND:
                    other = room_of(ours)
                    if other and name.startswith(f"{other}/"):
                        room.above.add(ours.rpartition(".")[2])
                    elif other != name:
                        room.rooms.add(other)
    unknown = rooms.keys() - {name for floor in FLOORS for column in floor for name in column}
    if unknown:
        raise SystemExit(f"no place for {sorted(unknown)}; add it to FLOORS of {__file__}")
    return rooms


def imports(module: ast.Module, path: Path) -> Iterator[str]:
    """Yield what a module imports: modules of ours in full, of packages the first name."""
    package = ["daebus", *path.parent.relative_to(SOURCE).parts]
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from outside(alias.name)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from outside(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            folder = SOURCE.joinpath(*(part for part in base[1:] if part))
            for alias in node.names:
                known = (folder / f"{alias.name}.py").exists()
                yield ".".join(part for part in [*base, alias.name if known else ""] if part)


def outside(name: str) -> Iterator[str]:
    """Yield the package of a module that belongs neither to us nor to Python."""
    package = name.partition(".")[0]
    if package not in sys.stdlib_module_names and package != "daebus":
        yield package


def room_of(module: str) -> str:
    """Return the folder of a module of ours, as a path below the source."""
    folder = module.replace(".", "/")
    return folder if (SOURCE / folder).is_dir() else folder.rpartition("/")[0]


def told(room: Room) -> str:
    """Return what a room imports, as short as its neighbours know it."""
    side = room.name.partition("/")[0]
    names = sorted(room.above)
    for other in (name for floor in FLOORS for column in floor for name in column):
        if other not in room.rooms:
            continue
        if other == "":
            name = "app"
        elif other.partition("/")[0] == side:
            name = other.rpartition("/")[2]
        elif room.name == "":
            name = other.partition("/")[0]
        else:
            name = "server" if other.startswith("server") else other
        if name not in names:
            names.append(name)
    names += sorted(name.replace("_", "-") for name in room.packages)
    return f"imports {', '.join(names)}" if names else "imports nothing but the ground"


# --- drawing --------------------------------------------------------------------------


class Canvas:
    """Lines of SVG, from back to front."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, edge: str, round_: int = 6
    ) -> None:
        """Draw a rectangle with round corners."""
        self.lines.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round_}" '
            f'fill="{fill}" stroke="{edge}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 12,
        *,
        bold: bool = False,
        mono: bool = False,
        ink: str = INK,
        anchor: str = "start",
        turn: int = 0,
    ) -> None:
        """Write one line; ``y`` is that of its base."""
        style = f' font-family="{MONO}"' if mono else ""
        style += ' font-weight="600"' if bold else ""
        style += f' text-anchor="{anchor}"' if anchor != "start" else ""
        style += f' transform="rotate({turn} {x:g} {y:g})"' if turn else ""
        self.lines.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{ink}"{style}>'
            f"{escape(text)}</text>"
        )

    def arrow(self, points: Iterable[tuple[float, float]], *, both: bool = False) -> None:
        """Draw a line through the points, with a head at its end."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        start = ' marker-start="url(#head)"' if both else ""
        self.lines.append(
            f'<polyline points="{path}" fill="none" stroke="{SOFT}" stroke-width="1.4"'
            f'{start} marker-end="url(#head)"/>'
        )

    def svg(self, height: float, title: str) -> str:
        """Return the whole picture."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
            f'width="{WIDTH}" height="{height:g}" font-family="{SANS}" role="img">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" '
            f'fill="{SOFT}"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{height:g}" fill="{PAPER}"/>',
        )
        return "\n".join([*head, *self.lines, "</svg>", ""])


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Cut a text into lines that fit; letters are taken to be a little wider than most are."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and len(longer) * size * 0.54 > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line] if line else lines


PILL, GAP, PAD = 24.0, 6.0, 12.0


def pill_rows(modules: list[str], width: float) -> list[list[tuple[str, float]]]:
    """Lay modules out in rows; each comes with its width."""
    rows: list[list[tuple[str, float]]] = [[]]
    used = 0.0
    for name in modules:
        size = len(name) * 7.3 + 16
        if rows[-1] and used + size > width:
            rows.append([])
            used = 0.0
        rows[-1].append((name, size))
        used += size + GAP
    return [row for row in rows if row]


def draw_room(
    canvas: Canvas,
    room: Room,
    at: tuple[float, float],
    width: float,
    *,
    title: str,
    nested: bool = False,
) -> float:
    """Draw a room without what is below it; return its height."""
    x, y = at
    fill, edge = TINTS[room.name.partition("/")[0]]
    inner = width - 2 * PAD
    purpose = wrapped(room.purpose, inner, 12)
    note_lines = wrapped(told(room), inner, 11.5) if room.name != "ground" else []
    rows = pill_rows(room.modules, inner)
    height = 26 + 16 * len(purpose) + 8 + (PILL + GAP) * len(rows) + 15 * len(note_lines) + 8
    canvas.box(x, y, width, height, PAPER if nested else fill, edge)
    line = y + 21
    canvas.text(x + PAD, line, title, 14, bold=True, mono=True, ink=edge)
    for text in purpose:
        line += 16
        canvas.text(x + PAD, line, text, 12)
    line += 10
    for row in rows:
        left = x + PAD
        for name, size in row:
            canvas.box(left, line, size, PILL, fill if nested else PAPER, LINE, 12)
            canvas.text(left + size / 2, line + 16, name, 12, mono=True, anchor="middle")
            left += size + GAP
        line += PILL + GAP
    line -= 2
    for text in note_lines:
        line += 15
        canvas.text(x + PAD, line, text, 11.5, ink=SOFT)
    return height


def draw_column(
    canvas: Canvas, rooms: list[Room], at: tuple[float, float], width: float, least: float = 0.0
) -> float:
    """Draw a room and those inside of it, one below the other.

    Args:
        canvas: to draw on.
        rooms: the outer one first.
        at: the upper left corner.
        width: of the outer one.
        least: height that it has at least.

    Returns:
        The height.
    """
    x, y = at
    first, *inside = rooms
    content = Canvas()
    height = draw_room(content, first, at, width, title=f"{first.name or 'daebus'}/")
    del content.lines[0]  # its box, which is drawn around all of them instead
    for room in inside:
        title = room.name.rpartition("/")[2] + "/"
        place = (x + PAD, y + height + 2)
        height += 8 + draw_room(content, room, place, width - 2 * PAD, title=title, nested=True)
    height = max(least, height + (6 if inside else 0))
    canvas.box(x, y, width, height, *TINTS[first.name])
    canvas.lines += content.lines
    return height


def house() -> str:
    """Return the picture of the rooms as SVG."""
    rooms = read_rooms()
    rooms[""].modules = [name for name in rooms[""].modules if name not in GROUND]
    canvas = Canvas()
    left, right, y, space = 44.0, WIDTH - 12.0, 12.0, 14.0
    for floor in FLOORS:
        columns = [[rooms[name] for name in column if name in rooms] for column in floor]
        weights = [3.0 if column[0].name == "websocket" else 2.0 for column in columns]
        free = right - left - space * (len(columns) - 1)
        widths = [round(free * weight / sum(weights)) for weight in weights]
        tallest = max(
            draw_column(Canvas(), column, (left, y), width)
            for column, width in zip(columns, widths, strict=True)
        )
        x = left
        for column, width in zip(columns, widths, strict=True):
            draw_column(canvas, column, (x, y), width, tallest)
            x += width + space
        y += tallest + space
    ground = Room("ground", "What every room may import", list(GROUND))
    y += draw_room(canvas, ground, (left, y), right - left, title="the ground")
    canvas.arrow([(22, 16), (22, y - 4)])
    canvas.text(16, y / 2, "imports go down only", 12, ink=SOFT, anchor="middle", turn=-90)
    return canvas.svg(y + 12, "The rooms of daebus, their modules and what they import")


# --- threads --------------------------------------------------------------------------


@dataclass(frozen=True)
class Thread:
    """A kind of thread, as in the table of docs/design.rst, and its place in the picture."""

    name: str
    count: str
    does: str
    column: int
    row: int
    yours: bool = False  # it runs code of the program


THREADS = (
    Thread("daebus-accept", "1", "accepts; keeps whoever has not sent a whole request", 0, 0),
    Thread("daebus-tls-N", "up to 2, with TLS", "computes handshakes, step by step", 0, 1),
    Thread("daebus-minder", "1", "goes on with writes, keeps every deadline", 0, 2),
    Thread("daebus-http-N", "up to workers", "answers one request: your view", 1, 0, True),
    Thread(
        "daebus-ws-ID", "1 for each WebSocket", "reads it, runs its handlers and hooks", 1, 1, True
    ),
    Thread("daebus-ws-parked", "up to 64, for 5 s", "waits for the next WebSocket", 1, 2),
    Thread("daebus-loop", "0 or 1", "runs async views and handlers", 2, 0, True),
    Thread("daebus-job-N", "up to background_workers", "runs a background handler", 2, 1, True),
    Thread("daebus-hook-N", "up to 2", "runs hooks about slow clients and handlers", 2, 2, True),
    Thread("daebus-presence-N", "up to 1", "runs on_presence hooks", 1, 4, True),
    Thread(
        "daebus-cluster-N",
        "up to 1, with a backplane",
        "runs on_join hooks for other nodes",
        2,
        6,
        True,
    ),
    Thread("daebus-memory", "1 for each MemoryBackplane", "joins apps in tests", 1, 5),
    Thread("daebus-pipe-NAME", "1 for each pipe", "reads a queue for a topic", 2, 4),
    Thread("daebus-persist-NAME", "1 for each file", "writes the topics that are kept", 0, 4),
    Thread("daebus-redis-out", "0 or 1, and 1 for each Emitter", "sends to Redis, pipelined", 1, 7),
    Thread("daebus-redis-in", "1 for each server of Redis", "listens to Redis", 2, 7),
    Thread("daebus-background-NAME", "1 for each", "calls a function now and then", 0, 3, True),
    Thread("daebus-thread-NAME", "1 for each", "runs a function all the time", 1, 3, True),
    Thread("daebus-stop", "0 or 1", "a stop beside run() or the loop", 2, 3),
    Thread("daebus-client-NAME", "up to 3 for each Client", "talks to another app", 0, 5, True),
    Thread("another server's", "as many as it has", "a WebSocket of app.wsgi each", 1, 6, True),
)

# Drawn with them, and no thread of ours.
HOST = Thread("your threads", "any", "send and broadcast; wait for no client", 0, 6, True)

LEFTS, WIDE, TALL = (116.0, 408.0, 696.0), 192.0, 82.0
TOPS = (46.0, 166.0, 286.0, 426.0, 526.0, 626.0, 726.0, 826.0)


def threads() -> str:
    """Return the picture of the threads as SVG."""
    canvas = Canvas()
    own, ours = TINTS["http"], TINTS["websocket"]
    for x, (fill, edge), text in (
        (LEFTS[0], own, "runs your views, handlers, hooks or functions"),
        (LEFTS[1] + 30, ours, "does not"),
    ):
        canvas.box(x, 14, 16, 16, fill, edge, 4)
        canvas.text(x + 22, 26, text, 12)
    canvas.box(12, TOPS[0], 62, TOPS[2] + TALL - TOPS[0], *TINTS["ground"])
    canvas.text(43, (TOPS[0] + TOPS[2] + TALL) / 2 + 4, "clients", 13, bold=True, anchor="middle")
    for thread in (*THREADS, HOST):
        x, y = LEFTS[thread.column], TOPS[thread.row]
        fill, edge = own if thread.yours else ours
        canvas.box(x, y, WIDE, TALL, fill, edge)
        canvas.text(x + 9, y + 21, thread.name, 13, bold=True, mono=True, ink=edge)
        canvas.text(x + 9, y + 39, thread.count, 11.5, ink=SOFT)
        for number, line in enumerate(wrapped(thread.does, WIDE - 14, 12)):
            canvas.text(x + 9, y + 56 + 15 * number, line, 12)
    draw_ways(canvas)
    for row, lines in ((3, ("beside", "the server")), (6, ("not made", "by daebus"))):
        for number, line in enumerate(lines):
            canvas.text(12, TOPS[row] + 21 + 16 * number, line, 12, ink=SOFT)
    return canvas.svg(TOPS[-1] + TALL + 14, "The threads of daebus, and what they hand over")


def draw_ways(canvas: Canvas) -> None:
    """Draw what goes from thread to thread."""
    a, b, c = LEFTS
    up, mid, low = (top + TALL / 2 for top in TOPS[:3])
    end_a, end_b, below = a + WIDE, b + WIDE, TOPS[2] + TALL + 22
    between = end_a + 18
    canvas.arrow([(74, up), (a, up)])
    canvas.arrow([(74, low), (a, low)], both=True)
    canvas.arrow([(a + 50, TOPS[0] + TALL), (a + 50, TOPS[1])], both=True)
    canvas.arrow([(end_a, up - 10), (b, up - 10)], both=True)
    canvas.arrow([(end_a, up + 20), (between, up + 20), (between, mid - 10), (b, mid - 10)])
    canvas.arrow([(end_a, low), (between, low), (between, mid + 20), (b, mid + 20)])
    canvas.arrow([(b + 50, TOPS[1] + TALL), (b + 50, TOPS[2])], both=True)
    canvas.arrow([(end_b, up - 10), (c, up - 10)])
    canvas.arrow([(end_b, mid - 10), (end_b + 26, mid - 10), (end_b + 26, up + 20), (c, up + 20)])
    canvas.arrow([(end_b, mid + 20), (c, mid + 20)])
    canvas.arrow(
        [(a + 50, TOPS[2] + TALL), (a + 50, below), (c + 50, below), (c + 50, TOPS[2] + TALL)]
    )
    for x, y, text in (
        (95, up - 7, "new"),
        (95, low - 7, "slow"),
        (a + 92, TOPS[1] - 15, "handshakes"),
        ((end_a + b) / 2, up - 17, "requests"),
        ((between + b) / 2, mid - 17, "upgrades"),
        ((between + b) / 2, mid + 35, "reads for it"),
        ((between + b) / 2, mid + 49, "while busy"),
        (b + 90, TOPS[2] - 15, "next client"),
        ((end_b + c) / 2, up - 17, "async views"),
        ((end_b + c) / 2 + 12, mid + 3, "handlers"),
        ((b + end_b) / 2, below - 7, "notices"),
    ):
        canvas.text(x, y, text, 11.5, ink=SOFT, anchor="middle")


def main() -> None:
    """Write both pictures."""
    for name, picture in (("house.svg", house()), ("threads.svg", threads())):
        (DOCS / name).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
