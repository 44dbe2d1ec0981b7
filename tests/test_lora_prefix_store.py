"""The store of frozen prefix outputs: exact for every type, and never wrong, whoever writes, dies or damages it."""

import errno
import os
import signal
import subprocess
import sys
import threading

import mlx.core as mx
import numpy as np
import orjson
import pytest

from callwright.lora import prefix_store
from callwright.lora.prefix_store import DATA, INDEX, Piece, Store, as_bytes, prune
from callwright.runtime.errors import CallwrightError

WIDTH = 6
LENGTHS = [5, 9, 14, 3]
RECORDS = [np.arange(length, dtype=np.int32) * 7 + length for length in LENGTHS]


def outputs(tokens, dtype=mx.float32):
    return (mx.array(tokens)[:, None] / 7 + mx.arange(WIDTH)).astype(dtype)


@pytest.fixture
def open_store(tmp_path):
    """Stores of the same header, each as another process would open it."""
    return lambda dtype=mx.float32, **header: Store(tmp_path, {"first_trained_block": 2, **header}, WIDTH, dtype)


def fill(store, records=RECORDS):
    store.append([(Piece(tokens), outputs(tokens, store.dtype)) for tokens in records])
    return store


def whole(store, records=RECORDS):
    """Which of the records the store gives; every one that it gives must be right."""
    found = []
    for number, tokens in enumerate(records):
        hidden = store.read(Piece(tokens))
        if hidden is not None:
            assert mx.array_equal(hidden, outputs(tokens, store.dtype))
            found.append(number)
    assert len(store.missing(list(map(Piece, records)))) == len(records) - len(found)
    return found


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
def test_what_was_stored_is_read_bit_for_bit(open_store, dtype):
    fill(open_store(dtype), RECORDS[:2])
    reader = open_store(dtype)
    assert whole(reader) == [0, 1]
    assert reader.read(Piece(RECORDS[0])).dtype == dtype
    fill(open_store(dtype), RECORDS[2:])  # by another process, while the reader has it open
    assert whole(reader) == [0, 1, 2, 3]


def test_what_stands_behind_a_beginning_is_told_from_the_whole_record_and_from_other_beginnings(open_store):
    store, tokens = open_store(), RECORDS[2]
    pieces = [Piece(tokens, 4), Piece(tokens, 5), Piece(tokens[:5])]
    for piece in pieces:
        assert store.read(piece) is None
        store.append([(piece, outputs(piece.tokens)[piece.begin :])])
    assert store.read(Piece(tokens)) is None
    for piece in pieces:
        assert mx.array_equal(store.read(piece), outputs(piece.tokens)[piece.begin :])
        assert piece.length == store.read(piece).shape[0]
    assert len({piece.key for piece in [*pieces, Piece(tokens)]}) == 4


def test_another_header_is_another_store(open_store):
    fill(open_store())
    assert whole(open_store(first_trained_block=3)) == []
    assert open_store(first_trained_block=3).folder != open_store().folder


def test_a_record_is_stored_once(open_store):
    one, two = open_store(), open_store()
    fill(one)
    size = (one.folder / DATA).stat().st_size
    fill(two)
    fill(one, RECORDS[1:3])
    assert (one.folder / DATA).stat().st_size == size == sum(LENGTHS) * WIDTH * 4


@pytest.mark.parametrize("cut_at", range(0, 500, 37))
def test_half_an_index_gives_whole_records_only_and_is_mended(open_store, cut_at):
    store = fill(open_store())
    index = store.folder / INDEX
    index.write_bytes(index.read_bytes()[:cut_at])
    left = whole(open_store())
    assert left == list(range(index.read_bytes().count(b"\n")))
    assert whole(fill(open_store())) == [0, 1, 2, 3]
    assert whole(open_store()) == [0, 1, 2, 3]


@pytest.mark.parametrize("junk", [b"\xff\xfe\n", b"{}\n", b"[1]\n", b'{"tokens": 1, "offset": "x"}\n', b"null\n"])
def test_lines_that_are_none_are_passed_over(open_store, junk):
    store = fill(open_store(), RECORDS[:2])
    with open(store.folder / INDEX, "ab") as stream:
        stream.write(junk)
    assert whole(fill(open_store())) == [0, 1, 2, 3]


def test_damaged_outputs_are_missing_and_can_be_stored_anew(open_store):
    store = fill(open_store())
    path = store.folder / DATA
    content = bytearray(path.read_bytes())
    content[LENGTHS[0] * WIDTH * 4 + 3] ^= 0x10
    path.write_bytes(content)
    assert whole(open_store()) == [0, 2, 3]
    path.write_bytes(content[:-1])
    assert whole(open_store()) == [0, 2]
    assert whole(fill(open_store())) == [0, 1, 2, 3]


def test_outputs_cut_off_under_an_open_map_do_not_kill_the_reader(open_store):
    store = fill(open_store())
    assert whole(store) == [0, 1, 2, 3]
    os.truncate(store.folder / DATA, 40)
    assert store.read(Piece(RECORDS[3])) is None


@pytest.mark.parametrize("name", [INDEX, DATA])
def test_a_reader_of_deleted_files_never_reads_anothers_bytes(open_store, name):
    reader = fill(open_store())
    assert whole(reader) == [0, 1, 2, 3]
    (reader.folder / name).unlink()
    fill(open_store(), RECORDS[::-1])  # the same records at other places
    assert whole(reader) == [0, 1, 2, 3]


KILLED = """
import os, signal, sys
import numpy as np, mlx.core as mx
from callwright.lora import prefix_store
from test_lora_prefix_store import RECORDS, WIDTH, fill
die_at, calls = int(sys.argv[2]), []
plain = os.fsync
def fsync(descriptor):
    calls.append(1)
    if len(calls) == die_at:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        os.truncate(path, os.path.getsize(path) - 7)  # the last bytes did not reach the disk
        os.kill(os.getpid(), signal.SIGKILL)
    plain(descriptor)
store = prefix_store.Store(sys.argv[1], {"first_trained_block": 2}, WIDTH, mx.float32)
os.fsync = fsync
fill(store, RECORDS[:2])
fill(store, RECORDS[2:])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the test looks into /proc")
@pytest.mark.parametrize(("die_at", "left"), [(2, []), (3, [0]), (4, [0, 1]), (5, [0, 1, 2])])
def test_a_writer_killed_while_it_writes_leaves_right_records_only(open_store, root, tmp_path, die_at, left):
    """Call 1 syncs the header, 2 and 4 the outputs, 3 and 5 the index; of what it syncs then, the end is lost."""
    path = os.pathsep.join([str(root / "workflow" / "scripts"), str(root / "tests")])
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(die_at)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert whole(open_store()) == left
    assert whole(fill(open_store())) == [0, 1, 2, 3]


def test_writers_side_by_side_spoil_nothing(open_store):
    """Eight, each with a store of its own, as processes have, adding overlapping records one by one."""
    records = [np.arange(length, dtype=np.int32) for length in range(1, 40)]

    def write(number):
        store = open_store()
        for tokens in np.roll(np.arange(39), 5 * number)[:25]:
            fill(store, [records[tokens]])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = open_store()
    assert whole(store, records) == list(range(39))
    assert (store.folder / DATA).stat().st_size == sum(range(1, 40)) * WIDTH * 4


def test_one_process_fills_and_the_other_waits(open_store):
    order = []

    def second():
        with open_store().filling():
            order.append("second")

    with open_store().filling():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize("there", [0, 1])
def test_room_is_taken_before_and_what_is_not_used_given_back(open_store, there):
    store = open_store()
    if there:
        fill(store, RECORDS[:there])
    with store.room_for(100_000):
        assert os.stat(store.path).st_blocks * 512 >= 100_000
        fill(store, RECORDS[there:2])
        assert os.stat(store.path).st_blocks * 512 >= 100_000
    assert os.stat(store.path).st_size == 14 * WIDTH * 4
    assert whole(open_store()) == [0, 1]


def test_a_full_disk_is_one_line_and_spoils_nothing(open_store, monkeypatch):
    store = fill(open_store(), RECORDS[:2])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("posix_fallocate", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(prefix_store.os, name, full, raising=False)
            with (
                pytest.raises(CallwrightError, match=r"no space left .* training\.prefix_cache to `off`"),
                store.room_for(100),
            ):
                fill(store, RECORDS[2:])
    assert whole(open_store()) == [0, 1]
    assert whole(fill(store)) == [0, 1, 2, 3]


def test_stores_of_an_older_code_are_deleted_and_others_kept(open_store, tmp_path):
    same = {"place": "here", "model": "m", "code": "new", "versions": "1"}
    kept = [open_store(**same, first_trained_block=3), open_store(**same | {"place": "there", "code": "old"})]
    gone = [open_store(**same | {"code": "old"}), open_store(**same | {"model": "n"})]
    for store in (*kept, *gone):
        fill(store)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "store.json").write_text("{}")
    prune(fill(open_store(**same)))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {store.folder.name for store in kept} | {open_store(**same).folder.name, "notes"}
    assert orjson.loads((kept[0].folder / "store.json").read_bytes())["first_trained_block"] == 3


def test_bytes_are_the_arrays_own():
    hidden = outputs(RECORDS[0], mx.bfloat16)
    assert as_bytes(hidden).shape == (5, WIDTH * 2)
    assert mx.array_equal(mx.array(as_bytes(hidden)).view(mx.bfloat16), hidden)
