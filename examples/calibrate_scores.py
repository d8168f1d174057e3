"""P(correct) from scores and verdicts, here simulated ones, and the threshold from which on answers are accepted."""

import numpy as np

from bayesian_transformer.calibration import cross_fit, fit, threshold_for

generator = np.random.default_rng(0)
ll_mean, tokens = -0.5 * generator.random(1000), 10 + generator.integers(0, 40, 1000)
right = generator.random(1000) < 1 / (1 + np.exp(-(5 + 12 * ll_mean - 0.05 * tokens)))  # the truth, which is not known

# Names and signs of scores are those of bayesian_transformer.scores: `length` is minus the token count.
table, names = {"ll_mean": ll_mean, "length": -tokens}, ("ll_mean", "length")
problems = range(1000)  # the problem of each answer; answers to one problem stay together
crossed = cross_fit(table, right, problems, names)
print(f"AUROC {crossed.auroc:.3f}, Brier score {crossed.brier:.3f}, of the base rate {crossed.base_brier:.3f}")
print(threshold_for(crossed.p_correct, right, alpha=0.2, groups=problems))

calibrator = fit(table, right, problems, names, source={"model": "my-model"})
print(calibrator.predict({"ll_mean": [-0.1, -0.4], "length": [-12, -40]}))
print(calibrator.check(model="another-model"))
