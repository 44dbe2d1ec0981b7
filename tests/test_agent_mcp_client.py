"""MCP servers as a source of tools: a real one, and one that misbehaves."""

import os
import shlex
import sys

import pytest

from callwright.agent.mcp_client import McpServers, short_name
from callwright.agent.toolbox import Toolbox
from callwright.runtime.errors import CallwrightError

TIME = f"{shlex.quote(sys.executable)} -m mcp_server_time --local-timezone UTC"

# Writes its pid, prints noise to stderr, and does not end when its input ends.
WILD = '''
import os, sys, time
from mcp.server.mcpserver import MCPServer

server = MCPServer("wild")
open(sys.argv[1], "w").write(str(os.getpid()))
print("noise", file=sys.stderr, flush=True)

@server.tool()
def echo(word: str) -> str:
    """Say a word."""
    return word

@server.tool()
async def hang() -> str:
    """Never answer."""
    import anyio
    await anyio.sleep(600)

@server.tool()
def die() -> str:
    """End the server."""
    print("last words", file=sys.stderr, flush=True)
    os._exit(3)

server.run()
time.sleep(600)
'''


def run(box, name, **arguments):
    assert box.problem({"name": name, "arguments": arguments}) is None
    return box.run({"name": name, "arguments": arguments})


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_real_server_and_the_same_once_more(capfd):
    with McpServers([TIME, TIME], timeout=60) as servers:
        box = Toolbox(servers.tools)
        assert list(box.tools) == ["get_current_time", "convert_time", "time2_get_current_time", "time2_convert_time"]
        assert len(box.notes) == 2
        given = {"source_timezone": "Asia/Tokyo", "time": "14:30", "target_timezone": "Asia/Kolkata"}
        for name in ("convert_time", "time2_convert_time"):
            result = run(box, name, **given)
            assert not result.failed
            assert "T11:00:00+05:30" in result.text
        wrong = run(box, "get_current_time", timezone="Mars/Olympus")
        assert wrong.failed
        assert "Mars/Olympus" in wrong.text
        assert "required property" in box.problem({"name": "convert_time", "arguments": {}})
    assert capfd.readouterr() == ("", "")


def test_a_server_that_hangs_dies_and_does_not_want_to_end(tmp_path, capfd):
    script, pid = tmp_path / "wild.py", tmp_path / "pid"
    script.write_text(WILD)
    command = shlex.join([sys.executable, str(script), str(pid)])
    with McpServers([command], timeout=60) as servers:
        box = Toolbox(servers.tools)
        assert run(box, "echo", word="hello").text == "hello"
        servers.timeout = 0.3
        hung = run(box, "hang")
        assert hung.failed
        assert "no result after 0.3 seconds" in hung.text
        servers.timeout = 60
        assert run(box, "echo", word="still here").text == "still here"
        alive = int(pid.read_text())
    assert is_gone(alive)
    with McpServers([command], timeout=60) as servers:
        box = Toolbox(servers.tools)
        died = run(box, "die")
        assert died.failed
        assert "last words" in died.text
        assert run(box, "echo", word="anybody?").failed
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-program --at all", "no-such-program"),
        ("'open quote", "is no command"),
        ("  ", "needs the command"),
        (shlex.join([sys.executable, "-c", "import sys; sys.exit('cannot start')"]), "it wrote: cannot start"),
        (shlex.join([sys.executable, "-c", "print('hello', flush=True); input()"]), "cannot be used"),
        (shlex.join([sys.executable, "-c", "import time; time.sleep(600)"]), "did not list its tools within 0.5 sec"),
    ],
)
def test_commands_that_are_no_server(command, said, capfd):
    starting = 0.5 if "0.5 sec" in said else 60
    with pytest.raises(CallwrightError, match=said.replace(".", r"\.")), McpServers([command], 5, starting):
        pass
    assert "Traceback" not in capfd.readouterr().err


def test_the_first_server_ends_when_the_second_cannot_start(tmp_path):
    script, pid = tmp_path / "wild.py", tmp_path / "pid"
    script.write_text(WILD)
    command = shlex.join([sys.executable, str(script), str(pid)])
    with pytest.raises(CallwrightError, match="no-such-program"), McpServers([command, "no-such-program"], 5):
        pass
    assert is_gone(int(pid.read_text()))


def test_short_names():
    names = {
        "python -m mcp_server_time": "time",
        "/usr/bin/python3.11 tools/weather.py --port 3": "weather",
        "npx -y @modelcontextprotocol/server-filesystem /tmp": "filesystem",
        "env KEY=1 uvx mcp-server-git": "git",
        "python": "python",
    }
    assert {command: short_name(command.split()) for command in names} == names
