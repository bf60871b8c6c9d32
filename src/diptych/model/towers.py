"""Every kind of tower, as two unions of configs. CONTRIBUTING.md tells what adding one takes.

A config tells all that the rest of the house asks about its tower; nobody else asks which class it is.

Of an image tower: `kind`, its name in recipes; `image_size`; `patches`, positions of its last grid; `can_drop_patches`;
`needs_whole_batch`, as batch norm does; `wants_channels_last`, the memory order of its weights; `fixed_embed_dim`, D
where it has no projection to any other; `token_width`, channels of what its `tokens_and_feature` gives beside the
feature, one row a position, and 0 where it has no such method.

Of a text tower: `kind`; `context_length`; `vocab_size`; `reads_padding`; `rows_are_features`, whether it adds up rows
of its token embedding, each the feature of that token; `golden_texts`, which a saved model is checked with;
`check_tokenizer`.

Of both: `has_blocks`, of the kind that can be computed a second time, compiled and shared out; `summary`, a few words;
`build`, the module; `cost`, of one sample.
"""

from diptych.model.bag_tower import BagTowerConfig
from diptych.model.efficientnet_tower import EfficientNetTowerConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.sentence_tower import SentenceTowerConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.model.text_tower import TextTowerConfig

# The first of each is what a recipe means that names no kind.
ImageConfig = ImageTowerConfig | ResNetTowerConfig | SigLIPImageTowerConfig | EfficientNetTowerConfig
TextConfig = TextTowerConfig | SigLIPTextTowerConfig | SentenceTowerConfig | BagTowerConfig
