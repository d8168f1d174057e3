"""How many examples the fuzz tests of this folder try: `HYPOTHESIS_PROFILE=nightly` for many, else `ci`.

A profile is global to hypothesis, and a test takes it when it is defined. So it is loaded while the modules of this
folder are imported, and no test elsewhere sees it.
"""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)  # texts of models are long, and workers compare them
settings.register_profile("ci", max_examples=60, deadline=None, suppress_health_check=SLOW)
settings.register_profile("nightly", max_examples=2000, deadline=None, suppress_health_check=SLOW)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    before = settings.get_current_profile_name()
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
    try:
        return (yield)
    finally:
        settings.load_profile(before)
