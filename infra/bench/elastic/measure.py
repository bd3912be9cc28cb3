#!/usr/bin/env python3
"""How long the others wait when a replica dies or freezes: from the signal to their next committed step.

    infra/bench/elastic/measure.py LAKE [--faults 10] [--replicas 3]

LAKE holds the dataset `rust-code` (for example `lake/demo` after `make demo`). Trains a small transformer, so that a step is
short against what is measured, and sends SIGKILL, then SIGSTOP, to replicas in turn. Prints one JSON object with medians in
milliseconds. Run it on a quiet machine: with more replicas than cores a step waits for its turn, too.
"""
import argparse, json, os, pathlib, re, signal, statistics, subprocess, sys, threading, time

ROOT = pathlib.Path(__file__).resolve().parents[3]
FOREBAY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/forebay"
LEASE_MS = 1000


def start(lake, run, replicas):
    settings = {
        "name": run, "dataset": f"{lake}/rust-code", "checkpoints": f"{lake}/checkpoints", "model.layers": 2, "model.width": 32,
        "model.heads": 2, "batch.steps": 100000, "batch.micro_batch_size": 1, "checkpoint.every_steps": 20, "checkpoint.keep": 1,
        "elastic.lease": f"{LEASE_MS}ms",
    }
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [FOREBAY, "train", ROOT / "examples/rust-code-gpt.toml", "--replicas", str(replicas), *flags]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    pids = {}

    def follow():
        for line in child.stderr:
            if found := re.search(r"replica (\w+) started, pid (\d+)", line):
                pids[found[1]] = int(found[2])

    threading.Thread(target=follow, daemon=True).start()
    return child, pids


def commits(lake, run):
    folder = pathlib.Path(lake) / "checkpoints" / run / "telemetry"
    events = [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
    return [event["unix_ms"] for event in events if event["kind"] == "step_committed"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake")
    parser.add_argument("--faults", type=int, default=10)
    parser.add_argument("--replicas", type=int, default=3)
    arguments = parser.parse_args()
    run = f"elastic-{int(time.time())}"
    child, pids = start(arguments.lake, run, arguments.replicas)
    faults = {"kill": [], "stop": []}
    try:
        time.sleep(8)
        for kind, number in (("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)):
            for turn in range(arguments.faults):
                victim = pids[f"r{turn % arguments.replicas}"]
                faults[kind].append(time.time() * 1000)
                os.kill(victim, number)
                time.sleep(3)
                if kind == "stop":
                    os.kill(victim, signal.SIGCONT)
                    time.sleep(3)
                if child.poll() is not None:
                    sys.exit(f"the run ended with {child.returncode}")
        time.sleep(5)
    finally:
        child.send_signal(signal.SIGINT)
        child.wait()
    times = commits(arguments.lake, run)
    steps = [after - before for before, after in zip(times, times[1:])]
    # A step that was committed in the very moment of the signal is not one that the others made without the victim.
    waits = {kind: [min(t for t in times if t > at + 5) - at for at in ats if times[-1] > at] for kind, ats in faults.items()}
    print(json.dumps({
        "replicas": arguments.replicas, "lease_ms": LEASE_MS, "steps": len(times), "step_ms_median": statistics.median(steps),
        **{f"{kind}_to_next_commit_ms": {"median": round(statistics.median(ms)), "max": round(max(ms)), "faults": len(ms)} for kind, ms in waits.items()},
    }, indent=2))


main()
