"""Templates of this folder, filled: all text is escaped, none is read as HTML."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from kneessl import __version__
from kneessl.report import wording


def render(template: str, **values: object) -> str:
    """Fill a template of this folder; all values are escaped, and one that it lacks raises."""
    return _environment().get_template(template).render(version=__version__, **values)


@cache  # it compiles a template once, and a server or a batch fills the same one again and again
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kneessl.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "auc": wording.auc_text,
        "cell": wording.cell_text,
        "count": wording.count_text,
        "difference": wording.difference_text,
        "durations": wording.durations_text,
        "estimate": wording.estimate_text,
        "flags": wording.flag_texts,
        "mean_accuracy": wording.mean_accuracy_text,
        "mean_auc": wording.mean_auc_text,
        "memory": wording.memory_text,
        "note": wording.column_note,
        "number": wording.number_text,
        "p": wording.p_text,
        "p_false": wording.p_false_text,
        "percent": wording.percent_text,
        "probability": wording.probability_text,
        "proportion": wording.proportion_text,
        "sentence": wording.sentence_text,
        "value": wording.value_text,
    }
    environment.globals["false_claims"] = wording.FALSE_CLAIMS
    return environment
