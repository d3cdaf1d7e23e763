"""A task is done once, by whichever process asks first; one that dies leaves an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pruneproof.store import Store


def test_what_was_computed_is_not_computed_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"value": 0.1, "text": "é", "none": None}

    first = Store(tmp_path).once("task", compute)
    assert Store(tmp_path).once("task", compute) == first == {"value": 0.1, "text": "é", "none": None}
    assert calls == [1]
    assert Store(tmp_path).once("another", compute) == first
    assert calls == [1, 1]


def test_peek_shows_what_is_done_and_computes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.peek("task") is None
    store.once("task", lambda: {"a": 1})
    assert store.peek("task") == {"a": 1}


def test_everyone_in_a_run_sees_one_id_and_one_start(tmp_path: Path) -> None:
    one, two, other = Store(tmp_path / "a"), Store(tmp_path / "a"), Store(tmp_path / "b")
    assert (one.id, one.started) == (two.id, two.started)
    assert one.id != other.id
    assert one.today.isoformat() == one.started[:10]


COUNTING = """
import os, sys, time
from pathlib import Path
from pruneproof.store import Store

folder = Path(sys.argv[1])
store = Store(folder)

def compute():
    with open(folder / "calls", "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.3)
    return {"by": os.getpid()}

(folder / f"ready-{os.getpid()}").touch()
while len(list(folder.glob("ready-*"))) < 3:
    time.sleep(0.01)
print(store.once("task", compute)["by"])
"""


def test_of_several_processes_one_computes_and_all_see_it(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", COUNTING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = {worker.communicate(timeout=60)[0].strip() for worker in workers}
    assert (tmp_path / "calls").read_text().splitlines() == list(said)


def test_of_several_threads_one_computes(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def compute() -> dict[str, Any]:
        calls.append(1)
        time.sleep(0.1)
        return {}

    threads = [threading.Thread(target=store.once, args=("task", compute)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]


DYING = """
import os, sys
from pathlib import Path
from pruneproof.store import Store
Store(Path(sys.argv[1])).once("variant l1@0.5", lambda: os._exit(9))
"""


def test_the_task_of_a_process_that_died_is_an_error_and_is_not_tried_again(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DYING, str(tmp_path)]).returncode == 9
    for _ in range(2):
        found = Store(tmp_path).once("variant l1@0.5", lambda: pytest.fail("tried again"))
        assert found["error"]["cause"] == "the process that was at 'variant l1@0.5' died"
        assert found["error"]["remedy"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_task_that_raised_is_no_death_and_can_be_asked_again(error: type[BaseException], tmp_path: Path) -> None:
    def compute() -> dict[str, Any]:
        raise error

    with pytest.raises(error):
        Store(tmp_path).once("task", compute)
    assert Store(tmp_path).peek("task") is None
    assert Store(tmp_path).once("task", lambda: {"a": 1}) == {"a": 1}


def test_a_result_that_json_cannot_hold_is_refused_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            store.once("task", lambda value=value: {"value": value})  # type: ignore[misc]
        assert store.peek("task") is None


def test_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    seen: list[tuple[str, int]] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        assert not target.exists()
        seen.append((target.suffix, len(self.read_bytes())))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    store.once("task", lambda: {"a": 1})
    store.keep("dense", np.ones((2, 3), dtype=np.float32))
    assert seen == [(".json", len(json.dumps({"a": 1}))), (".npy", 128 + 24)]
    assert not list(tmp_path.glob(f"*.{os.getpid()}.part"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_are_kept_bit_for_bit_under_any_name(dtype: type, tmp_path: Path) -> None:
    outputs = np.array([[1e-30, -0.0], [np.pi, 3.0]], dtype=dtype)
    store = Store(tmp_path)
    for name in ("dense", "l1@0.5", "../odd / name"):
        store.keep(name, outputs)
        found = Store(tmp_path).kept(name)
        assert found.dtype == dtype
        assert found.tobytes() == outputs.tobytes()
    assert {path.parent for path in tmp_path.rglob("*")} == {tmp_path}
