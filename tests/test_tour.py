"""The tour runs from a clean kernel, and its numbers are what it says."""
import os
import resource

import pytest

from config import ROOT

pytestmark = pytest.mark.slow
nbclient = pytest.importorskip("nbclient", reason="pip install -r classroom/requirements.txt")


def test_the_tour_runs_from_a_clean_kernel_in_under_three_minutes():
    import nbformat
    notebook = nbformat.read(ROOT / "docs/tour.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) == 12
    assert not any(cell.outputs for cell in code)

    began = processor_seconds()
    environment = dict(os.environ, MPLBACKEND="module://matplotlib_inline.backend_inline")
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(ROOT / "docs")}})
    client.execute(env=environment)
    # of the processor, so that a busy machine does not make it late
    assert processor_seconds() - began < 180

    pictures = [output for cell in code for output in cell.outputs if "image/png" in
                output.get("data", {})]
    assert len(pictures) >= 6
    printed = "".join(output.text for cell in code for output in cell.outputs
                      if output.output_type == "stream" and output.name == "stdout")
    assert "key 80" in printed and "test accuracy" in printed


def processor_seconds():
    """What ended processes that this one started have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
