"""The static folder: what it serves, and that nobody leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import Raw

BIG = bytes(range(256)) * 12_000  # more than any socket buffer takes at once


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "static"
    (folder / "sub").mkdir(parents=True)
    (folder / "index.html").write_text("<p>start</p>")
    (folder / "sub" / "index.html").write_text("<p>sub</p>")
    (folder / "app.js").write_text("let a = 1")
    (folder / "with space.txt").write_text("space")
    (folder / "big.bin").write_bytes(BIG)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "link").symlink_to(tmp_path / "secret.txt")
    return folder


@pytest.fixture
def client(serve: Serve, raw: OpenRaw, folder: Path) -> Raw:
    app = serve(static=folder)
    app.route("/app.json")(lambda req: {"view": True})
    app.start()
    return raw(app)


def test_files(client: Raw) -> None:
    answer = client.get("/")
    assert (answer.status, answer.body) == (200, b"<p>start</p>")
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert client.get("/sub/").body == b"<p>sub</p>"
    assert client.get("/with%20space.txt").body == b"space"
    assert client.get("/empty.txt").header("content-length") == "0"
    script = client.get("/app.js?v=1")
    assert (script.body, script.header("content-length")) == (b"let a = 1", "9")
    assert (script.header("content-type") or "").startswith("text/javascript")
    assert client.get("/app.json").json == {"view": True}


def test_a_large_file(client: Raw) -> None:
    for _ in range(2):  # and the connection goes on behind it
        answer = client.get("/big.bin")
        assert (answer.status, len(answer.body)) == (200, len(BIG))
        assert answer.body == BIG
    assert client.get("/big.bin", method="HEAD").header("content-length") == str(len(BIG))
    assert client.get("/", version="1.0").body == b"<p>start</p>"


def test_what_is_not_there(client: Raw) -> None:
    for path in ("/nope", "/sub/nope", "/nope/", "/app.js/"):
        answer = client.get(path)
        assert (answer.status, answer.code) == (404, "not_found")
    answer = client.post("/app.js", b"")
    assert answer.status == 404


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/sub/..%2f..%2fsecret.txt",
        "//../secret.txt",
        "/./../secret.txt",
        "/..%00/secret.txt",
        "/secret.txt%00.html",
        "/index.html%00",
        "http://x/../secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/....//secret.txt",
        "/%252e%252e/secret.txt",
    ],
)
def test_nobody_leaves_the_folder(client: Raw, target: str) -> None:
    answer = client.get(target)
    assert (answer.status, answer.code) in ((400, "bad_request"), (404, "not_found"))
    assert b"secret" not in answer.body.replace(target.encode(), b"")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/.env", 404),
        ("/.git/config", 404),
        ("/sub/.htaccess", 404),
        ("/%2eenv", 404),
        ("/.well-known/security.txt", 200),
        ("/.well-known/.secret", 404),
        ("/sub/.well-known/x", 404),
        ("/..well", 404),
        ("/a.txt", 200),
    ],
)
def test_files_with_a_dot_before_their_name_are_not_shown(
    client: Raw, folder: Path, path: str, status: int
) -> None:
    file = folder / path[1:].replace("%2e", ".")
    file.parent.mkdir(exist_ok=True)
    file.write_text("file")
    assert client.get(path).status == status


def test_a_file_has_one_path(client: Raw) -> None:
    assert client.get("/sub/index.html").status == 200
    for path in ("//sub/index.html", "/sub//index.html", "/sub//"):
        assert client.get(path).status in (308, 404)


def test_an_absolute_path_does_not_leave_either(client: Raw, folder: Path) -> None:
    secret = str(folder.parent / "secret.txt")
    for target in (secret, "/" + secret, "//" + secret):
        assert client.get(target).status == 404


def test_a_file_is_not_sent_again(client: Raw) -> None:
    first = client.get("/app.js")
    etag, modified = first.header("etag"), first.header("last-modified")
    assert etag
    assert modified
    for header in (f"If-None-Match: {etag}", f"If-Modified-Since: {modified}"):
        answer = client.get("/app.js", header)
        assert (answer.status, answer.header("etag")) == (304, etag)
        assert answer.header("content-length") is None
    assert client.get("/app.js", 'If-None-Match: "other"').body == b"let a = 1"


def test_a_part_of_a_file(client: Raw) -> None:
    answer = client.get("/big.bin", "Range: bytes=256-511")
    assert (answer.status, answer.body) == (206, bytes(range(256)))
    assert answer.header("content-range") == f"bytes 256-511/{len(BIG)}"
    answer = client.get("/big.bin", "Range: bytes=-1000000")
    assert answer.body == BIG[-1000000:]
    answer = client.get("/app.js", "Range: bytes=100-")
    assert (answer.status, answer.code) == (416, "requested_range_not_satisfiable")
    assert client.get("/app.js").status == 200


def test_heads_of_parts(client: Raw) -> None:
    head = client.get("/big.bin", "Range: bytes=0-9", method="HEAD")  # HEAD knows no ranges
    assert (head.status, head.header("content-length")) == (200, str(len(BIG)))
    etag = client.get("/app.js").header("etag")
    head = client.get("/app.js", f'If-None-Match: "a", {etag}', method="HEAD")
    assert (head.status, head.header("etag")) == (304, etag)
    assert client.get("/app.js").status == 200


@pytest.mark.parametrize(
    "wanted",
    ["bytes=0-1,4-5", "bytes=0-1, 4-", "lines=1-2", "bytes", "bytes=", "bytes=-", "bytes=a-b"],
)
def test_several_ranges_or_strange_ones_are_the_whole_file(client: Raw, wanted: str) -> None:
    answer = client.get("/app.js", f"Range: {wanted}")
    assert (answer.status, answer.body) == (200, b"let a = 1")
    assert answer.header("accept-ranges") == "bytes"


def test_a_part_only_of_the_file_that_is_known(client: Raw) -> None:
    etag = client.get("/app.js").header("etag")
    answer = client.get("/app.js", "Range: bytes=0-2", f"If-Range: {etag}")
    assert (answer.status, answer.body) == (206, b"let")
    answer = client.get("/app.js", "Range: bytes=0-2", 'If-Range: "of another one"')
    assert (answer.status, answer.body) == (200, b"let a = 1")
    answer = client.get("/app.js", "Range: bytes=0-2", f"If-None-Match: {etag}")
    assert (answer.status, answer.body) == (304, b"")
    answer = client.get("/app.js", "Range: bytes=0-2", 'If-None-Match: "of another one"')
    assert (answer.status, answer.body) == (206, b"let")


def test_a_range_beyond_the_end(client: Raw) -> None:
    answer = client.get("/app.js", "Range: bytes=9-")
    assert (answer.status, answer.header("content-range")) == (416, "bytes */9")
    assert client.get("/app.js", "Range: bytes=8-1000").header("content-range") == "bytes 8-8/9"
    assert client.get("/empty.txt", "Range: bytes=0-").status == 200


def test_more_from_the_end_than_there_is(client: Raw) -> None:
    for wanted in ("bytes=-10", "bytes=-999999999999999999"):
        answer = client.get("/app.js", f"Range: {wanted}")
        assert (answer.status, answer.body) == (200, b"let a = 1")
    assert client.get("/app.js", "Range: bytes=-0").status == 416


def test_symbolic_links_are_followed(client: Raw, folder: Path) -> None:
    (folder / "shared.txt").symlink_to(folder.parent / "secret.txt")
    assert client.get("/shared.txt").body == b"secret"


def test_a_client_that_leaves_in_the_middle_of_a_file(client: Raw, serve: Serve) -> None:
    # The fixture that counts descriptors finds the file if nobody closes it.
    client.ask("/big.bin")
    assert client.head().status == 200
    client.sock.close()


def test_a_folder_without_its_slash_leads_to_the_one_with_it(client: Raw) -> None:
    answer = client.get("/sub?a=1")
    assert (answer.status, answer.header("location")) == (308, "/sub/?a=1")
    assert client.get("/sub", method="HEAD").header("location") == "/sub/"
    assert client.get("/sub", "Range: bytes=0-1").status == 308
    assert client.get("/sub", method="POST").status == 404


@pytest.mark.parametrize("path", ["/none", "/sub/none", "/..", "/sub/../sub", "//sub", "/.sub"])
def test_no_other_path_leads_anywhere(client: Raw, folder: Path, path: str) -> None:
    (folder / ".sub").mkdir()
    (folder / ".sub" / "index.html").write_text("hidden")
    (folder / "none").mkdir()
    assert client.get(path).status in (400, 404)


def test_the_path_of_a_folder_is_encoded(client: Raw, folder: Path) -> None:
    (folder / "grün & blau").mkdir()
    (folder / "grün & blau" / "index.html").write_text("x")
    location = client.get("/gr%C3%BCn%20&%20blau").header("location")
    assert location == "/gr%C3%BCn%20%26%20blau/"
    assert client.get(location).body == b"x"
