"""What some models are that do not open, by the `model_type` of their `config.json`, and what to take instead."""

_WHAT_IT_IS = {
    "jina_clip": "jina-clip, whose towers are code of its own repository, which no library has and diptych does not "
    "run. Take a SigLIP 2 or a MetaCLIP 2, which read many languages, too",
    "blip-2": "BLIP-2, whose 32 features of a picture are compared with a text one by one. Take a SigLIP 2",
    "tipsv2": "TIPS v2, whose tokenizer has no end token and whose pictures are resized in torch. Take a SigLIP 2",
    "videoprism": "VideoPrism, a model of films. Take a CLIP, and ask it of frames",
    "M-CLIP": "M-CLIP, a text tower alone. Take an XLM-R CLIP of LAION's, whose pictures come with it",
    "vision-text-dual-encoder": "two encoders of any kinds. Take a CLIP, or an XLM-R CLIP for other languages",
    "clip_vision_model": "the image tower of a CLIP alone. Take the whole model, with its text tower",
    "siglip_vision_model": "the image tower of a SigLIP alone. Take the whole model, with its text tower",
    "bert": "a text encoder alone",
    "vit": "an image classifier",
}


def what_it_is(model_type: object) -> str:
    """A few words that end a sentence; "another kind" where there are none for it."""
    return _WHAT_IT_IS.get(str(model_type), "another kind")
