import json

import diptych
from diptych.eval.conditions import conditions, same_conditions
from diptych.eval.features import ModelFeatures
from diptych.weights.bundle import Bundle


def facts(bundle: Bundle, *, seed: int = 0, sha256: str = "a") -> dict:
    return conditions("zero-shot", ModelFeatures(bundle), model="m", data="set", split="test", sha256=sha256, seed=seed)


def test_a_result_names_what_it_hangs_on(tiny_bundle: Bundle):
    found = json.loads(json.dumps(facts(tiny_bundle, seed=3)))
    assert found["model"] == {"name": "m", "fingerprint": tiny_bundle.fingerprint()}
    assert found["data"] == {"name": "set", "split": "test", "sha256": "a"}
    assert (found["task"], found["seed"], found["precision"]) == ("zero-shot", 3, "float32")
    assert found["versions"]["diptych"] == diptych.__version__
    assert {"torch", "python", "pillow"} < found["versions"].keys()
    assert {"cpu", "cores"} <= found["hardware"].keys()


def test_the_machine_makes_no_other_result_and_all_else_does(tiny_bundle: Bundle):
    one = facts(tiny_bundle)
    assert same_conditions({**one, "hardware": {"cpu": "another"}, "top1": 0.5}, one)
    assert not same_conditions(facts(tiny_bundle, seed=1), one)
    assert not same_conditions(facts(tiny_bundle, sha256="b"), one)
    assert not same_conditions(one, one | {"templates": ["{}"]})
    for other in (None, [], "text", {}):
        assert not same_conditions(other, one)
