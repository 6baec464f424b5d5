"""The table of mutants is in step with the code: `make mutants` runs them, outside CI."""

from pathlib import Path

import pytest

from mutants.table import MUTANTS, read_sources

ROOT = Path(__file__).parents[2]


def test_each_defect_has_its_place() -> None:
    sources = read_sources(ROOT)
    assert all(mutant.find(sources) for mutant in MUTANTS)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_a_defect_without_a_place() -> None:
    with pytest.raises(LookupError, match=f"{MUTANTS[0].name} must be moved along"):
        MUTANTS[0].find({})


def test_their_tests_exist() -> None:
    for test in {test for mutant in MUTANTS for test in mutant.tests}:
        file, *names = test.split("::")
        text = (ROOT / file).read_text()
        assert all(f"def {name}(" in text or f"class {name}" in text for name in names), test
