"""Judges a job by what its processes said of themselves: which hangs, which is silent.

`reports` holds, for each process that is not done, what it said last and how many
seconds ago; `hosts` their names.
"""

from attunet_jax.distributed.progress import Report

Reports = dict[int, tuple[Report, float]]

# How often processes say how far they are.
INTERVAL_S = 1.0
CONTINUES = "the last checkpoint is whole: the same command continues from it"


def slack_s(reports: Reports) -> float:
    """How much longer the job may be idle: as long as any of its processes."""
    return max(report.slack_s - age_s for report, age_s in reports.values())


def is_silent(age_s: float) -> bool:
    """Whether what a process said last is too old for one that runs."""
    return age_s > 3 * INTERVAL_S


def who_hangs(reports: Reports, processes: int, hosts: dict[int, str]) -> str | None:
    """Says who is behind where no process makes progress; None where one does.

    `reports` holds what each process said, and how many seconds ago.
    """
    if not reports or slack_s(reports) >= 0:
        return None
    idle_s = min(report.idle_s + age_s for report, age_s in reports.values())
    limit_s = max(report.limit_s for report, _ in reports.values())
    begun = f"no progress for {idle_s:.0f} s, more than {limit_s:.0f} s: "
    steps = {i: -1 if r.step is None else r.step for i, (r, _) in reports.items()}
    first, last = min(steps.values()), max(steps.values())
    behind = [i for i, step in steps.items() if step == first]
    if processes == 1:
        who = f"step {first}, {reports[0][0].doing}"
    elif first == last and len(behind) == processes:
        who = f"all {processes} processes are at step {first}: " + _named(
            reports, behind, hosts
        )
    else:
        who = f"{_named(reports, behind, hosts)} is behind at step {first}"
        who += f", the others at step {last}" if last > first else ""
    where = "on this terminal" if processes == 1 else "in the logs of the run"
    return (
        f"{begun}{who}; Python stacks of all threads are {where}; {CONTINUES} "
        "(--config.train.hang_limit_s, if steps may take longer)"
    )


def _named(reports: Reports, which: list[int], hosts: dict[int, str]) -> str:
    """process 1 (left, waits for data), process 2 (right, stopped) and 30 more"""
    words = []
    for i in which[:4]:
        report, age_s = reports[i]
        doing = report.doing
        if is_silent(age_s):
            doing = f"says nothing since {age_s:.0f} s: stopped?"
        words.append(f"process {i} ({hosts.get(i, '?')}, {doing})")
    more = f" and {len(which) - 4} more" if len(which) > 4 else ""
    return ", ".join(words) + more


def who_is_silent(
    reports: Reports,
    processes: int,
    hosts: dict[int, str],
    silence_s: float,
) -> str | None:
    """Names a process of which nothing came for longer than `silence_s`."""
    longest, i = max((age_s, i) for i, (_, age_s) in reports.items())
    if longest <= silence_s:
        return None
    return (
        f"process {i} of {processes} ({hosts.get(i, '?')}) says nothing since "
        f"{longest:.0f} s: it was stopped, or its host is gone; {CONTINUES}"
    )
