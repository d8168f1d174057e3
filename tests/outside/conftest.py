"""The files that both tests of this folder look at."""

import pytest

from tests.outside.written_files import Written


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """What the programs write, made when it is first asked for, once per session."""
    return Written(tmp_path_factory.mktemp("outside"))
