from diptych.weights.unopened import what_it_is


def test_a_model_that_does_not_open_is_told_with_what_to_take():
    assert what_it_is("jina_clip").startswith("jina-clip, ")
    assert "Take a SigLIP 2" in what_it_is("jina_clip")
    assert what_it_is("gpt2") == what_it_is(None) == "another kind"
