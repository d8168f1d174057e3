"""A small portion of the campaign of hostile answers."""

from tests.soak import hostile_answers


def test_hostile_answers_are_neither_executed_nor_endless() -> None:
    figures = hostile_answers.run(answers=56, seed=1, kills=3, seconds=0.7)
    assert figures["killed_workers"] >= 1, "the campaign was over before a worker could be killed"
    assert figures["right"] + figures["wrong"] + figures["undecided"] == 112


def test_the_same_seed_makes_the_same_answers() -> None:
    drawn = [[make(hostile_answers.random.Random(5)) for make in hostile_answers.FAMILIES.values()] for _ in range(2)]
    assert drawn[0] == drawn[1]
