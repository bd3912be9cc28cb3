"""Measures `forebay loader bench` in one part after the other; run.sh says how it is called, README.md what it found."""
import argparse, glob, json, os, resource, statistics, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
RUN = """
name = "bench"
dataset = "{dataset}"
checkpoints = "{lake}/checkpoints"
[model]
{model}
[batch]
steps = 1000000000
micro_batches = 1
micro_batch_size = {size}
[augment]
min_crop_area = 0.08
flip = 0.5
max_rotation_degrees = 0.0
"""
ALL = os.sched_getaffinity(0)
PHOTOS = ('kind = "resnet"\ndepth = 18\nimage_size = 224', 64)
TOKENS = ('kind = "gpt"\nlayers = 1\nheads = 2\nwidth = 64', 16)


class Bench:
    def __init__(self, options):
        self.options = options

    def run(self, dataset, shape, *arguments, cpus={0}, settings=(), env=None, prefix=()):
        """One measurement: the report, with the wall time of the whole process as `process_seconds`."""
        path = f"{self.options.lake}/bench.toml"
        with open(path, "w") as file:
            file.write(RUN.format(dataset=dataset, lake=self.options.lake, model=shape[0], size=shape[1]))
        sets = [word for setting in settings for word in ("--set", setting)]
        command = [*prefix, self.options.forebay, "loader", "bench", path, "--threads", "1", "--json", *arguments, *sets]
        pin = lambda: os.sched_setaffinity(0, cpus)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, preexec_fn=pin)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        report = json.loads(done.stdout)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        report["process_seconds"] = time.perf_counter() - began
        report["process_cpu_seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        accounted = sum(report["waits"].values()) + report["consumer"]
        assert abs(accounted / report["seconds"] - 1) < 0.01, f"{accounted} s of {report['seconds']} are accounted for"
        return report

    def rounds(self, *arguments, **named):
        return [self.run(*arguments, **named) for _ in range(self.options.rounds)]

    def photos(self):
        return f"{self.options.lake}/photos"

    def tokens(self):
        return f"{self.options.lake}/tokens"


def median(reports, of):
    return statistics.median(of(report) for report in reports)


def spread(reports, of):
    values = sorted(of(report) for report in reports)
    return f"{statistics.median(values):.3f} (median of {len(values)}, {values[0]:.3f} to {values[-1]:.3f})"


def stalls(report):
    causes = {**report["waits"], "consumer": report["consumer"]}
    shares = ", ".join(f"{cause} {100 * seconds / report['seconds']:.1f} %" for cause, seconds in causes.items() if seconds > 0.0005 * report["seconds"])
    return f"    of {report['seconds']:.2f} s: {shares}"


def bare(bench):
    """L1, L4: processor time of the loader over that of its kernel in a plain loop, and over that of memcpy."""
    reports = bench.rounds(bench.photos(), PHOTOS, "--steps", "60", "--bare")
    over = lambda r: (r["cpu_seconds"] / r["samples"]) / (r["bare"]["cpu_seconds"] / r["bare"]["samples"]) - 1
    print(f"photos: CPU over the bare kernel's, less 1: {spread(reports, over)}; {median(reports, lambda r: r['samples'] / r['cpu_seconds']):,.0f} a CPU-second, "
          f"kernel {median(reports, lambda r: r['bare']['samples'] / r['bare']['cpu_seconds']):,.0f}")
    for pixels in ("bf16", "f16", "u8"):
        reports = bench.rounds(bench.photos(), PHOTOS, "--steps", "60", settings=[f"batch.pixels={pixels}"])
        print(f"photos as {pixels}: {median(reports, lambda r: r['samples'] / r['cpu_seconds']):,.0f} a CPU-second")
    for verify in ("true", "false"):
        reports = bench.rounds(bench.tokens(), TOKENS, "--steps", "240000", "--bare", settings=[f"loader.verify={verify}"])
        rate = lambda r: r["megabytes"] / r["cpu_seconds"] / 1e3
        copy = memcpy(bench.options.rounds)
        print(f"tokens, verify = {verify}: {median(reports, lambda r: 1024 * r['samples'] / r['cpu_seconds'] / 1e6):,.0f} M a CPU-second, "
              f"{median(reports, rate):.2f} GB a CPU-second, memcpy {copy:.2f} GB/s: ratio {median(reports, rate) / copy:.2f}")
        print(stalls(reports[0]))


def memcpy(rounds):
    """GB/s of copies of 64 MiB, from one part of memory to another."""
    source, target = bytearray(os.urandom(1 << 20) * 64), bytearray(64 << 20)
    rates = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(20):
            target[:] = source
        rates.append(20 * len(source) / (time.process_time() - began) / 1e9)
    return statistics.median(rates)


def rivals(bench):
    """L2, L4: samples and tokens a CPU-second, ours and the rivals' in turn."""
    ours = {"photos": [], "tokens": []}
    theirs = {}
    for _ in range(bench.options.rounds):
        ours["photos"].append(bench.run(bench.photos(), PHOTOS, "--steps", "60"))
        ours["tokens"].append(bench.run(bench.tokens(), TOKENS, "--steps", "60000"))
        command = [sys.executable, f"{HERE}/rivals.py", bench.options.lake]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {0}))
        for line in done.stdout.splitlines():
            rival = json.loads(line)
            theirs.setdefault((rival["what"], rival["rival"]), []).append(rival["rate"])
        if done.returncode:
            print(done.stderr.strip().splitlines()[-1:], file=sys.stderr)
    each = {"photos": lambda r: r["samples"] / r["cpu_seconds"], "tokens": lambda r: 1024 * r["samples"] / r["cpu_seconds"]}
    for what, reports in ours.items():
        rate = median(reports, each[what])
        print(f"{what}: forebay {rate:,.0f} a CPU-second ({len(reports)} rounds)")
        for (of, rival), rates in sorted(theirs.items()):
            if of == what:
                other = statistics.median(rates)
                print(f"{what}: {rival} {other:,.0f} a CPU-second, ours {rate / other:.2f} times that")


def start(bench):
    """L6: from the start of the process to its first batch, at position 0 and after 99 % of 10⁹ samples."""
    for name, dataset, shape in (("photos", bench.photos(), PHOTOS), ("tokens", bench.tokens(), TOKENS)):
        late = str(int(0.99e9) // shape[1])
        first = lambda r: r["process_seconds"]
        at_0, at_99 = [], []
        for _ in range(bench.options.rounds):
            at_0.append(bench.run(dataset, shape, "--steps", "1"))
            at_99.append(bench.run(dataset, shape, "--steps", "1", "--step", late))
        print(f"{name}: process to first batch {spread(at_0, first)} s, at 99 % of 10⁹ samples {spread(at_99, first)} s, "
              f"ratio {median(at_99, first) / median(at_0, first):.3f}")


def memory(bench):
    """L11: peak of resident memory against the budget, and its growth over 10⁶ batches."""
    steps = "1000000"
    for prefetch in (64, 128, 256):
        report = bench.run(bench.tokens(), (TOKENS[0], 2), "--steps", steps, settings=[f"loader.prefetch={prefetch}MiB"])
        found = report["memory"]
        print(f"tokens, {int(report['samples']) // 2:,} batches, prefetch {prefetch} MiB: peak less what was there before the first "
              f"{(found['peak'] - found['before']) / (prefetch << 20):.2f} of it, growth from a tenth on "
              f"{(found['late'] - found['early']) / (1 << 20):+.1f} MiB")
    # Less than two batches and rows of the next, 99 MiB, is said to be too little.
    for prefetch in (128, 256):
        reports = bench.rounds(bench.photos(), PHOTOS, "--steps", "60", settings=[f"loader.prefetch={prefetch}MiB"])
        share = lambda r: (r["memory"]["peak"] - r["memory"]["before"]) / (prefetch << 20)
        print(f"photos, prefetch {prefetch} MiB: peak less what was there before the first, of it: {spread(reports, share)}")


def cache(bench):
    """Photos without a cache, with one that holds all, and with one that does not."""
    folder = f"{bench.options.lake}/cache"
    for name, settings in (("none", []), ("of all", [f"loader.cache.folder={folder}"]), ("of 8 MiB", [f"loader.cache.folder={folder}", "loader.cache.size=8MiB"])):
        reports = bench.rounds(bench.photos(), PHOTOS, "--steps", "60", settings=settings)
        assert len({report["samples_digest"] for report in reports}) == 1, "runs were fed differently"
        print(f"photos, cache {name}: {median(reports, lambda r: r['samples'] / r['cpu_seconds']):,.0f} a CPU-second, rows read / wanted "
              f"{median(reports, lambda r: r['work']['read_rows'] / r['work']['used_rows']):.3f}")


PIPELINES = {"photos": ["examples/photos.toml"], "tokens": ["examples/rust-code.toml", "--set", "pack.sequence_length=1024"]}


def uploaded(bench, name):
    """A dataset in the S3 server that AWS_* and FOREBAY_TEST_S3 name."""
    bucket = os.environ.get("FOREBAY_TEST_S3")
    if not bucket:
        sys.exit('needs an S3 server: eval "$(infra/s3/start.sh start)"')
    dataset = f"{bucket.rstrip('/')}/bench-{name}"
    env = {**os.environ, "PHOTOS": f"{bench.options.lake}/flower_photos_val"}
    if subprocess.run([bench.options.forebay, "dataset", "show", dataset], capture_output=True, env=env).returncode:
        command = [bench.options.forebay, "ingest", *PIPELINES[name], "--set", f"dataset={dataset}"]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        if done.returncode:
            sys.exit(done.stderr)
    return dataset


def storage(bench):
    """Bytes that come from S3 for each byte of rows that are wanted, and where the time goes."""
    files = [os.path.getsize(file) for file in glob.glob(f"{bench.options.lake}/flower_photos_val/**/*.jpg", recursive=True)]
    row_bytes = {"photos": sum(files) / len(files), "tokens": 2 * 1025}
    for name, shape, steps in (("photos", PHOTOS, 120), ("tokens", TOKENS, 3000), ("tokens", TOKENS, 24000)):
        dataset = uploaded(bench, name)
        reports = bench.rounds(dataset, shape, "--steps", str(steps), cpus=ALL, settings=["loader.hedge=0"])
        got = lambda r: r["traffic"]["bytes"] / (row_bytes[name] * r["work"]["used_rows"])
        print(f"{name} from S3, {steps} batches: bytes got / wanted {spread(reports, got)}, rows "
              f"{median(reports, lambda r: r['work']['read_rows'] / r['work']['used_rows']):.3f}, {median(reports, lambda r: r['traffic']['requests']):,.0f} requests")
        print(stalls(reports[0]))


def remote(bench, proxy_arguments):
    """The photos in an S3 server behind a link that is shaped."""
    dataset, endpoint = uploaded(bench, "photos"), os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT")
    proxy = subprocess.Popen([sys.executable, f"{HERE}/link.py", endpoint, *proxy_arguments], stdout=subprocess.PIPE, text=True)
    address = proxy.stdout.readline().strip()
    return dataset, {"AWS_ENDPOINT_URL": address, "AWS_ENDPOINT": address}, proxy


def link(bench):
    """L5: bytes of answers a second over the link's rate, at several delays; hardly more of them than pictures have (`storage`)."""
    rate = 3.125e6
    for delay in (0, 20, 100):
        dataset, env, proxy = remote(bench, ["--rate", str(rate), "--delay", str(delay / 1000)])
        try:
            reports = bench.rounds(dataset, PHOTOS, "--steps", "60", cpus=ALL, env=env, settings=["loader.hedge=0"])
        finally:
            proxy.kill()
        share = lambda r: r["traffic"]["bytes"] / r["seconds"] / rate
        print(f"photos, 25 Mbit/s, {delay} ms: payload over the link's rate {spread(reports, share)}")
        print(stalls(reports[0]))


def tail(bench):
    """L10: from batch to batch of a consumer that computes for 20 ms, the 99.9th percentile over the median."""
    slow = ["--slow", "0.01", "--slower", "20"]
    for name, how, hedge in (("all alike", [], "4"), ("1 % take 400 ms", slow, "4"), ("1 % take 400 ms, none asked for twice", slow, "0")):
        dataset, env, proxy = remote(bench, ["--delay", "0.02", *how])
        try:
            reports = bench.rounds(dataset, (PHOTOS[0], 8), "--steps", "3000", "--pace", "20", cpus=ALL, env=env, settings=[f"loader.hedge={hedge}"])
        finally:
            proxy.kill()
        ratio = lambda r: r["between"]["p999"] / r["between"]["p50"]
        print(f"photos, requests of 20 ms, {name}: p99.9 / p50 {spread(reports, ratio)}, {median(reports, lambda r: r['hedges']):.0f} hedges")


PARTS = {"bare": bare, "rivals": rivals, "start": start, "memory": memory, "cache": cache, "storage": storage, "link": link, "tail": tail}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forebay", required=True)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    options = parser.parse_args()
    for part in options.parts or ["bare", "rivals", "start", "memory", "cache"]:
        PARTS[part](Bench(options))
