"""`diptych curate`: from a crawl to shards."""

from cyclopts import App

curate = App(name="curate", help="Make training shards of a crawl.")
curate.command("diptych.cli.curate_queries:queries", name="queries")
