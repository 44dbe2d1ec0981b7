"""A user's functions in a process of their own: results, exceptions, hanging and dying functions."""

import os
import textwrap
import time

import pytest

from callwright.agent.functions import Functions
from callwright.agent.toolbox import LONGEST, AgentTool, CallFailed, Toolbox, cut
from callwright.runtime.errors import CallwrightError

TOOLS = '''
"""Functions of all sorts."""
import dataclasses, datetime, os, subprocess, sys, time
print("printed while importing")
count = 0

@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0

def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    print("printed while running")
    return a + b

def remember() -> int:
    """How often it was called."""
    global count
    count += 1
    return count

def weekday(day: datetime.date) -> str:
    """The weekday of a day."""
    return day.strftime("%A")

def mirror(point: Point) -> Point:
    """A point on the other side."""
    return Point(-point.x, -point.y)

async def later(word: str) -> dict:
    """A word, wrapped."""
    return {"word": word, "ü": None}

def fail(kind: str) -> str:
    """Fail in one way or another."""
    if kind == "exit":
        sys.exit("bye")
    if kind == "die":
        os._exit(3)
    if kind == "stdin":
        return repr(sys.stdin.read())
    raise ValueError("no such\\nkind")

def hang(path: str) -> None:
    """Never return, and leave a child behind that does not either."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(path, "w") as stream:
        stream.write(f"{os.getpid()} {child.pid}")
    time.sleep(600)
'''


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("tools") / "mine.py"
    found.write_text(textwrap.dedent(TOOLS))
    return found


@pytest.fixture(scope="module")
def functions(path):
    with Functions(path, timeout=60) as found:
        yield found


def is_alive(pid):
    """Whether a process runs; one that is dead and waits for its parent does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        os.kill(pid, 0)
        return True


def wait_for(condition):
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_functions_are_described_and_called(functions):
    names = [tool.name for tool in functions.tools]
    assert names == ["add", "remember", "weekday", "mirror", "later", "fail", "hang"]
    assert functions.call("add", {"a": 2}) == "3"
    assert [functions.call("remember", {}) for _ in range(2)] == ["1", "2"]
    assert functions.call("weekday", {"day": "2026-03-02"}) == "Monday"
    assert functions.call("mirror", {"point": {"x": 2.5}}) == '{"x":-2.5,"y":-0.0}'
    assert functions.call("later", {"word": "x"}) == '{"word":"x","ü":null}'
    assert functions.call("fail", {"kind": "stdin"}) == "''"


def test_an_exception_is_what_the_model_is_told(functions):
    box = Toolbox(functions.tools)
    result = box.run({"name": "fail", "arguments": {"kind": "?"}})
    assert (result.failed, result.text) == (True, "ValueError: no such\nkind")
    assert box.run({"name": "fail", "arguments": {"kind": "exit"}}).text == "SystemExit: bye"
    died = box.run({"name": "fail", "arguments": {"kind": "die"}})
    assert died.failed
    assert "ended (status 3)" in died.text
    assert box.run({"name": "add", "arguments": {"a": 1}}).text == "2"  # a new process


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc to see processes")
def test_a_function_that_hangs_is_ended_with_its_children(path, tmp_path):
    with Functions(path, timeout=60) as functions:
        functions.call("remember", {})
        functions.timeout = 3.0
        with pytest.raises(CallFailed, match="no result after 3 seconds"):
            functions.call("hang", {"path": str(tmp_path / "pids")})
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert wait_for(lambda: not any(map(is_alive, pids)))
        functions.timeout = 60
        assert functions.call("remember", {}) == "1"  # a new process remembers nothing
        last = functions.process.pid
    assert not is_alive(last)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc to see processes")
def test_the_process_ends_with_this_one_even_while_a_function_hangs(path, tmp_path):
    with Functions(path, timeout=60) as functions:
        process = functions.process
        request = b'{"id": 1, "name": "hang", "arguments": {"path": "%s"}}\n' % str(tmp_path / "pids").encode()
        process.stdin.write(request)
        process.stdin.flush()
        assert wait_for(lambda: (tmp_path / "pids").exists())
        process.stdin.close()  # as the kernel does when this process is killed
        assert process.wait(timeout=60) == 0


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(CallwrightError, match="does not exist"), Functions(tmp_path / "no.py", 1):
        pass
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_like_this\n")
    with pytest.raises(CallwrightError, match=r"broken.py, line 1: cannot be imported.*nothing_like_this"), \
            Functions(broken, 1):  # fmt: skip
        pass
    broken.write_text("import os\nos._exit(5)\n")
    with pytest.raises(CallwrightError, match="cannot be imported: the process of the functions ended"), \
            Functions(broken, 1):  # fmt: skip
        pass


def tool(name, source, parameters=None):
    function = {"name": name, "description": "", "parameters": parameters or {"type": "object", "properties": {}}}
    return AgentTool({"type": "function", "function": function}, lambda arguments: f"{source} {arguments}", source)


def test_names_that_collide_and_calls_that_may_not_be_made():
    count = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    box = Toolbox([tool("go", "a", count), tool("go", "b"), tool("go", "b"), tool("stay", "b")])
    assert list(box.tools) == ["go", "b_go", "b2_go", "stay"]
    assert len(box.notes) == 2
    assert [definition["function"]["name"] for definition in box.definitions] == list(box.tools)
    assert box.run({"name": "b_go", "arguments": {}}).text == "b {}"
    assert box.problem({"name": "go", "arguments": {"n": 1}}) is None
    assert "required property" in box.problem({"name": "go", "arguments": {}})
    assert "not of type 'integer'" in box.problem({"name": "go", "arguments": {"n": "1"}})
    assert "not a parameter" in box.problem({"name": "go", "arguments": {"n": 1, "m": 2}})
    assert "there is no tool 'run'" in box.problem({"name": "run", "arguments": {}})
    with pytest.raises(CallwrightError, match="there is no tool"):
        Toolbox([])


def test_a_long_result_is_cut():
    text = cut("x" * (LONGEST + 7))
    assert text.endswith("… (7 more characters)")
    assert cut("short") == "short"
