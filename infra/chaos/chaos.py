#!/usr/bin/env python3
"""Trains under a seeded schedule of faults on any process, the coordinator included, and audits the run afterwards.

    infra/chaos/chaos.py [--faults 200] [--replicas 4] [--seed 1] [--lake FOLDER] [--network] [--disk] [--json]

Faults: `kill` and `freeze` (SIGKILL; SIGSTOP, and SIGCONT later) of a replica; `slow` (it has half of its time for a while);
`guest` (one more replica comes, and is killed later); `kill-coordinator` (started again on another port), `freeze-coordinator`,
`rival` (a second coordinator while the first still runs). With --network, which wants root and gives every replica a network
namespace: `cut` (a replica's interface is down for a while), `cut-peers` (two replicas do not reach each other, but the
coordinator reaches both), `slow-link` (a replica's link has 2 Mbit/s for a while). With --disk, which wants root and puts the
lake on a file system of its own: `full-disk` and `store-errors` (nothing can be written for a while). Replicas that die are
started again by this driver.

The audit compares with an undisturbed run of one replica: the same final weights to the bit (`reduce = "strict"`), every step
committed with the same samples, none missing, none out of order within a generation, generations that only grow. Prints what it
found, with the times from each fault to the next committed step, and ends with 1 if anything is wrong.
"""
import argparse, atexit, collections, json, os, pathlib, random, secrets, shutil, signal, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import audit, disk, network

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOREBAY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/forebay"
HANG_SECONDS = 40
GUEST = "guest"
PIPELINE = """
dataset = 'lake/code'
[source]
modality = 'text'
url = 'raw'
include = ['**/*.rs']
[split]
validation = 0.1
[tokenizer]
vocabulary = 512
sample = '256KiB'
[pack]
sequence_length = 64
"""
RUN = """
name = 'chaos'
dataset = 'lake/code'
checkpoints = 'lake/runs'
seed = 7
reduce = 'strict'
[model]
kind = 'gpt'
layers = 2
heads = 2
width = 32
[batch]
steps = 1000
micro_batches = 8
micro_batch_size = 2
[optimizer]
learning_rate = 3e-3
warmup_steps = 5
[checkpoint]
every_steps = 100
[elastic]
lease = '500ms'
gather = '1s'
threads = 1
"""


class Cluster:
    """The processes of one run."""

    def __init__(self, folder, forebay, replicas, seed, settings, links, disk):
        self.folder, self.forebay, self.random, self.links, self.disk = folder, forebay, random.Random(seed), links, disk
        self.settings = [part for setting in settings for part in ("--set", setting)]
        self.token = secrets.token_hex(16)
        self.coordinators, self.replicas, self.log, self.summary = [], {}, [], None
        self.names = [f"r{index}" for index in range(replicas)]
        self.coordinator()
        for name in self.names:
            self.replica(name)

    def environment(self):
        return {**os.environ, "FOREBAY_TOKEN": self.token, "OMP_WAIT_POLICY": "passive"}

    def coordinator(self):
        number = len(self.coordinators)
        port, host = network.free_port(), self.links.host if self.links else "127.0.0.1"
        command = [self.forebay, "coordinator", "run.toml", "--listen", f"{host}:{port}", "--expect", str(len(self.names)),
                   "--events", f"events-{number:04}.jsonl", "--json", *self.settings]
        errors = open(self.folder / f"coordinator-{number:04}.log", "wb")
        child = subprocess.Popen(command, cwd=self.folder, env=self.environment(), stdout=subprocess.PIPE, stderr=errors, text=True)
        self.coordinators.append((child, f"http://{host}:{port}"))

    def replica(self, name):
        host = self.links.address(name) if self.links else "127.0.0.1"
        command = [self.forebay, "replica", "--coordinator", self.coordinators[-1][1], "--name", name, "--host", host, "--threads", "1"]
        if self.links:
            command = self.links.inside(name) + command
        errors = open(self.folder / f"replica-{name}.log", "ab")
        self.replicas[name] = subprocess.Popen(command, cwd=self.folder, env=self.environment(), stdout=subprocess.DEVNULL, stderr=errors)

    def tend(self):
        """Starts again what died, and keeps the summary of a coordinator that came to the end."""
        for child, _ in self.coordinators:
            if child.poll() == 0 and self.summary is None:
                self.summary = json.loads(child.stdout.read())
        if self.summary is None:
            if all(child.poll() is not None for child, _ in self.coordinators):
                self.coordinator()
            for name, child in list(self.replicas.items()):
                if child.poll() is not None:
                    if child.returncode == 2:
                        sys.exit(f"replica {name} was refused, see {self.folder}/replica-{name}.log")
                    del self.replicas[name]
                    if name in self.names:
                        self.replica(name)

    def wait(self, seconds):
        until = time.time() + seconds
        while self.summary is None and time.time() < until:
            self.tend()
            time.sleep(0.02)

    def living(self):
        return [child for child, _ in self.coordinators if child.poll() is None]

    def fault(self, kind):
        """Does harm of this kind; the time of it."""
        victim = self.random.choice(self.names)
        pause = self.random.uniform(0.1, 1.5)
        replica, coordinators = self.replicas[victim], self.living()
        if kind.endswith("coordinator"):
            if not coordinators:
                return
            victim = "coordinator"
        self.log.append({"kind": kind, "victim": victim, "unix_ms": time.time() * 1000})
        match kind:
            case "kill":
                replica.kill()
            case "freeze" | "freeze-coordinator":
                frozen = replica if kind == "freeze" else coordinators[-1]
                frozen.send_signal(signal.SIGSTOP)
                self.wait(pause)
                frozen.send_signal(signal.SIGCONT)
            case "slow":
                until = time.time() + 2 * pause
                while self.summary is None and time.time() < until:
                    replica.send_signal(signal.SIGSTOP)
                    self.wait(0.02)
                    replica.send_signal(signal.SIGCONT)
                    self.wait(0.02)
            case "guest" if GUEST in self.replicas:
                self.replicas[GUEST].kill()
            case "guest":
                self.replica(GUEST)
            case "kill-coordinator":
                for child in coordinators:
                    child.kill()
                    child.wait()
                self.wait(self.random.uniform(0, 0.5))
            case "rival":
                self.coordinator()
            case "cut":
                self.links.set(victim, up=False)
                self.wait(pause)
                self.links.set(victim, up=True)
            case "cut-peers":
                other = self.random.choice([name for name in self.names if name != victim])
                self.links.between(victim, other, up=False)
                # Longer than it takes to notice, and than a lease.
                self.wait(4 * pause)
                self.links.between(victim, other, up=True)
            case "slow-link":
                self.links.slow(victim, True)
                self.wait(2 * pause)
                self.links.slow(victim, False)
            case "full-disk":
                self.disk.fill()
                self.wait(pause)
                self.disk.free()
            case "store-errors":
                self.disk.protect(True)
                self.wait(pause)
                self.disk.protect(False)

    def end(self):
        for child in [*self.replicas.values(), *(child for child, _ in self.coordinators)]:
            child.send_signal(signal.SIGCONT)
            child.kill()
            child.wait()


def events(folder):
    files = sorted(folder.glob("events-*.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def lake(folder, forebay):
    """A lake whose raw files are this project's sources, with the settings of a run."""
    for part in ("schemas", "store", "ingest", "loader", "trainer", "cli"):
        shutil.copytree(ROOT / part, folder / "raw" / part, ignore=lambda _, names: [name for name in names if name == "target"])
    (folder / "pipeline.toml").write_text(PIPELINE)
    (folder / "run.toml").write_text(RUN)
    subprocess.run([forebay, "ingest", "pipeline.toml", "--json"], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def calm(folder, forebay, settings):
    """The same run with one replica and without faults."""
    flags = [part for setting in [*settings, "name=calm"] for part in ("--set", setting)]
    command = [forebay, "train", "run.toml", "--events", "calm.jsonl", "--json", *flags]
    output = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(output), [json.loads(line) for line in (folder / "calm.jsonl").read_text().splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=1.5, help="mean seconds between two faults")
    parser.add_argument("--kinds", help="only these, separated by commas")
    parser.add_argument("--lake", type=pathlib.Path, help="folder with lake/code and run.toml; made anew if left out")
    parser.add_argument("--forebay", type=pathlib.Path, default=FOREBAY)
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--disk", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.lake or pathlib.Path(tempfile.mkdtemp(prefix="forebay-chaos-"))
    own = disk.Disk(folder / "lake") if arguments.disk else None
    if own:
        # Whatever fails from here on, what is below it comes to light again.
        atexit.register(own.remove)
    if not arguments.lake:
        lake(folder, arguments.forebay)
    kinds = ["kill"] * 5 + ["freeze"] * 3 + ["slow", "guest"] + ["kill-coordinator"] * 2 + ["freeze-coordinator", "rival"]
    kinds += ["cut", "cut-peers", "slow-link"] * 2 * arguments.network + ["full-disk", "store-errors"] * arguments.disk
    kinds = arguments.kinds.split(",") if arguments.kinds else kinds
    # Long enough for the faults; what is left after the last of them is trained in peace.
    steps = max(60, int(arguments.faults * arguments.pause * 25))
    settings = ["name=chaos", f"batch.steps={steps}"]
    reference, expected = calm(folder, arguments.forebay, settings)
    links = network.Links([*(f"r{index}" for index in range(arguments.replicas)), GUEST]) if arguments.network else None
    cluster = Cluster(folder, arguments.forebay, arguments.replicas, arguments.seed, settings, links, own)
    hung = False
    try:
        cluster.wait(3)
        for _ in range(arguments.faults):
            if cluster.summary is not None:
                break
            cluster.fault(cluster.random.choice(kinds))
            cluster.wait(cluster.random.expovariate(1 / arguments.pause))
        seen, since = -1, time.time()
        while cluster.summary is None and not hung:
            cluster.wait(1)
            committed = audit.last_step(events(folder))
            if committed > seen:
                seen, since = committed, time.time()
            hung = time.time() - since > HANG_SECONDS
    finally:
        cluster.end()
        if links:
            links.remove()
    found = audit.audit(events(folder), expected, steps)
    found["weights_equal"] = cluster.summary is not None and cluster.summary["weights_sha256"] == reference["weights_sha256"]
    found["hangs"] = int(hung)
    found["faults"] = dict(collections.Counter(fault["kind"] for fault in cluster.log))
    found["to_next_commit_ms"] = audit.waits(events(folder), cluster.log)
    found["seed"], found["folder"] = arguments.seed, str(folder)
    print(json.dumps(found, indent=None if arguments.json else 2))
    wrong = hung or not found["weights_equal"] or found["steps_missing"] or found["samples_wrong"] or found["disorder"]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
