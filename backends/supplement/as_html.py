"""A report as one HTML text: pictures inside it, nothing from elsewhere, to read and to print."""

from __future__ import annotations

import html

from backends.supplement.content import Block, Facts, Part, Pictures, Report, Table, Words
from explorer.page.parts import document as html_document
from explorer.page.pictures import data_uri

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  color: #1d1e20; background: #fbfaf7; }
main { max-width: 980px; margin: 0 auto; padding: 36px 28px 64px; }
h1 { font: 400 32px/1.2 Georgia, "Times New Roman", serif; margin: 0; }
h2 { font: 400 23px/1.25 Georgia, "Times New Roman", serif; margin: 44px 0 12px; padding-top: 20px;
  border-top: 1px solid #e4e0d8; }
.sub { color: #6a6863; margin: 6px 0 0; }
nav { margin: 24px 0 0; font-size: 14px; columns: 2 320px; }
nav a { display: block; color: #0c6170; text-decoration: none; padding: 1px 0; }
nav a:hover { text-decoration: underline; }
p { margin: 0 0 10px; max-width: 78ch; }
.note { color: #6a6863; font-size: 13px; }
.warning { border-left: 3px solid #b2182b; padding: 6px 12px; background: #f8ece8; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 18px;
  margin: 0 0 14px; }
dt { color: #6a6863; } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 0 0 18px; }
table { border-collapse: collapse; font-size: 13px; line-height: 1.4; width: 100%;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0 0 6px; }
th, td { text-align: right; vertical-align: top; padding: 4px 12px 4px 0;
  border-bottom: 1px solid #e4e0d8; }
th { font-weight: 600; border-bottom-color: #9b9a96; } .words { text-align: left; }
figure.row { margin: 0 0 20px; } figure.row > figcaption { font-weight: 600; margin-bottom: 8px; }
.pictures { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(148px, 1fr)); }
.pictures figure { margin: 0; font-size: 13px; line-height: 1.4; }
.pictures img, .absent { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 3px;
  margin-top: 4px; display: block; }
.absent { background: #ece9e2; color: #6a6863; display: grid; place-content: center;
  text-align: center; padding: 10px; }
.pictures small { color: #6a6863; display: block; font-size: 12px; }
.wide img { width: 100%; background: #fff; border-radius: 3px; padding: 10px; }
footer { margin-top: 40px; color: #6a6863; font-size: 13px; }
@media print { body { background: #fff; font-size: 11px; } main { max-width: none; padding: 0; }
  h2 { break-after: avoid; } figure, tr { break-inside: avoid; } nav { display: none; } }
"""
ABSENT = "left out"


def document(report: Report) -> str:
    """Return the HTML of a report."""
    text = html.escape
    links = "".join(
        f'<a href="#part-{i}">{text(part.title)}</a>' for i, part in enumerate(report.parts)
    )
    parts = "\n".join(_part(i, part) for i, part in enumerate(report.parts))
    body = f"""<main>
<h1>{text(report.title)}</h1>
<p class="sub">{text(report.subtitle)}</p>
<nav aria-label="Contents">{links}</nav>
{parts}
<footer>{text(report.provenance)}</footer>
</main>"""
    return html_document(report.title, f"<style>{STYLE}</style>", body)


def _part(number: int, part: Part) -> str:
    blocks = "\n".join(_block(block) for block in part.blocks)
    title = html.escape(part.title)
    return f'<section id="part-{number}">\n<h2>{title}</h2>\n{blocks}\n</section>'


def _block(block: Block) -> str:
    text = html.escape
    if isinstance(block, Words):
        kind = "" if block.kind == "text" else f' class="{block.kind}"'
        return f"<p{kind}>{text(block.text)}</p>"
    if isinstance(block, Facts):
        rows = "".join(f"<dt>{text(a)}</dt><dd>{text(b)}</dd>" for a, b in block.rows if b)
        return f"<dl>{rows}</dl>"
    return _table(block) if isinstance(block, Table) else _pictures(block)


def _table(table: Table) -> str:
    def line(tag: str, cells: tuple[str, ...]) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        made = ""
        for i, one in enumerate(cells):
            kind = ' class="words"' if i in table.texts else ""
            made += f"<{tag}{scope}{kind}>{html.escape(one)}</{tag}>"
        return f"<tr>{made}</tr>"

    caption = f"<caption>{html.escape(table.caption)}</caption>" if table.caption else ""
    body = "".join(line("td", row) for row in table.rows)
    name = html.escape(table.caption or "Table")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f"<table>{caption}<thead>{line('th', table.columns)}</thead><tbody>{body}</tbody></table>"
        "</div>"
    )


def _pictures(block: Pictures) -> str:
    shown = []
    for one in block.pictures:
        title = html.escape(one.title)
        if one.image is None:
            image = f'<div class="absent">{ABSENT}</div>'
        else:
            alt = html.escape(one.title or block.caption)
            image = f'<img src="{data_uri(one.image)}" alt="{alt}">'
        lines = "".join(f"<small>{html.escape(line)}</small>" for line in one.lines)
        shown.append(f"<figure>{title}{image}{lines}</figure>" if not block.wide else image)
    kind = "wide" if block.wide else "pictures"
    caption = html.escape(block.caption)
    return (
        f'<figure class="row"><figcaption>{caption}</figcaption>'
        f'<div class="{kind}">{"".join(shown)}</div></figure>'
    )
