"""A shard: its name, its streams, and what earlier shardings had applied."""

from __future__ import annotations

from fnmatch import fnmatchcase

from hypothesis import example, given
from hypothesis import strategies as st
from support.schema import connection, make_schema

from supervisor.events.shard import PreviousSharding, Shard, is_applied, lease_name, like_patterns, still_relevant


def _like(pattern: str, text: str) -> bool:
    """PostgreSQL's LIKE."""
    if not pattern:
        return not text
    match pattern[0]:
        case "%":
            return any(_like(pattern[1:], text[n:]) for n in range(len(text) + 1))
        case "_":
            return bool(text) and _like(pattern[1:], text[1:])
        case "\\":
            return text[:1] == pattern[1] and _like(pattern[2:], text[1:])
        case _:
            return text[:1] == pattern[0] and _like(pattern[1:], text[1:])


@given(glob=st.text("ab*?%_\\", max_size=6), text=st.text("ab%_\\", max_size=6))
@example(glob="*", text="")
@example(glob="_", text="a")
def test_a_glob_matches_what_it_matches_in_a_shell(glob: str, text: str) -> None:
    """`*` and `?` are special, every other character stands for itself."""
    (pattern,) = like_patterns([glob])
    assert _like(pattern, text) == fnmatchcase(text, glob)


def test_no_glob_means_every_stream() -> None:
    """Each glob becomes one pattern; without a glob there is one pattern for everything."""
    assert like_patterns(()) == ["%"]
    assert like_patterns(("a*", "b?")) == ["a%", "b_"]


async def test_the_names_of_leases_are_those_of_the_schema(database: str) -> None:
    """Python and SQL name the shards alike."""
    await make_schema(database)
    async with connection(database) as connected:
        for shards in (1, 2, 4, 12):
            names = await connected.fetchval("select supervisor.shard_leases('a-view', $1)", shards)
            assert names == [lease_name("a-view", shard, shards) for shard in range(shards)]


def test_a_shard_counts_from_one_in_the_name_of_its_lease() -> None:
    """A projection of a single shard has its own name."""
    assert lease_name("view", 0, 1) == "view"
    assert [lease_name("view", shard, 2) for shard in range(2)] == ["view/1of2", "view/2of2"]


def test_a_shard_has_a_label_where_there_are_several() -> None:
    """The label counts shards from 1; a single shard has none."""
    assert Shard("view", 0, 1).label is None
    assert Shard("view", 2, 4).label == "3of4"


def test_an_event_is_applied_if_any_earlier_sharding_applied_it() -> None:
    """Each earlier sharding counts by its own number of shards, until its positions are passed."""
    previous = (PreviousSharding(2, (10, 20)), PreviousSharding(3, (15, 5, 12)))
    assert is_applied(previous, 1, 20)  # shard 1 of 2
    assert is_applied(previous, 6, 15)  # shard 0 of 2 came to 10, shard 0 of 3 to 15
    assert not is_applied(previous, 4, 11)  # 0 of 2: 10, 1 of 3: 5
    assert not is_applied((), 4, 1)
    assert still_relevant(previous, 15) == (previous[0],)
    assert still_relevant(previous, 14) == previous
    assert still_relevant(previous, 20) == ()
