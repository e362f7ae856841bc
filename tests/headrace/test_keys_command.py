"""`headrace keys`: a key is shown once and opens what it should; what can't be done is said in one line."""

import json
import time
from pathlib import Path

import pytest

from deployments.fleet import Fleet, validate
from deployments.store import Store
from headrace import keys
from headrace.door import asks_for_keys, check_open, key_for, stored_keys
from headrace.failure import Failure
from headrace.folders import store_file
from headrace.key_limits import limits, shown
from headrace.stores import stored

DAY_S = 24 * 3600.0


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    return tmp_path


def fleet(**router: object) -> Fleet:
    return validate({"models": [{"name": "tiny", "source": "tiny"}], "router": router})


def create(
    capsys: pytest.CaptureFixture[str], tenant: str = "alpha", models: tuple[str, ...] = (), **asked: object
) -> str:
    usual = {"expires": None, "note": "", "run": "default", "store": None}
    keys.create(tenant, list(models), **usual | asked, as_json=False)  # type: ignore[arg-type]
    shown = capsys.readouterr()
    assert shown.out.strip() not in shown.err
    return shown.out.strip()


def listed(capsys: pytest.CaptureFixture[str], *, everything: bool = False) -> list[dict[str, object]]:
    keys.show(everything=everything, run="default", store=None, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == 1
    return told["keys"]


def test_a_key_is_shown_once_and_opens_the_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    assert not asks_for_keys(fleet(), "default")
    text = create(capsys, models=("tiny",), expires="90d", note="tests")
    (told,) = listed(capsys)
    assert (told["tenant"], told["models"], told["note"], told["state"]) == ("alpha", ["tiny"], "tests", "works")
    assert isinstance(told["expires_s"], float)
    assert told["expires_s"] - time.time() == pytest.approx(90 * DAY_S, abs=60)
    assert text not in json.dumps(told)
    assert "hash" not in told
    assert asks_for_keys(fleet(), "default")
    assert key_for(fleet(), text, asks=True, name="default") == text
    with pytest.raises(Failure, match="is no key of this fleet"):
        key_for(fleet(), "hr-other", asks=True, name="default")
    with pytest.raises(Failure, match="--ask: this fleet asks for a key"):
        key_for(fleet(), None, asks=True, name="default")


def test_a_revoked_key_is_named_by_itself_or_its_id_and_listed_with_all(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = create(capsys), create(capsys, "beta")
    keys.revoke(one, run="default", store=None)
    keys.revoke(one.split("-")[1], run="default", store=None)
    said = capsys.readouterr().out.splitlines()
    assert "is revoked: refused within 3 s in routers that run" in said[0]
    assert "already" in said[1]
    assert [key["id"] for key in listed(capsys)] == [other.split("-")[1]]
    assert [key["state"] for key in listed(capsys, everything=True)] == ["revoked", "works"]


def test_a_successor_has_the_same_rights_and_lasts_as_long(capsys: pytest.CaptureFixture[str]) -> None:
    old = create(capsys, models=("tiny",), expires="10d", note="tests")
    keys.rotate(old, grace="1h", run="default", store=None, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["tenant"], told["models"], told["note"]) == ("alpha", ["tiny"], "tests")
    assert told["expires_s"] - told["created_s"] == pytest.approx(10 * DAY_S)
    before, after = listed(capsys)
    assert (before["id"], after["id"]) == (old.split("-")[1], told["id"])
    assert isinstance(before["expires_s"], float)
    assert before["expires_s"] - time.time() == pytest.approx(3600, abs=60)
    for key in (old, told["key"]):
        assert key_for(fleet(), key, asks=True, name="default") == key


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"tenant": "a b"}, "--tenant: should be letters"),
        ({"expires": "soon"}, "--expires: should be like 90s, 30m, 1h or 2d, got 'soon'"),
        ({"store": "here.sqlite"}, "--store: should be sqlite:///FILE or postgresql+psycopg://"),
        ({"store": "sqlite:////no/such/file"}, "--store: /no/such/file: no such file"),
    ],
)
def test_what_can_t_be_made_is_said_in_one_line(
    asked: dict[str, str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Failure) as refused:
        create(capsys, **asked)
    assert str(refused.value).startswith(line)
    assert (len(str(refused.value).splitlines()), refused.value.exit_code) == (1, 2)
    assert not store_file("default").exists()


def test_limits_of_a_key_are_listed_and_its_successor_shares_them(capsys: pytest.CaptureFixture[str]) -> None:
    asked = limits(60, None, ["5000000/month", "9000000"], ["3600/day"])
    name = create(capsys, limits=asked).split("-")[1]
    (told,) = listed(capsys)
    month, total = ({"unit": "tokens", "amount": n, "period": per} for n, per in ((5e6, "month"), (9e6, "total")))
    minute = {"unit": "requests", "amount": 60, "period": None}
    assert told["limits"] == [minute, month, total, {"unit": "gpu_s", "amount": 3600, "period": "day"}]
    for _ in range(2):
        keys.rotate(name, grace="1h", run="default", store=None, as_json=True)
        new = json.loads(capsys.readouterr().out)
        assert (new["limits"], new["account"]) == (told["limits"], told["id"])
        name = new["id"]
    assert shown(asked) == "60 requests/min, 5000000 tokens/month, 9000000 tokens/total, 3600 GPU-seconds/day"
    assert shown(()) == "none"


@pytest.mark.parametrize(
    ("tokens", "gpu_s", "line"),
    [
        (["5000/week"], [], "--budget-tokens: should be like 1000000, 50000/day or 1000000/month, got '5000/week'"),
        (["0/day"], [], "--budget-tokens: should be"),
        (["1.5/day"], [], "--budget-tokens: should be"),
        ([], ["-3/day"], "--budget-gpu-s: should be"),
        (["5/day", "6/day"], [], "one budget of a kind, tokens/day is given 2 times"),
    ],
)
def test_a_budget_that_is_none_is_said_in_one_line(tokens: list[str], gpu_s: list[str], line: str) -> None:
    with pytest.raises(Failure) as refused:
        limits(None, None, tokens, gpu_s)
    assert str(refused.value).startswith(line)
    assert refused.value.exit_code == 2


def test_a_key_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    create(capsys)
    for act in (
        lambda: keys.revoke("12345678", run="default", store=None),
        lambda: keys.rotate("12345678", grace="1h", run="default", store=None, as_json=False),
    ):
        with pytest.raises(Failure, match="no key '12345678' is in this store"):
            act()


def test_a_fleet_is_opened_to_others_only_with_a_key_or_on_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    check_open(fleet(), "default")
    check_open(fleet(host="0.0.0.0", open=True), "default")
    check_open(fleet(host="0.0.0.0", open=False), "default")
    with pytest.raises(Failure, match=r"router.host: 0\.0\.0\.0 .*`headrace keys create --tenant NAME`") as refused:
        check_open(fleet(host="0.0.0.0"), "default")
    assert (len(str(refused.value).splitlines()), refused.value.exit_code) == (1, 2)
    create(capsys)
    check_open(fleet(host="0.0.0.0"), "default")
    with pytest.raises(Failure, match=r"router\.host"):
        check_open(fleet(host="0.0.0.0"), "second")


def test_where_a_fleet_runs_elsewhere_its_store_is_not_looked_into(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failure, match="name `tenants` or a `store`"):
        check_open(fleet(host="0.0.0.0"), None)
    check_open(stored(fleet(host="0.0.0.0"), "default"), None)


def test_a_store_that_can_t_be_read_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    store_file("default").parent.mkdir(parents=True)
    store_file("default").write_text("no database at all, but long enough to be taken for one: " * 20)
    with pytest.raises(Failure, match="can't be opened"):
        stored_keys(fleet(), "default")


def test_keys_of_one_run_are_not_another_s(capsys: pytest.CaptureFixture[str]) -> None:
    text = create(capsys, run="second")
    assert not store_file("default").exists()
    Store(stored(fleet(), "second").store.url or "").close()
    with pytest.raises(Failure, match="no key of this fleet"):
        key_for(fleet(open=False), text, asks=True, name="default")
    assert key_for(fleet(), text, asks=True, name="second") == text
