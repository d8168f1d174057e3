"""What the terms of the detection report mean, for whoever reads it."""

from bayesian_transformer.aggregations import AGGREGATIONS, BOTTOM_FRACTION
from bayesian_transformer.bootstrap import LEVEL
from bayesian_transformer.metrics import RISK_PERCENTS, TOP_PERCENTS

from .comparison import PARTITIONS
from .csv_tables import PUBLISHED_COLUMNS
from .length import FOLDS
from .probability import BINS

_NEWER = {how.name: how for how in AGGREGATIONS if how.explored}.values()  # each name once, with one formula
DEFINITIONS = (
    ("Positive class", "a right answer. Uncertainties are negated, so larger always means more confident."),
    ("AUROC", "share of right-wrong pairs in which the right answer scores higher; a tie counts half."),
    ("AUPRC", "trapezoid over the points of scikit-learn's precision_recall_curve."),
    ("ACC*", "accuracy of the most confident 50% of the answers (rounded down, at least one; ties by expectation)."),
    ("PRR", "(e - AURC) / (e - AURC of the perfect ranking), e the error rate; no cap on rejection (LM-Polygraph)."),
    ("prr50", "in the CSV files: PRR over the rejection of less than half of the answers (LM-Polygraph's cap of 0.5)."),
    (
        "AURC",
        "area under the risk-coverage curve, the mean error rate of the k most confident over all k; lower is better.",
    ),
    ("eaurc", "in the CSV files: E-AURC, AURC minus AURC of the perfect ranking; 0 is perfect."),
    (
        "augrc",
        "in the CSV files: AUGRC (Traub et al., 2024), the mean over all k of the wrong ones among the k most "
        "confident, as a share of all answers; lower is better. "
        "It puts scores of the same answers in the order of AUROC.",
    ),
    (
        ", ".join(f"top{percent}" for percent in TOP_PERCENTS if percent != 50),
        "in the CSV files: as ACC*, of so many percent of the answers.",
    ),
    (
        ", ".join(f"cov_risk{percent}" for percent in RISK_PERCENTS),
        "in the CSV files: the largest share of the answers above a threshold of which at most so many percent are "
        "wrong, chosen in hindsight; tied answers are kept together.",
    ),
    (
        "Within strata",
        "AUROC over pairs of one token-count stratum only; the token count's own row shows what length still explains.",
    ),
    (
        "Residual",
        "AUROC of what a straight line in the token count leaves of the score; the line is fitted on other problems, "
        f"once for each of {FOLDS} parts.",
    ),
    ("Within level", "AUROC over pairs of one level of the data set only, such as a difficulty or a kind of problem."),
    ("Over length", "AUROC of the score minus AUROC of the token count, interval from the same bootstrap draws."),
    ("Confidence", "DeepConf's token confidence; its groups are all full sliding windows of tokens."),
    ("Lowest, bottom groups", f"the lowest mean of a group; the mean over the lowest {BOTTOM_FRACTION:.0%} of groups."),
    *((f"{how.label[0].upper()}{how.label[1:]}", f"{how.formula}.") for how in _NEWER),
    (
        "P(correct)",
        "a logistic regression on the scores that metadata.json names. Cross-fitted: each answer gets it from a model "
        f"that was fitted on other problems. Its figures are means over {PARTITIONS} ways to deal the problems into "
        "parts; intervals keep the fitted models.",
    ),
    ("Brier score, log-loss", "mean of (P - right)^2; mean of -log P of what was the case, in nats. Lower is better."),
    (
        "ECE",
        f"mean gap between P(correct) and the share of right answers in {BINS} bins of equally many answers. Chance "
        "alone makes one, so the value that perfect probabilities would show stands beside it.",
    ),
    (
        "Accepted",
        "answers with P(correct) from the threshold on; with confidence 1 - delta at most a share alpha of them is "
        "wrong (fixed-sequence testing with Clopper-Pearson bounds, on one seed).",
    ),
    (
        "Published names",
        "the CSV files repeat some columns under their published names: "
        + ", ".join(f"{alias} is {name}" for alias, name in PUBLISHED_COLUMNS.items() if alias.startswith("auc_"))
        + ".",
    ),
    ("Undecided", "an answer that the grader could not decide within its limits; it counts as wrong."),
    (
        "±",
        "sample standard deviation over the seeds (ddof = 1). Greedy texts are the same for every seed, so it is then "
        "the spread of the weight samples' noise alone.",
    ),
    ("[low, high]", f"{LEVEL}% percentile interval of the mean over seeds, from a bootstrap over problems."),
)
