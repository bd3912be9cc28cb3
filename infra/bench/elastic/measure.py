#!/usr/bin/env python3
"""What failures cost, and what commit and digest cost where nothing fails.

    infra/bench/elastic/measure.py faults [--replicas 4] [--faults 20] [--lease-ms 500] [--reduce fast|strict]
    infra/bench/elastic/measure.py kept   [--replicas 4] [--rounds 5] [--every 29]
    infra/bench/elastic/measure.py slow   [--replicas 4] [--seconds 20]
    infra/bench/elastic/measure.py calm   [--replicas 1] [--seconds 20] [--set KEY=VALUE …]

`faults` sends SIGKILL, then SIGSTOP for three leases, to replicas in turn: milliseconds until it is noticed, and until the next
step that the others commit. `kept` alternates spans of --every seconds with and without a kill at their beginning: the share of
the throughput that is kept. `slow` (root, cgroups) gives each replica four tenths of a core, then one of them half of that: the
throughput over that of the ideal split. `calm` is the time of a step and of its phases; `commit` is digest and commit.

Trains a small transformer on the lake that chaos makes of this project's sources (--lake FOLDER keeps it), so that a step is
short against what is measured. Prints one JSON object. Wants a quiet machine: with more replicas than cores a step waits for
its turn, too.
"""
import argparse, json, os, pathlib, re, signal, statistics, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "infra/chaos"))
import chaos
from audit import quantiles

FOREBAY = pathlib.Path(os.environ.get("FOREBAY") or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/forebay")


class Run:
    """A run that goes on until it is left."""

    def __init__(self, arguments, **settings):
        lake = (arguments.lake or pathlib.Path(tempfile.mkdtemp(prefix="forebay-elastic-"))).resolve()
        if not (lake / "lake/code").exists():
            lake.mkdir(parents=True, exist_ok=True)
            chaos.lake(lake, FOREBAY)
        name = f"elastic-{int(time.time())}"
        self.file, self.pids, self.replicas = lake / f"{name}.jsonl", {}, arguments.replicas
        settings = {
            "name": name, "batch.steps": 100_000_000, "checkpoint.every_steps": 1000, "checkpoint.keep": 1,
            "elastic.lease": f"{arguments.lease_ms}ms", "reduce": arguments.reduce, **settings,
        }
        flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        flags += [part for setting in arguments.set for part in ("--set", setting)]
        command = [FOREBAY, "train", "run.toml", "--replicas", str(arguments.replicas), "--events", self.file, *flags]
        self.child = subprocess.Popen(command, cwd=lake, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        for line in self.child.stderr:
            if found := re.search(r"replica (\w+) started, pid (\d+)", line):
                self.pids[found[1]] = int(found[2])

    def __enter__(self):
        # Until all have joined and the first steps, which are slower, are done.
        self.wait(8)
        return self

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGINT)
        self.child.wait()

    def wait(self, seconds):
        time.sleep(seconds)
        if self.child.poll() is not None:
            sys.exit(f"the run ended with {self.child.returncode}")

    def signal(self, turn, number):
        """To a replica; when, in milliseconds."""
        at = time.time() * 1000
        os.kill(self.pids[f"r{turn % self.replicas}"], number)
        return at

    def events(self, kind):
        events = map(json.loads, self.file.read_text().splitlines())
        return [event for event in events if event["kind"] == kind]

    def phases(self):
        whole = [event for event in self.events("step_committed") if event["world"] == self.replicas]
        names = [name for name, value in whole[0]["timings"].items() if isinstance(value, float)]
        phases = {name: round(1000 * statistics.median(event["timings"][name] for event in whole), 3) for name in names}
        return {"step_ms": round(1000 * statistics.median(event["seconds"] for event in whole), 2), "phases_ms": phases}

    def rate(self, since, until):
        """Steps a second between two times in milliseconds."""
        times = [event["unix_ms"] for event in self.events("step_committed")]
        return 1000 * sum(since <= at < until for at in times) / (until - since)


def faults(arguments):
    ats = {"kill": [], "stop": []}
    with Run(arguments) as run:
        for turn in range(arguments.faults):
            ats["kill"].append(run.signal(turn, signal.SIGKILL))
            run.wait(3)
        for turn in range(arguments.faults):
            ats["stop"].append(run.signal(turn, signal.SIGSTOP))
            run.wait(3 * arguments.lease_ms / 1000)
            run.signal(turn, signal.SIGCONT)
            run.wait(2)
    lost = [event["unix_ms"] for event in run.events("replica_lost")]
    committed = [event["unix_ms"] for event in run.events("step_committed")]
    # A step that was committed in the very moment of the signal is not one that the others made without the victim.
    first = lambda times, at: min((time for time in times if time > at + 5), default=None)
    spans = lambda times, of: quantiles([first(times, at) - at for at in of if first(times, at)])
    return {
        "steps": len(committed), **run.phases(),
        **{f"{kind}_to_noticed_ms": spans(lost, of) for kind, of in ats.items()},
        **{f"{kind}_to_next_commit_ms": spans(committed, of) for kind, of in ats.items()},
    }


def kept(arguments):
    calm, harmed = [], []
    with Run(arguments) as run:
        for turn in range(arguments.rounds):
            calm.append(time.time() * 1000)
            run.wait(arguments.every)
            harmed.append(run.signal(turn, signal.SIGKILL))
            run.wait(arguments.every)
    rates = lambda starts: [run.rate(start, start + 1000 * arguments.every) for start in starts]
    shares = [harm / peace for harm, peace in zip(rates(harmed), rates(calm))]
    return {"every_s": arguments.every, **run.phases(), "kept": [round(share, 4) for share in shares], "median": round(statistics.median(shares), 4)}


class Quota:
    """A share of a core for a process. cgroup 1 or 2, root."""

    def __init__(self, pid, cores):
        one = pathlib.Path("/sys/fs/cgroup/cpu")
        self.old = one.exists()
        self.folder = (one if self.old else pathlib.Path("/sys/fs/cgroup")) / f"forebay-{pid}"
        self.folder.mkdir()
        self.set(cores)
        (self.folder / "cgroup.procs").write_text(str(pid))

    def set(self, cores):
        period = 10_000
        if self.old:
            (self.folder / "cpu.cfs_period_us").write_text(str(period))
            (self.folder / "cpu.cfs_quota_us").write_text(str(int(cores * period)))
        else:
            (self.folder / "cpu.max").write_text(f"{int(cores * period)} {period}")


def slow(arguments):
    share = 0.4
    # Of 14 micro-batches four replicas take 4, 4, 4 and 2 where one has half of the speed.
    with Run(arguments, **{"batch.micro_batches": 4 * arguments.replicas - 2}) as run:
        quotas = [Quota(pid, share) for pid in run.pids.values()]
        run.wait(5)
        equal = time.time() * 1000
        run.wait(arguments.seconds)
        slowed = time.time() * 1000
        quotas[-1].set(share / 2)
        run.wait(arguments.seconds + 5)
        end = time.time() * 1000
    for quota in quotas:
        quota.folder.rmdir()
    steps = [event["unix_ms"] for event in run.events("step_committed") if event["unix_ms"] > slowed]
    before, after = run.rate(equal, slowed), run.rate(steps[20], end)
    ideal = before * (arguments.replicas - 0.5) / arguments.replicas
    found = {"before": before, "slowed": after, "ideal": ideal, "of_ideal": after / ideal, "first_20_steps_s": (steps[20] - slowed) / 1000}
    return {**run.phases(), "steps_a_second": {key: round(value, 3) for key, value in found.items()}}


def calm(arguments):
    with Run(arguments) as run:
        run.wait(arguments.seconds)
    return run.phases()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["faults", "kept", "slow", "calm"])
    parser.add_argument("--lake", type=pathlib.Path, help="folder with lake/code and run.toml; made anew if it is not there")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=float, default=29)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--lease-ms", type=int, default=500)
    parser.add_argument("--reduce", default="fast", choices=["fast", "strict"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    found = {"faults": faults, "kept": kept, "slow": slow, "calm": calm}[arguments.what](arguments)
    print(json.dumps({"replicas": arguments.replicas, "lease_ms": arguments.lease_ms, "reduce": arguments.reduce, **found}, indent=2))


main()
