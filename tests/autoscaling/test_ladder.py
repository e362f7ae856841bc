"""The best variant grows as far as it may; then, and as long as it lacks replicas, the next cheaper one begins."""

from tests.autoscaling.asked_by_serve import ENGINE, OTHER, VARIANT, Application

HOLD_S = 60.0


def town(max_replicas: int = 2) -> Application:
    application = Application(
        ENGINE, VARIANT, OTHER, max_replicas=max_replicas, variants=[["tiny", "tiny-w4"], ["big.1"]]
    )
    application.targets[ENGINE] = 1
    for model in ("tiny", "tiny-w4", "big.1"):
        application.queue(0.0, model=model)
    return application


def loaded(application: Application, running: float, after_s: float = 1.0) -> tuple[int, int, int]:
    """Replicas of the best, of its variant and of another model, after a second in which each of the best's runs so
    many requests on ten slots."""
    application.run(ENGINE, running=running)
    application.run(VARIANT, running=0.0)
    targets = application.tick(after_s)
    return targets["engine-tiny"], targets["engine-tiny-w4"], targets["engine-big.1"]


def test_what_the_best_may_still_have_is_not_asked_of_a_cheaper_one() -> None:
    application = town()
    assert loaded(application, 10.0) == (2, 0, 0)
    for _ in range(5):
        assert loaded(application, 6.0) == (2, 0, 0)


def test_what_the_best_may_not_have_starts_the_cheaper_one_and_no_other_model() -> None:
    application = town()
    for _ in range(3):
        seen = loaded(application, 10.0)
    assert seen == (2, 1, 0)


def test_the_cheaper_one_stays_as_long_as_the_best_lacks_and_is_held_after_that() -> None:
    application = town()
    for _ in range(int(3 * HOLD_S)):
        seen = loaded(application, 10.0)
    assert seen == (2, 1, 0), "for as long as the best lacks replicas"
    assert loaded(application, 5.0, HOLD_S - 5.0)[1] == 1
    for _ in range(int(2 * HOLD_S)):
        seen = loaded(application, 5.0)
    assert seen[1:] == (0, 0)


def test_a_state_that_was_lost_ends_nothing_at_once() -> None:
    application = town()
    for _ in range(3):
        loaded(application, 10.0)
    application.states = {}
    assert loaded(application, 5.0)[1:] == (1, 0), "a lost memory never shrinks a fleet at once"
