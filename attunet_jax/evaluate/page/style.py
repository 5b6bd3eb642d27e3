"""The style of the report, after that of all the project's pages."""

STYLE = (
    """
:root { --n0: #0b66b0; --n1: #c4560d; --n2: #1f7f47; --n3: #8a3fb0; --n4: #b3264f;
  --n5: #7a6a00; --n6: #0e7f8a; --n7: #6b5648; --mark: #fff3c4; }
@media (prefers-color-scheme: dark) { :root { --n0: #64b5f6; --n1: #ffa366;
  --n2: #74d39b; --n3: #cf9bea; --n4: #f48ba6; --n5: #d8c95a; --n6: #66cfd9;
  --n7: #c9b3a3; --mark: #4a3d12; } }
body { max-width: 80rem; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.75rem; letter-spacing: -.01em; line-height: 1.2; }
h2 { font-size: 1.3rem; margin: 3rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); scroll-margin-top: .5rem; }
h3 { margin: 1.75rem 0 .5rem; }
p, ul.plain { max-width: 46rem; margin: .5rem 0; }
ul.plain { padding-left: 1.2rem; }
.headline { font-size: 1.1rem; line-height: 1.55; margin: 1rem 0; }
.headline p { max-width: 50rem; }
.note { color: var(--dim); font-size: .875rem; }
nav { font-size: .875rem; margin: 1.25rem 0 0; display: flex; flex-wrap: wrap;
  gap: .25rem 1.1rem; }
nav a { text-decoration: none; } nav a:hover { text-decoration: underline; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none;
  padding: 0; margin: .5rem 0; font-size: .875rem; overflow-wrap: anywhere; }
.key .swatch { border: 0; }
table { margin: .25rem 0; } .wide { margin: .25rem 0 1rem; }
td, tbody th { padding-right: 1.25rem; }
tbody th { color: var(--ink); position: static; }
tbody tr:hover { background: var(--panel); }
caption { text-align: left; color: var(--dim); font-size: .875rem; padding: 0 0 .35rem;
  caption-side: top; }
small { color: var(--dim); font-size: .92em; margin-left: .35em; }
th { padding-right: 1.25rem; }
.claim { font-weight: 600; } .blank { color: var(--warning); }
.plots { display: flex; flex-wrap: wrap; gap: 1rem 1.25rem; margin: .5rem 0 1rem; }
svg { max-width: 100%; height: auto; font: 10.5px system-ui, sans-serif;
  background: var(--ground); }
svg text { fill: var(--dim); } svg .m { text-anchor: middle; }
svg .e { text-anchor: end; }
svg .b { fill: var(--ink); font-weight: 600; font-size: 12px; }
svg path { fill: none; stroke-width: 1; } svg .g { stroke: var(--line); }
svg .pair { stroke: var(--ink); opacity: .16; stroke-width: .8; }
svg .box { fill-opacity: .14; stroke-width: 1.2; } svg .edge { stroke-width: 1.2; }
svg .median { stroke-width: 2.4; } svg .curve { stroke-width: 1.8; }
svg .mean { fill: var(--ground); stroke: var(--ink); }
svg .p { stroke-width: 5; stroke-linecap: round; stroke-opacity: .6; }
"""
    + "".join(
        f"svg .n{i} {{ stroke: var(--n{i}); }} svg circle.n{i}, svg rect.n{i} "
        f"{{ fill: var(--n{i}); }} svg text.n{i} {{ fill: var(--n{i}); stroke: none }} "
        f".swatch.n{i} {{ background: var(--n{i}); }}\n"
        for i in range(8)
    )
    + """
.means .wide, .whole .wide { max-height: none; }
.means tbody th { white-space: nowrap; }
.many td { white-space: normal; min-width: 9rem; }
.many small { display: block; margin: 0; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--link);
  padding: .25rem 0; width: fit-content; }
.worst { display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr));
  gap: 1rem 1.25rem; margin: .5rem 0 1rem; }
.worst .strip { display: flex; gap: 2px; }
.worst .row { grid-column: span 2; } .worst .row .strip { display: grid; }
.worst img { min-width: 0; flex: 1 1 0; width: 100%; height: auto; display: block;
  background: #000; }
.worst figcaption { overflow-wrap: anywhere; margin-top: .3rem; line-height: 1.4; }
.worst figcaption b { color: var(--ink); }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: end;
  margin: .75rem 0; font-size: .875rem; }
.controls label { display: grid; gap: .15rem; color: var(--dim); }
.controls .tick { display: flex; gap: .4rem; align-items: center;
  padding-bottom: .3rem; }
input, select, button { font: inherit; color: inherit; background: var(--ground);
  border: 1px solid var(--line); border-radius: .3rem; padding: .25rem .5rem;
  max-width: 16rem; }
button { cursor: pointer; }
th button { border: 0; padding: 0; font-weight: 600; background: none;
  text-align: inherit; color: inherit; white-space: nowrap; }
th button::after { content: " ↕"; opacity: .35; }
th[aria-sort=ascending] button::after { content: " ↑"; opacity: 1; }
th[aria-sort=descending] button::after { content: " ↓"; opacity: 1; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: .4rem;
  padding: .75rem 1rem; overflow: auto; max-height: 32rem; font-size: .8rem;
  line-height: 1.4; }
#cases th button { white-space: normal; }
#cases .wide { max-height: 40rem; } #cases tbody td { white-space: nowrap; }
@page { size: A4; margin: 14mm 12mm; }
@media print {
  :root { color-scheme: light; --ink: #000; --dim: #444; --ground: #fff;
    --panel: #fff; --line: #bbb; --link: #000; --warning: #7a4d00; --n0: #0b66b0;
    --n1: #c4560d; --n2: #1f7f47; --n3: #8a3fb0; --n4: #b3264f; --n5: #7a6a00;
    --n6: #0e7f8a; --n7: #6b5648; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .controls, .screen { display: none; }
  .wide, pre, #cases .wide { overflow: visible; max-height: none; }
  table { font-size: 8pt; width: 100%; } td, th { padding: .15rem .5rem .15rem 0;
    position: static; }
  tr, figure, svg { break-inside: avoid; } .short { break-inside: avoid; }
  thead { display: table-header-group; } h2, h3, caption { break-after: avoid; }
  h2 { margin-top: 1.5rem; } .plots { display: block; }
  .plots svg { width: 48%; margin: 0 1% .5rem 0; }
  .worst { display: block; } .worst figure { display: inline-block; width: 31%;
    margin: 0 1.5% .75rem 0; vertical-align: top; }
  th button::after { content: ""; } pre { white-space: pre-wrap; font-size: 7pt; }
  td, th, th button, .number, .organ, .means tbody th, #cases tbody td
  { white-space: normal; } .many td { min-width: 0; }
  td:not(.number), th:not(.number) { overflow-wrap: anywhere; min-width: 4rem; }
}
"""
)
