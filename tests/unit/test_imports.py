"""Imports of commands: most of their running time."""

import subprocess
import sys

LOOKING = "clawker_fw.cli.main, clawker_fw.reconcile.pipeline, clawker_fw.report.text, clawker_fw.report.status"
ONLY_FOR_CHANGES = {f"clawker_fw.reconcile.{name}" for name in ("apply", "converge", "plan", "steps", "summarize")}


def test_a_look_imports_nothing_for_changes() -> None:
    """On a current stack, `drift` and `status` import no planning or applying code."""
    script = f"import sys, {LOOKING}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not ONLY_FOR_CHANGES & set(done.stdout.split())
