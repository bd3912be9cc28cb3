"""The `forebay` command as the benches run it: on one core, with what it cost.

CPU-seconds are user + system of the whole process by wait4, start-up and libtorch's constructors counted; the peak is its
largest resident set. A run starts from an empty dataset unless it is told to go on with one.
"""
import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def arguments(description):
    """The options that every bench has."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--forebay", type=Path, default=target / "debug/forebay")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "forebay-bench", help="corpora and datasets; several GB")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="archives of test data")
    parser.add_argument("--peers", type=Path, default=ROOT / "../shared/peers/data", help="scripts of the rivals")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=os.cpu_count() - 1)
    return parser


def pipeline(dataset, source, modality="text", **settings):
    """Settings by dotted key: one thread, plain Parquet, documents as they are."""
    common = {"format": "parquet", "limits.threads": 1}
    if modality == "text":
        common["output"] = "documents"
    return {"dataset": str(dataset), "source.modality": modality, "source.url": str(source), **common, **settings}


def ingest(options, settings, keep=False):
    """One run; the answer of `--json` with `cpu_s`, `peak_mb` and `wall_s`."""
    dataset = Path(settings["dataset"])
    if not keep:
        shutil.rmtree(dataset, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file, tempfile.TemporaryFile("w+") as answer, tempfile.TemporaryFile("w+") as log:
        file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
        file.flush()
        command = [str(options.forebay), "ingest", file.name, "--json"]
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=answer, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, {options.core}))
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        if child.returncode:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)}: exit {child.returncode}\n{log.read()[-2000:]}")
        answer.seek(0)
        return {**json.load(answer), "wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}


def rounds(options, settings):
    """Repeated runs into fresh datasets, the answer being the last with medians of what was measured."""
    runs = [ingest(options, settings) for _ in range(options.rounds)]
    digests = {run["rows_digest"] for run in runs}
    assert len(digests) == 1, f"the same input gave different rows: {digests}"
    stages = {name: statistics.median(run["stages"][name] for run in runs) for name in runs[0]["stages"]}
    medians = {name: statistics.median(run[name] for run in runs) for name in ("wall_s", "cpu_s", "peak_mb")}
    return {**runs[-1], **medians, "stages": stages}


def startup(options):
    """CPU-seconds of a command that does nothing."""
    def once():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([options.forebay, "--version"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return statistics.median(once() for _ in range(5))


def show(what, **numbers):
    """One line of result."""
    plain = {key: round(value, 4) if isinstance(value, float) else value for key, value in numbers.items()}
    print(json.dumps({"what": what, **plain, "load": round(os.getloadavg()[0], 2)}, ensure_ascii=False), flush=True)


def machine():
    """The processor, for the record."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores"


def table(dataset, name, columns=None):
    """A table of the newest version; rows that a later version deleted are not left out."""
    import pyarrow.parquet
    manifest = json.loads(max(Path(dataset).glob("_forebay/versions/*.json")).read_text())
    files = [Path(dataset) / file["object"]["path"] for file in manifest["tables"][name]["files"]]
    return pyarrow.concat_tables([pyarrow.parquet.read_table(file, columns=columns) for file in files])


def rival(options, venv, script, *arguments):
    """A rival's script in its own environment; prints what it measured."""
    environment = {**os.environ, "PEERS_SCRATCH": str(options.scratch / "peers")}
    python = options.scratch / venv / "bin/python"
    if not python.exists():
        return print(f"no {python}: run run.sh once for the rivals", flush=True)
    command = [python, options.peers / script, "--cpus", str(options.core), *map(str, arguments)]
    for _ in range(options.rounds):
        subprocess.run(command, check=True, env=environment)
