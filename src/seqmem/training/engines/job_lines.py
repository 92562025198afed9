"""A live view of a sweep or a search: one line of each job in a terminal."""

import re
from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from seqmem.training.engines.display import LiveLines, one_line

_STYLES = {"waiting": "dim", "running": "bold", "done": "", "failed": "red", "pruned": "yellow"}
_width = max(map(len, _STYLES))
_position = re.compile(r", (seed \d+).*?: (epoch .*)", re.DOTALL)


@dataclass
class _Job:
    """What the line of a job says.

    Attributes:
        title: names the job.
        state: waiting, running, done, failed or pruned.
        text: result or reason of a job that has ended.
        trials: position of each running trial, by the name of its process.
        ended: place in the order of the ends; 0 before.
    """

    title: str
    state: str = "waiting"
    text: str = ""
    trials: dict[str, str] = field(default_factory=dict)
    ended: int = 0

    def line(self) -> Text:
        place = " | ".join(self.trials.values()) if self.state == "running" else self.text
        return one_line(f"{self.state:<{_width}}  {self.title}{f': {place}' if place else ''}", _STYLES[self.state])


class JobLines(LiveLines):
    """Shows the state of each job: waiting, running with its position, done with its result, failed, pruned.

    Where the terminal has fewer lines than there are jobs, those are shown that run, ended last and begin next. The last line
    counts the jobs of each state.

    Args:
        total: number of jobs, also of those that a search has not chosen yet; None if it has no limit.
        noun: what they are called.
    """

    def __init__(self, total: int | None, noun: str = "jobs"):
        super().__init__()
        self._total, self._noun = total, noun
        self._jobs: dict[str, _Job] = {}
        self._of_folder: dict[str, _Job] = {}
        self._ended = 0

    def add(self, key: str, title: str) -> None:
        """Add a job that waits."""
        self._jobs.setdefault(key, _Job(title))
        self._changed = True

    def begin(self, key: str, title: str, folder: str) -> None:
        """Note that a job runs, and the name of its trials' folder, which begins the names of its processes."""
        job = self._jobs.setdefault(key, _Job(title))
        job.title, job.state = title, "running"
        self._of_folder[folder] = job
        self._changed = True
        self.refresh()

    def end(self, key: str, state: str, text: str) -> None:
        """Note how a job ended."""
        job = self._jobs[key]
        self._ended += 1
        job.state, job.text, job.ended = state, text, self._ended
        self._changed = True
        self.refresh()

    def show(self, kind: str, name: str, content: str) -> None:
        """Print a line, or note the position of a trial."""
        job = self._of_folder.get(name.rpartition("/")[0])
        if job is not None and kind == "status":
            found = _position.search(content)
            job.trials[name] = f"{found[1]}, {found[2]}" if found else content
            self._changed = True
        elif job is not None and kind == "end":
            job.trials.pop(name, None)
            self._changed = True
        super().show(kind, name, content)

    def lines(self, console: Console) -> list[Text]:
        """Return the lines that fit, and the count."""
        jobs = list(self._jobs.values())
        room = max(1, console.size.height - 2)
        return [*(job.line() for job in (jobs if len(jobs) <= room else self._chosen(jobs, room))), self._counts(jobs)]

    def _chosen(self, jobs: list[_Job], room: int) -> list[_Job]:
        running = [k for k, job in enumerate(jobs) if job.state == "running"]
        waiting = [k for k, job in enumerate(jobs) if job.state == "waiting"]
        ended = sorted((k for k, job in enumerate(jobs) if job.ended), key=lambda k: -jobs[k].ended)
        half = max(0, room - len(running)) // 2
        next_ones = waiting[: max(half, room - len(running) - len(ended))]
        return [jobs[k] for k in sorted([*running, *next_ones, *ended][:room])]

    def _counts(self, jobs: list[_Job]) -> Text:
        count = Counter(job.state for job in jobs)
        if self._total is not None:
            count["waiting"] += self._total - len(jobs)
        ended = sum(count[state] for state in ("done", "failed", "pruned"))
        others = [f"{count[state]} {state}" for state in ("failed", "pruned", "running", "waiting") if count[state] > 0]
        of_all = "" if self._total is None else f" of {self._total}"
        return one_line(", ".join([f"{ended}{of_all} {self._noun} ended", *others]), "italic")
