"""Rule sweep: the points of a sweep in one table and one figure; no model is loaded."""

from callwright.runtime import job


def main(snakemake):
    from callwright.report import scaling
    from callwright.report.drawing import save_as
    from callwright.report.seeds import as_rows
    from callwright.report.sweep import as_csv, as_markdown, collect, draw, written
    from callwright.runtime.files import atomic_write, read_json, write_json

    sweep, output = snakemake.params[0], snakemake.output
    summaries = dict(zip(sweep["points"], map(read_json, snakemake.input.summaries), strict=True))
    found = collect(snakemake.wildcards.sweep, sweep["keys"], sweep["points"], summaries)
    texts = {output.csv: as_csv(found), output.markdown: as_markdown(found)}
    if "seeds" in found:
        texts[output.seeds] = written(as_rows(found["seeds"]))
    for path, text in texts.items():
        with atomic_write(path) as stream:
            stream.write(text.encode())
    figures = [(draw(found), (output.svg, output.png))]
    if output.get("scaling_svg"):
        figures.append((scaling.draw(found), (output.scaling_svg, output.scaling_png)))
    for figure, paths in figures:
        for path in paths:
            save_as(figure, path)
    write_json(output.json, found)


job.run(snakemake, main)
