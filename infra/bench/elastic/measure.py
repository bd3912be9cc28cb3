#!/usr/bin/env python3
"""How long the others wait when a replica dies or freezes, and what commit and digest cost where nothing fails.

    infra/bench/elastic/measure.py LAKE [--faults 20] [--replicas 4] [--lease-ms 500] [--reduce fast|strict]

LAKE holds the dataset `rust-code` (for example `lake/demo` after `make demo`). Trains a small transformer, so that a step is
short against what is measured, and sends SIGKILL, then SIGSTOP for three leases, to replicas in turn. Prints one JSON object:
milliseconds from the signal to the next step that the others commit, and the mean times of a step's phases. Run it on a quiet
machine: with more replicas than cores a step waits for its turn, too.
"""
import argparse, json, os, pathlib, re, signal, statistics, subprocess, sys, threading, time

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "infra/chaos"))
from audit import quantiles

FOREBAY = pathlib.Path(os.environ.get("FOREBAY") or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/forebay")


def start(arguments, run, events):
    lake = arguments.lake
    settings = {
        "name": run, "dataset": f"{lake}/rust-code", "checkpoints": f"{lake}/checkpoints", "model.layers": 2, "model.width": 32,
        "model.heads": 2, "batch.steps": 1000000, "batch.micro_batches": 8, "batch.micro_batch_size": 1, "checkpoint.every_steps": 200,
        "checkpoint.keep": 1, "elastic.lease": f"{arguments.lease_ms}ms", "elastic.threads": 1, "reduce": arguments.reduce,
    }
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [FOREBAY, "train", ROOT / "examples/rust-code-gpt.toml", "--replicas", str(arguments.replicas), "--events", events, *flags]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    pids = {}

    def follow():
        for line in child.stderr:
            if found := re.search(r"replica (\w+) started, pid (\d+)", line):
                pids[found[1]] = int(found[2])

    threading.Thread(target=follow, daemon=True).start()
    return child, pids


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake")
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--lease-ms", type=int, default=500)
    parser.add_argument("--reduce", default="fast", choices=["fast", "strict"])
    arguments = parser.parse_args()
    run = f"elastic-{int(time.time())}"
    file = pathlib.Path(arguments.lake) / f"{run}.jsonl"
    child, pids = start(arguments, run, file)
    faults = {"kill": [], "stop": []}
    try:
        time.sleep(8)
        for kind, number in (("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)):
            for turn in range(arguments.faults):
                victim = pids[f"r{turn % arguments.replicas}"]
                faults[kind].append(time.time() * 1000)
                os.kill(victim, number)
                time.sleep(3 * arguments.lease_ms / 1000 if kind == "stop" else 3)
                if kind == "stop":
                    os.kill(victim, signal.SIGCONT)
                    time.sleep(2)
                if child.poll() is not None:
                    sys.exit(f"the run ended with {child.returncode}")
    finally:
        child.send_signal(signal.SIGINT)
        child.wait()
    committed = [event for event in map(json.loads, file.read_text().splitlines()) if event["kind"] == "step_committed"]
    times = [event["unix_ms"] for event in committed]
    # A step that was committed in the very moment of the signal is not one that the others made without the victim.
    waits = {kind: quantiles([min(t for t in times if t > at + 5) - at for at in ats if times[-1] > at + 5]) for kind, ats in faults.items()}
    whole = [event for event in committed if event["world"] == arguments.replicas]
    phases = {phase: round(1000 * statistics.median(event["timings"][phase] for event in whole), 3) for phase in whole[0]["timings"]}
    print(json.dumps({
        "replicas": arguments.replicas, "lease_ms": arguments.lease_ms, "reduce": arguments.reduce, "steps": len(times),
        "step_ms": round(1000 * statistics.median(event["seconds"] for event in whole), 2), "phases_ms": phases,
        **{f"{kind}_to_next_commit_ms": of for kind, of in waits.items()},
    }, indent=2))


main()
