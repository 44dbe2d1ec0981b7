"""Rule sweep: the points of a sweep in one table and one figure; no model is loaded."""

from callsmith.runtime import job


def main(snakemake):
    from callsmith.report.drawing import save_as
    from callsmith.report.sweep import as_csv, as_markdown, collect, draw
    from callsmith.runtime.files import atomic_write, read_json, write_json

    sweep, output = snakemake.params[0], snakemake.output
    summaries = dict(zip(sweep["points"], map(read_json, snakemake.input.summaries), strict=True))
    found = collect(snakemake.wildcards.sweep, sweep["keys"], sweep["points"], summaries)
    for path, text in ((output.csv, as_csv(found)), (output.markdown, as_markdown(found))):
        with atomic_write(path) as stream:
            stream.write(text.encode())
    figure = draw(found)
    for path in (output.svg, output.png):
        save_as(figure, path)
    write_json(output.json, found)


job.run(snakemake, main)
