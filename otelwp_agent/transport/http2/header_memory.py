"""Remember header blocks, so that a client's repeated head costs one look-up.

What a header block means depends on the dynamic table of its connection. So a block is remembered by the state of the
table and its bytes, together with the state after it. States with equal contents are the same object, for all
connections of a server: the second connection of a client finds the blocks of the first.

A client whose blocks change the table each time (grpc-go indexes the deadline of each call) is not remembered: its
blocks are decoded, and its heads are found by their fields.

Invariant: a connection reads the same heads with and without the memory.
"""

from __future__ import annotations

from otelwp_agent.transport.http2.field_decoder import OVERHEAD, TABLE_SIZE, DynamicTable, Field, decode
from otelwp_agent.transport.http2.frames import ConnectionViolationError, ErrorCode
from otelwp_agent.transport.http2.request_heads import TIMEOUT, RequestHead, trailers_problem

REMEMBERED = 1024
"""Number of blocks and of heads after which those that were not used since the last time are forgotten."""
REMEMBERED_BYTES = 2**20
"""The same, as bytes of blocks and tables."""
MAX_BLOCK = 2048
"""Maximum size of a block that is remembered."""
MAX_HEAD = 4096
"""Maximum size of the fields of a head that is remembered."""
CHANGING = 8
"""Blocks in a row that change the table, after which the blocks of a connection are not remembered."""
STABLE = 4
"""Blocks in a row that do not change the table, after which they are remembered again."""


class TableState:
    """One state of a dynamic table: its entries, and the blocks that were read in this state."""

    __slots__ = ("blocks", "entries", "limit", "old", "size")

    def __init__(self, entries: tuple[Field, ...], size: int, limit: int) -> None:
        """Keep the contents of a table."""
        self.entries = entries
        self.size = size
        self.limit = limit
        self.blocks: dict[bytes, tuple[RequestHead, TableState]] = {}
        self.old: dict[bytes, tuple[RequestHead, TableState]] = {}
        """Blocks that were not used since the last time that blocks were forgotten."""


class HeaderMemory:
    """The blocks and heads that the connections of one server have in common."""

    def __init__(self, capacity: int = REMEMBERED, capacity_bytes: int = REMEMBERED_BYTES) -> None:
        """Remember up to twice `capacity` blocks and `capacity_bytes` bytes; 0 remembers nothing."""
        self.first = TableState((), 0, TABLE_SIZE)
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._states: dict[tuple[int, tuple[Field, ...]], TableState] = {(TABLE_SIZE, ()): self.first}
        self._heads: dict[tuple[Field, ...], RequestHead] = {}
        self._count = 0
        self._bytes = 0

    def head(self, fields: list[Field]) -> RequestHead:
        """Return the head with these fields."""
        timeout = None
        for index, field in enumerate(fields):
            if field[0] == TIMEOUT:
                timeout = field[1]
                fields = [*fields[:index], *fields[index + 1 :]]
                break
        key = tuple(fields)
        found = self._heads.get(key)
        if found is None:
            found = RequestHead(fields)
            if self._capacity and sum(len(name) + len(value) + OVERHEAD for name, value in key) <= MAX_HEAD:
                if len(self._heads) >= self._capacity:
                    self._heads.clear()
                self._heads[key] = found
        return found if timeout is None else found.with_timeout(timeout)

    def find_old(self, state: TableState, block: bytes) -> tuple[RequestHead, TableState] | None:
        """Return what a block means that was not used for a while, and remember it for longer."""
        found = state.old.get(block)
        if found is not None:
            self.remember(state, block, found)
        return found

    def remember(self, state: TableState, block: bytes, meaning: tuple[RequestHead, TableState]) -> None:
        """Remember what a block means in a state."""
        if not self._capacity or len(block) > MAX_BLOCK or meaning[0].problem:
            return
        if self._count >= self._capacity or self._bytes > self._capacity_bytes:
            self._forget_unused()
        self._states.setdefault((state.limit, state.entries), state)
        state.blocks[block] = meaning
        self._count += 1
        self._bytes += len(block)

    def state(self, table: DynamicTable) -> TableState:
        """Return the state with the contents of `table`."""
        key = table.limit, tuple(table.entries)
        found = self._states.get(key)
        if found is None:
            found = TableState(key[1], table.size, table.limit)
            if self._capacity:
                self._states[key] = found
                self._bytes += table.size
        return found

    def _forget_unused(self) -> None:
        """Forget the blocks that were not used since the last call, and the states without blocks."""
        self._count = self._bytes = 0
        for key, state in list(self._states.items()):
            state.old, state.blocks = state.blocks, {}
            if state.old:
                self._bytes += state.size
            elif state is not self.first:
                del self._states[key]


class HeaderReader:
    """Reads the header blocks of one connection."""

    __slots__ = ("_changes", "_memory", "_stable", "_state", "_table")

    def __init__(self, memory: HeaderMemory) -> None:
        """Start with an empty table."""
        self._memory = memory
        self._state: TableState | None = memory.first  # None: the table alone has the state
        self._table = DynamicTable()
        self._changes = 0
        self._stable = 0

    def read(self, block: bytes) -> RequestHead:
        """Return the head that a header block means; raise `ConnectionViolationError`."""
        state = self._state
        if state is None:
            return self._read_unremembered(block)
        found = state.blocks.get(block) or self._memory.find_old(state, block)
        if found is not None:
            self._changes = 0
            head, self._state = found
            return head
        return self._read_new(state, block)

    def read_trailers(self, block: bytes) -> str:
        """Read the fields after a body; return which rule they break, or an empty string."""
        if self._state is not None:
            self._table.load(self._state.entries, self._state.size, self._state.limit)
            self._state = None
        return trailers_problem(decode(block, self._table))

    def _read_new(self, state: TableState, block: bytes) -> RequestHead:
        """Decode a block that is not remembered."""
        table, memory = self._table, self._memory
        table.load(state.entries, state.size, state.limit)
        table.changed = False
        self._state = None  # in case of an error
        head = memory.head(decode(block, table))
        self._changes = self._changes + 1 if table.changed else 0
        self._stable = 0
        if self._changes > CHANGING:
            return head
        self._state = memory.state(table) if table.changed else state
        memory.remember(state, block, (head, self._state))
        return head

    def _read_unremembered(self, block: bytes) -> RequestHead:
        """Decode a block of a connection that changes its table all the time."""
        table = self._table
        table.changed = False
        head = self._memory.head(decode(block, table))
        self._stable = 0 if table.changed else self._stable + 1
        if self._stable >= STABLE:
            self._changes = 0
            self._state = self._memory.state(table)
        return head


def too_long(limit: int) -> ConnectionViolationError:
    """Return the error for a header block that is too long."""
    return ConnectionViolationError(ErrorCode.ENHANCE_YOUR_CALM, f"a header block is larger than {limit} bytes")
