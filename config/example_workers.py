"""Four small workers: one takes orders, two pack them, one counts the sales, one keeps the books.

They use only `supervisor.Context`. While the database is unreachable, their calls wait;
none of them retries, reconnects or counts attempts: the daemon does that.
"""

import random
from collections import Counter
from collections.abc import Sequence

from supervisor import Context, Event, append

_CREATE = """
    create table if not exists orders (
        id bigint generated always as identity primary key,
        article text not null,
        taken_at timestamptz not null default now(),
        packed_by text,
        packed_at timestamptz
    );
    create table if not exists sales (article text primary key, packed bigint not null)
"""
_ARTICLES = ("apples", "bread", "candles", "tea")


async def take_orders(ctx: Context) -> None:
    """Take an order now and then, until the daemon stops.

    A service runs until it is stopped. The setting `pause_s` is how long it waits between two orders.
    """
    await _prepare(ctx)
    while not ctx.stopping:
        article = random.choice(_ARTICLES)  # noqa: S311 - a shop, not a vault
        # The order and the event that tells of it are there together or not at all.
        async with ctx.transaction() as connection:
            order = await connection.fetchval("insert into orders (article) values ($1) returning id", article)
            await append(connection, f"order-{order}", "taken", {"article": article})
        ctx.log.info("order taken", order=order, article=article)
        # Ends early when the worker is to stop, which a plain asyncio.sleep would not.
        await ctx.sleep(ctx.settings["pause_s"])


async def pack_orders(ctx: Context) -> None:
    """Pack orders as long as there are any, then look again after a moment.

    Two of these run side by side; `for update skip locked` lets each take an order that the other has not.
    """
    await _prepare(ctx)
    while not ctx.stopping:
        if not await _pack_one(ctx):
            await ctx.sleep(0.5)


async def _pack_one(ctx: Context) -> bool:
    """Pack the oldest open order; False when there is none."""
    # Committed as a whole or not at all: a worker that dies half-way leaves the order to the other one.
    async with ctx.transaction() as connection:
        found = await connection.fetchrow(
            "select id, article from orders where packed_at is null order by id limit 1 for update skip locked"
        )
        if found is None:
            return False
        order, article = found
        await connection.execute("update orders set packed_by = $2, packed_at = now() where id = $1", order, ctx.name)
        await append(connection, f"order-{order}", "packed", {"article": article})
    ctx.log.info("order packed", order=order)
    return True


async def count_sales(ctx: Context, events: Sequence[Event]) -> None:
    """Count what was packed, by article.

    A projection is given every event once and in order. What it writes through `ctx.tx` is committed together with
    how far it has come, so that a crash at any moment neither loses an event nor counts it twice.
    """
    # The table is there: whoever appends has prepared it.
    packed = Counter(event.data["article"] for event in events if event.type == "packed")
    await ctx.tx.executemany(
        "insert into sales values ($1, $2) on conflict (article) do update set packed = sales.packed + $2",
        packed.items(),
    )


async def keep_books(ctx: Context) -> None:
    """Say how many orders there are, and delete all but the newest packed ones.

    A periodic worker is called for each tick and returns when it is done with it.
    """
    await _prepare(ctx)
    open_orders = await ctx.db.fetchval("select count(*) from orders where packed_at is null")
    packed = await ctx.db.fetchval("select coalesce(sum(packed), 0)::bigint from sales")
    deleted = await ctx.db.fetchval(
        """
        with old as (select id from orders where packed_at is not null order by id desc offset $1),
             gone as (delete from orders where id in (select id from old) returning 1)
        select count(*) from gone
        """,
        ctx.settings["keep"],
    )
    ctx.log.info("books kept", open_orders=open_orders, packed=packed, deleted=deleted)


async def _prepare(ctx: Context) -> None:
    """Create the table unless it is there; whichever worker starts first does it."""
    async with ctx.transaction() as connection:
        # Two that create the same table at the same time would disturb each other: one after the other.
        await connection.execute("select pg_advisory_xact_lock(hashtext('orders'))")
        await connection.execute(_CREATE)
