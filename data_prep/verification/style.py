"""How the page looks: CSS for light and dark, screens of any width, and many cases."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #5d6771; --ground: #ffffff;
  --panel: #f5f6f8; --line: #dde1e6; --link: #0b5cad; --error: #b3261e;
  --warning: #8a5a00; --fine: #1f7a3f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --dim: #9aa4ae;
  --ground: #14171a; --panel: #1d2125; --line: #333a41; --link: #7db8f0;
  --error: #ff8a80; --warning: #f0b955; --fine: #79cf95; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 72rem; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.wide { overflow: auto; max-height: 32rem; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; position: sticky; top: 0;
  background: var(--ground); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.links { overflow-wrap: anywhere; min-width: 9rem; }
.organ { white-space: nowrap; }
.legend { color: var(--dim); font-size: .875rem; max-width: 48rem; }
.tag { font-size: .75rem; font-weight: 600; border: 1px solid currentColor;
  border-radius: .25rem; padding: 0 .35rem; white-space: nowrap; }
.error .tag, .bad { color: var(--error); }
.warning .tag { color: var(--warning); }
.fine .tag, .good { color: var(--fine); }
.bad, .good { font-weight: 600; margin: 0; }
section { background: var(--panel); border: 1px solid var(--line);
  border-radius: .5rem; padding: 1rem; margin: 1rem 0; content-visibility: auto;
  contain-intrinsic-size: auto 40rem; scroll-margin-top: 1rem; }
section th { background: var(--panel); }
section ul { list-style: none; margin: 0 0 .75rem; padding: 0; }
section li { margin: .25rem 0; overflow-wrap: anywhere; font-size: .9rem; }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; align-items: flex-end; }
figure { margin: 0; }
figure img { display: block; background: #000; max-width: 100%; height: auto; }
figcaption { color: var(--dim); font-size: .8rem; }
.facts { display: flex; flex-wrap: wrap; gap: 1rem 3rem; margin-top: .75rem; }
.facts .wide { flex: 0 1 auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0;
  font-size: .875rem; flex: 0 1 28rem; align-content: start; }
dt { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .45em;
  border: 1px solid #0006; border-radius: .15em; vertical-align: -.05em; }
@media print { .wide { max-height: none; } }
"""
