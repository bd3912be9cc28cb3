"""What a run's events say about its exactness. Pure: events in, findings out.

A committed step is *lost* if a later generation begins before it although it was committed: its samples are trained once more.
That is inherent only where everybody who had the state was gone at once. The last commit of a coordinator that is killed may be
unknown to all: it is then committed again by the next one from the same gradients, and counts as *repeated*, not as lost. Or the
replicas heard of it and the events did not, since answers go first: it is *untold* where the next coordinator begins after it.
"""
import statistics


def commits(files):
    """Of all coordinators, in order: (generation, step, samples digest, unix_ms)."""
    events = [event for file in files for event in file if event["kind"] == "step_committed"]
    found = [(event["generation"], event["step"], event["samples_digest"], event["unix_ms"]) for event in events]
    # A coordinator that was overtaken goes on for a moment beside the next one; generations order what they did.
    return sorted(found, key=lambda commit: (commit[0], commit[1]))


def last_step(files):
    return max((step for _, step, _, _ in commits(files)), default=-1)


def audit(files, reference, steps):
    expected = {event["step"]: event["samples_digest"] for event in reference if event["kind"] == "step_committed"}
    done, lost, repeated, disorder, last = {}, 0, 0, [], None
    for generation, step, digest, _ in commits(files):
        if last and generation == last[0] and step != last[1] + 1:
            disorder.append(f"generation {generation}: step {step} after step {last[1]}")
        if step in done:
            again = max(done) - step + 1
            lost += max(0, again - 1)
            repeated += min(again, 1)
            for later in [other for other in done if other >= step]:
                del done[later]
        done[step], last = digest, (generation, step)
    generations = [event["generation"] for file in files for event in file if event["kind"] == "generation_formed"]
    if len(generations) != len(set(generations)):
        disorder.append("a generation was formed twice")
    formed = [[event["step"] for event in file if event["kind"] == "generation_formed"] for file in files]
    missing = set(range(steps)) - set(done)
    untold = missing & {begun[0] - 1 for begun in formed if begun}
    return {
        "steps": steps,
        "generations": len(generations),
        "steps_missing": sorted(missing - untold)[:10],
        "steps_untold": len(untold),
        "steps_lost": lost,
        "steps_repeated": repeated,
        "samples_wrong": sorted(step for step, digest in done.items() if digest != expected[step])[:10],
        "disorder": disorder[:10],
    }


def waits(files, faults):
    """By kind of fault: milliseconds from it to the next commit that is no part of a step of before it."""
    times = sorted(commit[3] for commit in commits(files))
    found = {}
    for fault in faults:
        # A step that was committed in the very moment of the signal is not one that the others made without the victim.
        after = next((at for at in times if at > fault["unix_ms"] + 5), None)
        if after is not None:
            found.setdefault(fault["kind"], []).append(after - fault["unix_ms"])
    return {kind: quantiles(ms) for kind, ms in found.items()}


def quantiles(values):
    ordered = sorted(values)
    at = lambda share: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))])
    return {"count": len(ordered), "p50": round(statistics.median(ordered)), "p90": at(0.9), "p99": at(0.99), "max": at(1)}
