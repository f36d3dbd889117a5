"""Programs that need torch, started in a few milliseconds: forked from a process that has loaded it already.

Loading torch, torchvision and the exporter costs 5 to 15 seconds a process, and the tests start more than a hundred.
The process that forks has imported them and has done nothing else, so that its children are as new ones.
"""

import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).parent.parent


class ForkServer:
    """Runs `python -m MODULE ARGUMENTS` in children of one process, which starts at the first call."""

    _connection: socket.socket | None = None
    _process: "subprocess.Popen[bytes]"

    def run(
        self, module: str, arguments: Sequence[str], cwd: Path, timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """Exit code, standard output and standard error of a program that runs in the folder `cwd`.

        Raises subprocess.TimeoutExpired after `timeout` seconds; the program is killed then.
        """
        if self._connection is None:
            self._start()
        assert self._connection is not None
        order = json.dumps([module, list(arguments), str(cwd)]).encode()
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
            self._connection.settimeout(timeout)
            socket.send_fds(self._connection, [order], [out.fileno(), error.fileno()])
            try:
                answer = self._connection.recv(16)
            except TimeoutError:
                self.close()
                raise subprocess.TimeoutExpired([module, *arguments], timeout, _read(out), _read(error)) from None
            assert answer, "the process that programs are forked from has ended"
            return subprocess.CompletedProcess([module, *arguments], int(answer), _read(out), _read(error))

    def _start(self) -> None:
        self._connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.forkserver", str(other.fileno())]
        with other:
            self._process = subprocess.Popen(command, cwd=_ROOT, pass_fds=[other.fileno()], start_new_session=True)

    def close(self) -> None:
        """Kills the process and its children."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _load() -> None:
    """Imports what the projects' programs import, and exports once: the exporter looks up its operators at first."""
    import torch
    import torch.utils.tensorboard
    import torchvision  # noqa: F401

    import tests.forked  # noqa: F401 - autograd starts no threads

    size = {"x": {2: "height", 3: "width"}}
    network, image = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), torch.zeros(1, 3, 8, 8)
    with redirect_stdout(io.StringIO()):
        torch.onnx.export(network.eval(), (image,), input_names=["x"], dynamic_shapes={"input": size["x"]}, dynamo=True)


def _wait_for_an_order(connection: socket.socket) -> tuple[str, list[str]]:
    """Forks for every order; returns in the children, with the module and its arguments, in the program's folder."""
    while True:
        order, files, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        if not order:
            os._exit(0)
        child = os.fork()
        if child:
            for file in files:
                os.close(file)
            connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
            continue
        connection.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, file in enumerate(files, start=1):
            os.dup2(file, stream)
            os.close(file)
        module, arguments, cwd = json.loads(order)
        os.chdir(cwd)
        return module, arguments


if __name__ == "__main__":
    _load()
    _module, _arguments = _wait_for_an_order(socket.socket(fileno=int(sys.argv[1])))
    sys.path[0] = os.getcwd()
    sys.path.insert(1, str(_ROOT))
    sys.argv = [_module, *_arguments]
    sys.modules.pop(_module, None)  # it is to be the main module, as in a new process
    runpy.run_module(_module, run_name="__main__", alter_sys=True)
