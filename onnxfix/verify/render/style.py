"""How pages look."""

from __future__ import annotations

BASE = """
:root { --back: #fff; --text: #1c2330; --soft: #5b6675; --line: #d9dee6; --panel: #f5f7fa;
  --good: #177245; --bad: #b3261e; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --text: #e4e8ee; --soft: #9aa5b4; --line: #333b47;
  --panel: #1c2128; --good: #57c98a; --bad: #ff8a80; --warn: #f0b64d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: .4rem 0 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
.good { --mark: var(--good); } .bad { --mark: var(--bad); } .warn { --mark: var(--warn); }
code, pre { font: .9em/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; }
pre { overflow-x: auto; }
small, .legend, th, dt { color: var(--soft); }
svg { display: block; }
svg.small { width: 7.5rem; height: 2rem; }
svg.large { width: 100%; height: auto; margin: .8rem 0; }
svg .good { fill: var(--good); } svg .bad { fill: var(--bad); } svg .zero { fill: var(--soft); }
svg .endless { fill-opacity: .45; stroke: var(--bad); stroke-width: .6; }
svg line { stroke: var(--line); } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
details { border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .8rem; margin: .5rem 0; }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: .6rem 0; }
dd { margin: 0; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; }
li { overflow-wrap: anywhere; white-space: pre-line; }
"""
"""What all pages share: colours, light and dark, type, plots."""

STYLE = (
    BASE
    + """main { max-width: 64rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
header { background: var(--panel); border-left: .35rem solid var(--mark); border-radius: .4rem; padding: 1rem 1.2rem;
  margin-bottom: 1.5rem; }
.badge { margin: 0; color: var(--mark); font-weight: 700; letter-spacing: .06em; text-transform: uppercase; }
.sentence { margin-top: .6rem; }
header ul, header pre { margin: .6rem 0 0; }
.legend { font-size: .85rem; }
table { width: 100%; border-collapse: collapse; }
th { text-align: left; font-size: .8rem; font-weight: 600; }
th, td { padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
td[data-name="Values"], th:nth-child(3) { text-align: right; font-variant-numeric: tabular-nums; }
td[data-name="Verdict"] { color: var(--mark); font-weight: 600; }
.whole { white-space: nowrap; }
@media (max-width: 40rem) {
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tr { display: block; border-bottom: 1px solid var(--line); padding: .6rem 0; }
  td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0; text-align: right; }
  td.none { display: none; }
  td::before { content: attr(data-name); color: var(--soft); text-align: left; }
  td[data-name="Output"] { display: block; text-align: left; } td[data-name="Output"]::before { content: none; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
}
@media print { details { break-inside: avoid; } }
"""
)
"""The page of a verification."""
