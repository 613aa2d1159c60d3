"""The life of a node: who is there, what is lost, what is deaf."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daebus.backplane.names import Names
from daebus.errors import TooLargeError
from tests.support.nodes import Member, World


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def three(world: World) -> tuple[Member, Member, Member]:
    members = world.add(node="one"), world.add(node="two"), world.add(node="three")
    world.advance(2)
    for member in members:
        member.events.clear()
    return members


Three = tuple[Member, Member, Member]


def test_frames_reach_the_other_nodes_once(world: World) -> None:
    one, two, three = world.add(node="one"), world.add(node="two"), world.add(node="three")
    world.advance(1)

    assert one.node.post("room", "floor 3", b"hello") == 2
    assert one.node.post_to("two", "client", b"you", to="two.x")
    assert not one.node.post_to("nobody", "client", b"you")
    world.settle()

    assert two.got == [("one", b"hello"), ("one", b"you")]
    assert three.got == [("one", b"hello")]
    assert one.got == []
    assert sorted(one.node.peers()) == ["three", "two"]
    info = one.node.peers()["two"]
    assert (info.clients, info.version, info.suspect, info.own) == (3, "1.2", False, False)
    assert one.node.own().own
    assert one.names() == ["up", "node_up", "node_up"]
    assert one.missed == two.missed == three.missed == 0


def test_names_of_clients_lead_to_nodes(three: Three) -> None:
    owner = three[0].node.owner

    assert [owner(name) for name in ("two.ann", "gone.x", "one.ann", "ann", "")] == [
        *("two", "gone"),
        *(None, None, None),
    ]


def test_newcomer_counts_nothing_from_before_its_time(world: World) -> None:
    one = world.add()
    world.advance(5)
    one.say(100)
    world.settle()
    two = world.add()
    world.advance(15)
    one.say()
    world.advance(15)

    assert two.from_(one) == [101]
    assert two.missed == 0


def test_what_is_missed_is_counted_and_told(world: World, three: Three) -> None:
    one, two, other = three
    one.say(2)
    world.settle()
    two.end.lose(3)
    one.say(5)
    world.settle()
    assert two.missed == 3
    world.advance(1)

    assert two.from_(one) == [1, 2, 6, 7]
    assert [(event, info.node, info.missed) for event, info in two.events] == [("gap", "one", 3)]
    assert other.missed == 0


def test_lost_tail_is_known_with_the_next_beat(world: World, three: Three) -> None:
    one, two, _ = three
    two.end.lose(4)
    one.say(4)
    world.advance(2)

    assert two.missed == 4
    assert two.names() == ["gap"]


def test_frames_for_one_node_are_counted_too(world: World, three: Three) -> None:
    one, two, other = three
    two.end.lose(1)
    one.node.post_to("two", "client", b"x")
    world.advance(1)

    assert (two.missed, other.missed) == (1, 0)


def test_frames_that_were_sent_twice_are_handled_once(world: World, three: Three) -> None:
    one, two, _ = three
    one.say(5)
    world.settle()
    one.end.cut(unsure=3)
    one.say(2)
    one.end.restore()
    world.advance(3)

    assert two.from_(one) == [1, 2, 3, 4, 5, 6, 7]
    assert two.missed == 0


def cut(world: World) -> None:
    for member in world.members:
        member.end.cut()


def restore(world: World) -> None:
    for member in world.members:
        member.end.restore()


def test_outage_is_told_and_nobody_is_thought_dead(world: World, three: Three) -> None:
    one, two, _ = three
    cut(world)
    world.advance(60)
    assert one.names() == ["down"]
    assert not one.node.stats()["up"]
    assert one.node.is_alive("two")
    restore(world)
    world.settle()

    assert one.node.stats()["up"]
    [(event, info)] = one.events
    assert event == "up"
    assert 59 <= info.seconds <= 61
    world.advance(9)
    assert one.names() == ["up"]
    assert two.gone == []


def test_what_is_kept_in_an_outage_arrives_and_the_rest_is_counted(
    world: World, three: Three
) -> None:
    one, two, other = three
    one.say(3)
    world.settle()
    cut(world)
    one.say(10)
    world.advance(20)  # beyond queue_age
    one.say(5)
    world.advance(1)
    restore(world)
    world.advance(1)

    assert two.from_(one) == other.from_(one) == [1, 2, 3, 14, 15, 16, 17, 18]
    assert two.missed == other.missed == one.node.stats()["lost_out"] == 10


def test_what_was_kept_waits_for_those_who_were_there(world: World, three: Three) -> None:
    one, two, other = three
    cut(world)
    one.say(2)
    world.advance(1)
    one.end.restore()
    two.end.restore()
    world.advance(1, step=0.1)
    assert two.got == []
    other.end.restore()
    world.settle()

    assert two.from_(one) == other.from_(one) == [1, 2]
    assert two.missed == other.missed == 0


def test_what_was_kept_does_not_wait_for_ever(world: World, three: Three) -> None:
    one, two, other = three
    cut(world)
    one.say(2)
    one.end.restore()
    two.end.restore()
    world.advance(2.2, step=0.1)
    assert two.from_(one) == [1, 2]
    other.end.restore()
    world.advance(1)

    assert other.got == []
    assert other.missed == 2


def test_deaf_node_hears_again_within_five_seconds(world: World, three: Three) -> None:
    one, two, other = three
    two.end.deafen()
    one.say(3)
    world.advance(5)
    one.say(1)
    world.advance(1)

    assert two.from_(one) == [4]
    assert two.missed == 3
    assert two.node.stats()["deaf_resets"] == 1
    assert two.gone == other.gone == []
    assert [name for name in two.names() if name != "gap"] == ["down", "up"]


def test_dead_node_is_noticed(world: World, three: Three) -> None:
    one, two, other = three
    two.die()
    world.advance(4)
    assert one.node.peers()["two"].suspect
    assert one.names() == []
    world.advance(7.5)

    assert one.gone == other.gone == ["two"]
    [(event, info)] = one.events
    assert (event, info.node, info.reason) == ("node_down", "two", "silent")
    assert 10 <= info.seconds <= 11


def test_goodbye_is_noticed_at_once(world: World, three: Three) -> None:
    one, two, other = three
    two.end.lose(2)
    one.say(1)
    other.end.lose(1)
    two.say(2)
    other.end.lose(1)
    two.say(2)
    two.node.stop(0)
    world.settle()

    assert one.gone == other.gone == ["two"]
    assert one.missed == 0
    assert other.missed == 2


def test_node_that_was_thought_dead_goes_on(world: World, three: Three) -> None:
    one, two, _ = three
    one.say(1)
    world.settle()
    one.end.cut()
    world.advance(12)
    assert two.gone == ["one"]
    one.end.restore()
    world.advance(2)
    one.say(1)
    world.settle()

    assert two.names() == ["node_down", "node_up"]
    assert two.from_(one) == [1, 2]
    assert two.missed == 0


def test_one_that_is_killed_is_followed_by_another_of_its_name(world: World, three: Three) -> None:
    one, two, _ = three
    two.die()
    again = world.add(node="two")
    world.advance(2)

    assert again.node.name == "two"
    assert one.gone == ["two"]
    assert [(event, info.reason) for event, info in one.events] == [
        ("node_down", "replaced"),
        ("node_up", ""),
    ]
    assert one.node.post_to("two", "client", b"hi")
    world.settle()
    assert again.got == [("one", b"hi")]


def test_name_that_is_taken_gets_a_suffix(
    world: World, three: Three, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, _ = three
    twin = world.add(node="two")
    world.advance(2)

    assert two.node.name == "two"
    assert twin.node.name.startswith("two-")
    assert one.names() == ["node_up"]
    assert "another node is named two; this one is now two-" in caplog.text
    assert one.gone == []


def test_names_are_sorted_out_after_a_start_without_a_backplane(world: World) -> None:
    watcher = world.add(node="watcher")
    nodes = [Member(world, "test", node="web") for _ in range(3)]
    for member in nodes:
        member.end.cut()
    world.members += nodes
    world.advance(5)
    for member in nodes:
        member.node.post("all", "", b"x")
        member.end.restore()
    world.advance(5)

    names = sorted(member.node.name for member in nodes)
    assert names[0] == "web"
    assert len({*names}) == 3
    assert sorted(watcher.node.peers()) == names
    assert nodes[0].node.owner("web.ann") in ("web", None)
    assert watcher.gone == []


def test_frames_of_one_born_in_an_outage_are_counted_from_its_first(world: World) -> None:
    old = world.add(node="old")
    world.advance(5)
    young = Member(world, "test", node="young")
    young.end.cut()
    world.members.append(young)
    young.say(4)
    world.advance(6)  # beyond queue_age
    young.say(2)
    young.end.restore()
    world.advance(3)

    assert old.from_(young) == [5, 6]
    assert old.missed == 4


def test_partitions_are_heard_while_they_have_members(world: World) -> None:
    one, two = world.add(partitions=8), world.add(partitions=8)
    names = Names("test", 8)
    room = next(room for room in map(str, range(99)) if names.partition(room))
    world.advance(2)
    one.say(1, to=room)
    two.node.listen(room)
    assert two.node.wait_heard(room)
    one.say(2, to=room)
    world.settle()
    assert two.from_(one) == [2, 3]

    two.end.lose(1)
    one.say(1, to=room)
    world.advance(1)
    assert two.missed == 1  # told by a frame on the channel itself

    two.node.unlisten(room)
    world.advance(20)
    two.node.listen(room)
    two.node.unlisten(room)
    world.advance(29)
    one.say(1, to=room)
    world.settle()
    assert two.from_(one) == [2, 3, 5]
    world.advance(2)
    one.say(3, to=room)
    two.node.listen(room)
    one.say(1, to=room)
    world.advance(11)
    assert two.from_(one) == [2, 3, 5, 9]
    assert two.missed == 1


def test_strangers_are_not_heard(world: World, caplog: pytest.LogCaptureFixture) -> None:
    one, two = world.add(secret="s3cret"), world.add(secret="s3cret")
    stranger, other_app = world.add(secret="other"), world.add("other", secret="s3cret")
    world.advance(2)
    one.say()
    stranger.say()
    other_app.say()
    world.settle()
    for frame in (b"", b"\n", b"x" * 100, b"{}\n", b'{"v":1,"n":1}\n', b"[" * 5000 + b"\n"):
        one.end.publish(one.node.names.beats, frame)
    world.settle()

    assert two.from_(one) == [1]
    assert len(two.got) == 1
    assert two.node.stats()["nodes"] == 2
    assert two.node.stats()["unsigned"] > 0
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("secret", [None, "s3cret"])
def test_frame_that_is_too_large_is_refused(world: World, secret: str | None) -> None:
    one, two = (world.add(max_frame=2000, secret=secret) for _ in range(2))
    world.advance(1)
    sizes = iter(range(1700, 2000))
    with pytest.raises(TooLargeError, match="beyond max_frame=2000"):
        any(one.node.post("room", "floor", b"x" * size) == 0 for size in sizes)
    world.settle()

    got = [len(payload) for _, payload in two.got]
    assert got == list(range(1700, next(sizes) - 1))
    assert len(got) > 50
