"""What some models are that do not open, by the `model_type` of their `config.json`, and what to take instead."""

_WHAT_IT_IS = {
    "jina_clip": "jina-clip, whose towers are code of its own repository, which no library has and diptych does not "
    "run. Take a SigLIP 2 or a MetaCLIP 2, which read many languages, too",
}


def what_it_is(model_type: object) -> str:
    """A few words that end a sentence; "another kind" where there are none for it."""
    return _WHAT_IT_IS.get(str(model_type), "another kind")
