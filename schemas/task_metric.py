"""A task's metric: what ``evaluate()`` may call its numbers, which of them judges the task, and which way is better.

The evaluator writes each number under its own name into the evaluation's record. That record has fields of its own, and
readers know fields of the other kinds by their names, so those names are reserved: a number of such a name would
disappear, or be read as something that it is not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from schemas.manifests import Metric

LOSS: Final = "loss"
ACCURACY: Final = "accuracy"
NAMES_THE_METRIC: Final = "metric"
"""The field of an evaluation's record that names the task's metric."""
SAYS_WHICH_WAY: Final = "better"
"""The field that says whether "higher" or "lower" is better."""
HIGHER: Final = "higher"
LOWER: Final = "lower"
WAYS: Final = (HIGHER, LOWER)
NAME_CHARACTERS_MAX: Final = 64
NAME_RULE: Final = (
    f"1 to {NAME_CHARACTERS_MAX} letters, digits, spaces and _ . @ / : % + ( ) [ ] -, beginning with a letter"
)

# fmt: off
RESERVED: Final = frozenset({
    # what every record or an evaluation's says
    "kind", "schema_version", "task", "at_ms", "version", "accepted", "refused", "staleness_mean", "staleness_max",
    "update_bytes", "seconds", "model_sha256", "model_bytes", "created_at_ms", "evaluated_at_ms", "fairness_gap",
    "evaluation_problem", "evaluation_error_id",
    NAMES_THE_METRIC, SAYS_WHICH_WAY, "metric_value", "metrics_renamed",
    # what records of the other kinds say
    "reason", "accept_ratio", "windows", "regions", "participation", "weight_total", "stored_bytes", "optimizer_sha256",
    "manifest_sha256", "parent_sha256", "policy_sha256", "region", "partition", "sequence", "first_offset",
    "next_offset", "devices", "devices_contributing", "fill_seconds", "clipped", "norm_p10", "norm_p50", "norm_p90",
    "cosine_p10", "cosine_p50", "cosine_p90", "norm_deviations_p10", "norm_deviations_p50", "norm_deviations_p90",
    "minute_ms", "records", "canaries", "bytes_up", "bytes_down", "storage_bytes", "device_seconds",
    "device_seconds_updates", "currency", "cost_up", "cost_down", "cost_devices", "cost_storage_month", "cost_total",
    # what an export adds
    "offset", "timestamp_ms", "log_partition", "extra", "unreadable",
})
# fmt: on
"""Fields of ``metrics.v1.schema.json`` that are no task's, and columns of an export. A test compares them."""
_RESERVED_SHAPES: Final = re.compile(
    r"verdicts_.*|.*_(class_-?\d+|cohort_\d+)|.*_(worst|best)_decile|cohort_\d+_.*", re.DOTALL
)
_NAME: Final = re.compile(rf"[^\W\d_](?:[\w .@/:%+()\[\]-]{{0,{NAME_CHARACTERS_MAX - 2}}}[\w.@/:%+()\[\]-])?")
_BAD_CHARACTER: Final = re.compile(r"[^\w .@/:%+()\[\]-]")


def problem_with_name(name: str) -> str:
    """Why a number of ``evaluate()`` cannot be called so; "" when it can."""
    if name in RESERVED or _RESERVED_SHAPES.fullmatch(name):
        return "records have a field of this name already"
    return "" if _NAME.fullmatch(name) else f"expected {NAME_RULE}"


def name_instead(name: str) -> str:
    """A name for the same number that can be used."""
    plain = " ".join(_BAD_CHARACTER.sub("_", name).split()).strip()[: NAME_CHARACTERS_MAX - 5].strip()
    if plain and not problem_with_name(plain):
        return plain
    for suggestion in (f"eval_{plain}", f"eval_{plain}_"):
        if not problem_with_name(suggestion):
            return suggestion
    return "eval_" + re.sub(r"\W|_", "", plain) + "_value"


def usable_names(results: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """(the numbers under names that a record can have, {its name: the name it has there} of those renamed)."""
    kept = {name: value for name, value in results.items() if not problem_with_name(name)}
    renamed: dict[str, str] = {}
    for name, value in results.items():
        if name in kept:
            continue
        wanted, number = name_instead(name), 2
        free = wanted
        while free in kept:
            free, number = f"{wanted}_{number}", number + 1
        kept[free] = value
        renamed[name] = free
    return kept, renamed


# -- which way is better

# fmt: off
_HIGHER: Final = frozenset({
    "accuracy", "acc", "r2", "r²", "rsquared", "rsquare", "explainedvariance", "evs", "auc", "auroc", "auprc", "aucpr",
    "rocauc", "prauc", "roc", "f1", "f2", "fbeta", "fscore", "fmeasure", "gmean", "precision", "recall", "sensitivity",
    "specificity", "tpr", "tnr", "ppv", "npv", "truepositiverate", "truenegativerate", "negativepredictivevalue",
    "positivepredictivevalue", "iou", "miou", "dice", "jaccard", "ap", "map", "ndcg", "dcg", "mrr", "hits", "hit", "hr",
    "bleu", "rouge", "rougel", "chrf", "meteor", "bertscore", "em", "exactmatch", "psnr", "ssim", "kappa", "qwk", "mcc",
    "matthews", "correlation", "corr", "corrcoef", "pearson", "spearman", "kendall", "pearsonr", "spearmanr", "ccc",
    "concordance", "cindex", "reward", "return", "likelihood", "loglikelihood", "lift", "gain", "top1", "top3", "top5",
    "silhouette", "ari", "nmi", "purity", "coverage", "win", "success", "elbo", "nse", "mos", "pesq", "stoi", "snr",
    "sdr", "sisdr", "similarity", "youden", "gini",
})
_LOWER: Final = frozenset({
    "loss", "error", "err", "errors", "mae", "mse", "rmse", "rmsle", "msle", "mape", "smape", "wape", "mase", "medae",
    "medianae", "nrmse", "mbe", "bias", "residual", "residuals", "perplexity", "ppl", "bpc", "bpb", "bpd", "wer", "cer",
    "ter", "eer", "hter", "der", "fid", "kid", "lpips", "brier", "nll", "logloss", "ce", "bce", "crossentropy",
    "entropy", "hinge", "deviance", "divergence", "kl", "kld", "jsd", "distance", "dist", "hausdorff", "hd95", "ece",
    "mce", "calibrationerror", "regret", "fpr", "fnr", "fdr", "falsepositiverate", "falsenegativerate", "false",
    "rank", "crps", "pinball", "aic", "bic", "latency", "cost", "gap", "loss_mean",
})
_HIGHER_IF_NOTHING_ELSE: Final = frozenset({"score", "r"})
# fmt: on
_NEGATED: Final = frozenset({"neg", "negative", "minus"})
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NOT_WORD: Final = re.compile(r"[\W_]+")


def higher_is_better(name: str) -> bool | None:
    """Which way is better, by the well-known names in ``name``; None where it holds none.

    ``val_rmse``, ``RMSE``, ``f1 (macro)``, ``recall@5``: the last word that is known counts, and ``neg_`` turns it.
    """
    words = [word for word in _NOT_WORD.split(_CAMEL.sub(" ", name).lower()) if word]
    whole = "".join(words)
    if (known := _known(whole)) is not None:
        return known
    turned = bool(_NEGATED & set(words))
    for word in reversed(words):
        if (known := _known(word)) is not None:
            return known is not turned
    return (not turned) if _HIGHER_IF_NOTHING_ELSE & set(words) else None


def _known(word: str) -> bool | None:
    return True if word in _HIGHER else False if word in _LOWER else None


# -- which of them is the task's


def metric_called(name: str) -> Metric:
    """The metric of this name; where its name does not say which way is better, higher is."""
    way = higher_is_better(name)
    return Metric(name, higher_is_better=True if way is None else way)


def metric_among(results: Mapping[str, float]) -> Metric:
    """The metric of a task that declares none: the first of its numbers that is not the loss, else the loss."""
    return metric_called(next((name for name in results if name != LOSS), LOSS))


def metric_of(declared: Metric | None, evaluation: Mapping[str, Any] | None) -> Metric | None:
    """By what a task is judged: as its genesis says, else as an evaluation's record does; None before there is one.

    The first records did not say it: there it is the accuracy, else the first other number by name, else the loss.
    """
    if declared is not None or evaluation is None:
        return declared
    if (named := metric_in(evaluation)) is not None:
        return named
    own = values_of(evaluation)
    return metric_called(ACCURACY) if ACCURACY in own else metric_among(dict(sorted(own.items())))


def metric_in(evaluation: Mapping[str, Any]) -> Metric | None:
    """The metric that an evaluation's record names; None where it names none, as the first records did."""
    name, way = evaluation.get(NAMES_THE_METRIC), evaluation.get(SAYS_WHICH_WAY)
    if not isinstance(name, str) or way not in WAYS or problem_with_name(name):
        return None
    return Metric(name, higher_is_better=way == HIGHER)


def named_in_record(metric: Metric) -> dict[str, str]:
    """How an evaluation's record says by which number its task is judged."""
    return {NAMES_THE_METRIC: metric.name, SAYS_WHICH_WAY: way_of(metric)}


def way_of(metric: Metric) -> str:
    """Which is better, as a word: "higher" or "lower"."""
    return HIGHER if metric.higher_is_better else LOWER


def values_of(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of an evaluation's record that are the task's own, by name, in the record's order."""
    return {
        name: float(value)
        for name, value in evaluation.items()
        if is_finite(value) and not problem_with_name(name)
    }


def is_finite(value: object) -> TypeGuard[float]:
    """Whether it is a number that a float holds: JSON may spell 1e999, and whole numbers of a thousand digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_better(metric: Metric, one: float, other: float) -> bool:
    """Whether ``one`` is better than ``other``, both finite; equal is not."""
    return one > other if metric.higher_is_better else one < other


def reaches(metric: Metric, value: float, target: float) -> bool:
    """Whether ``value`` is as good as ``target``, or better."""
    return value >= target if metric.higher_is_better else value <= target


def best_version(metric: Metric, values: Mapping[int, float]) -> int | None:
    """The version with the best finite value, the earliest of equal ones; None where there is none."""
    best: int | None = None
    for version in sorted(values):
        value = values[version]
        if math.isfinite(value) and (best is None or is_better(metric, value, values[best])):
            best = version
    return best
