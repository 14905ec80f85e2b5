r"""What to hand over when learning ends: the last iterate, an average, a schedule's end, or both.

Claim, on noisy quadratics: where the noise is what there is to lose, an average of the iterates at
a constant rate ends lower than the best schedule of the last iterate that a search over all rates
finds; where the start is what there is to lose, such a schedule ends lower; and one number, the
carried start of `regimes`, says which, more often than it is right to take a schedule always. On
the quadratic of `quadratic` (200 curvatures 1/i, 300 steps) all losses are exact: the best schedule
ends at 0.336, the plain average at 0.273, rates and gains that are optimised together at 0.260, and
a learner who knows every curvature at 0.255. `simulated` holds the library's optimizer against
exact losses.

`bench` asks the same of networks, with Adam, SGD with momentum and Muon inside, every number chosen
on a validation split with the same number of rates for every arm. What was expected of it was
written down before, in ``predictions.md``, whose digest ``metrics.json`` holds, and `judging` says
what came of it. `draws` holds draws of parameters against a temperature and other controls.

It would be refuted by a schedule below the average on the standard problem, by an average that wins
where the start is what there is to lose, by a signal-to-noise ratio that says as well which of them
wins, and by a simulation that disagrees with the moments.
"""

from tqdm import tqdm

from experiments import report
from experiments.certainty import bench, drawing, draws, quadratic, regimes, simulated
from experiments.certainty.config import Config
from experiments.certainty.results import Results, claims, metrics, read

__all__ = ["Config", "run"]

STEPS = 300


def run(config: Config) -> report.Report:
    """Compute, survey, simulate, train, draw."""
    exact = read(quadratic.standard(), STEPS, config.iterations)
    rates = quadratic.RATES[:: 5 if config.quick else 1]
    named = {
        name: regimes.compare(problem, STEPS, rates)
        for name, problem in tqdm(regimes.regimes().items(), "regimes", unit="problem")
    }
    surveyed = regimes.survey(config.quick)
    benched = bench.measure(config)
    results = Results(
        exact=exact,
        regimes=named,
        map=surveyed,
        carried_start=regimes.decided(surveyed, regimes.carried_start),
        signal_to_noise=regimes.decided(surveyed, regimes.signal_to_noise),
        simulated=simulated.simulate(exact.rates, exact.curves, config.paths, config.seed),
        benched=benched,
        drawn=draws.measure(config, benched),
    )
    drawing.draw(config.folder / "certainty.png", results)
    drawing.draw_bench(config.folder / "bench.png", results)
    drawing.draw_draws(config.folder / "draws.png", results.drawn)
    return report.Report(claims(results, quick=config.quick), metrics(results))
