"""The bench: learning rules on five small tasks, and on one's own.

A task is what `task.Task` holds: ``init(key)``, ``loss(params, key)`` of a random batch,
``score(params, split)``, steps and batch. The registries are `catalogue.TASKS`, with three more in
`catalogue.HELD_OUT`, and `rules.RULES`; ``--task module:name`` and ``--rule module:name`` take
others. Each rule has the same number of rates, is tuned on the validation split and looked at on
the test split, with other seeds.

Nothing is claimed: this is what other experiments stand on. A result is kept in the folder of the
run, and a run that was cut off goes on where it was.
"""

from tqdm import tqdm

from experiments import report
from experiments.kept import Kept
from experiments.tasks import measuring
from experiments.tasks.catalogue import HELD_OUT, TASKS
from experiments.tasks.config import Config
from experiments.tasks.measuring import Budget, Setup
from experiments.tasks.rules import RULES
from experiments.tasks.task import code_of, find

__all__ = ["Config", "run"]


def run(config: Config) -> report.Report:
    """Measure every rule on every task, and print a table."""
    kept = Kept(config.folder / "kept")
    budget = Budget(config.seed, config.tuning_seeds, config.seeds)
    found = {name: {} for name in config.task}
    with tqdm(total=len(config.task) * len(config.rule), unit="rule") as bar:
        for task_name, of_task in found.items():
            task = find("task", task_name, TASKS | HELD_OUT)()
            for rule_name in config.rule:
                bar.set_description(f"{task_name}, {rule_name}")
                setup = Setup(find("rule", rule_name, RULES), config.schedule)
                options = {"task": task_name, "rule": rule_name, "schedule": config.schedule}
                where = "/".join(options.values()).replace(":", ".")
                own = {name: code_of(name) for name in (task_name, rule_name)}
                depends = options | {"own code": own}
                tuned = measuring.tune(kept, where, task, setup, budget, depends)
                of_task[rule_name] = measuring.metrics(tuned.last)
                bar.update()
    for task_name, of_task in found.items():
        print(f"{task_name}: test error, mean and 95 % interval")
        for rule_name, said in of_task.items():
            mean, low, high = said["error"]
            rate = said["settings"]["rate"]
            print(f"  {rule_name:<24}{mean:.4f}  [{low:.4f}, {high:.4f}]  rate {rate:g}")
    return report.Report([], {"tasks": found})
