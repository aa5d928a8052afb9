-- SPDX-License-Identifier: MIT
-- How the page of luna report looks: its style sheet, for screens that are light or dark, and for
-- paper.

return [[
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --ink: #1d2430; --soft: #5b6675; --line: #dfe3e9;
  --code: #f3f5f8; --mark: #fff1c2; --zero: #a9b2be; --bar: #c9d8f0;
  --good: #1e7a46; --bad: #b3261e; --note: #946200; --run: #6b7a90;
  --c1: #3b74c4; --c2: #e08a2c; --c3: #3f9a5f; --c4: #c24b56; --c5: #8561b8; --c6: #9a7a4d;
  --c7: #35a0a8; --c8: #9aa3af;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1a2029; --ink: #e4e8ee; --soft: #9aa6b5; --line: #303945;
    --code: #141a22; --mark: #54450f; --zero: #566273; --bar: #3c5c92;
    --good: #6ad096; --bad: #ff8f86; --note: #e6b84f; --run: #8796ab;
    --c1: #6ea3ee; --c2: #f0a556; --c3: #66c088; --c4: #ea7680; --c5: #b094e0; --c6: #c7a878;
    --c7: #5cc6ce; --c8: #7d8897;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 48px; }
code, pre, h1, .mono { font-family: ui-monospace, "DejaVu Sans Mono", "Liberation Mono",
  monospace; }
h1 { font-size: 22px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 40px 0 12px; padding-bottom: 6px;
  border-bottom: 2px solid var(--line); }
h2 small { font-size: 14px; font-weight: normal; color: var(--soft); margin-left: 8px; }
h3 { font-size: 15px; margin: 0 0 8px; }
h3 small { font-weight: normal; color: var(--soft); margin-left: 6px; }
h4 { font-size: 13px; margin: 16px 0 4px; color: var(--soft); }
p { margin: 6px 0; }
.about { color: var(--soft); margin: 4px 0 16px; }
.outcome { border-left: 5px solid var(--run); padding: 10px 16px; margin: 0 0 16px;
  background: var(--card); border-radius: 4px; font-weight: 600; }
.outcome.good { border-color: var(--good); }
.outcome.bad { border-color: var(--bad); color: var(--bad); }
.outcome pre { font-weight: normal; color: var(--ink); margin: 8px 0 0; }
.numbers { display: flex; flex-wrap: wrap; gap: 12px; margin: 0 0 16px; padding: 0;
  list-style: none; }
.numbers li { flex: 1 1 130px; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px 16px; }
.numbers b { display: block; font-size: 21px; line-height: 1.3; font-weight: 600; }
.numbers span { color: var(--soft); font-size: 13px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 16px 20px 18px; margin: 0 0 16px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
.pair section:only-child { grid-column: 1 / 3; }
@media (max-width: 900px) {
  .pair { grid-template-columns: 1fr; }
  .pair section:only-child { grid-column: auto; }
}
.pair > section { min-width: 0; margin: 0; }
.pair { margin: 0 0 16px; }
.note { color: var(--soft); font-size: 13px; }
.likely { border-left: 4px solid var(--note); padding: 2px 12px; margin: 8px 0; }
.likely b { color: var(--note); }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
td, th { padding: 3px 10px 3px 0; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: normal; font-size: 12.5px;
  border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; white-space: nowrap; }
td.n:last-child, th.n:last-child { padding-right: 0; }
td.name { overflow-wrap: anywhere; }
.ranking { table-layout: fixed; }
td.bar { width: 26%; vertical-align: middle; }
td.count { width: 18%; }
td.share { width: 15%; }
td.bar i { display: block; height: 11px; min-width: 1px; background: var(--bar);
  border-radius: 2px; }
pre { margin: 4px 0; padding: 10px 12px; background: var(--code); border-radius: 6px;
  font-size: 12.5px; line-height: 1.45; overflow-x: auto; }
pre mark { background: var(--mark); color: inherit; display: block; width: max-content;
  min-width: 100%; }
.two { display: flex; flex-wrap: wrap; gap: 0 16px; }
.two > div { flex: 1 1 420px; min-width: 0; }
pre .z { color: var(--zero); }
.scroll { max-height: 460px; overflow: auto; display: flex; flex-direction: column-reverse;
  border-radius: 6px; background: #10141a; }
.console { background: #10141a; color: #dbe2ea; margin: 0; white-space: pre-wrap;
  overflow-wrap: anywhere; overflow: visible; }
.shares { display: flex; height: 22px; border-radius: 4px; overflow: hidden; margin: 4px 0 8px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 4px 0 0; padding: 0;
  list-style: none;
  font-size: 13.5px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px;
  margin-right: 6px; }
.legend span { color: var(--soft); }
svg { display: block; max-width: 100%; height: auto; }
.chart { width: 100%; font-size: 12px; font-family: inherit; }
.chart .grid { stroke: var(--line); }
.chart .axis { stroke: var(--soft); }
.chart .tick { fill: var(--soft); }
.chart .end { text-anchor: end; }
.chart .mid { text-anchor: middle; }
.chart .run { fill: var(--run); shape-rendering: crispEdges; }
.chart .hit { fill: transparent; }
.chart .hit:hover { fill: var(--ink); fill-opacity: 0.12; }
.c1 { fill: var(--c1); background: var(--c1); } .c2 { fill: var(--c2); background: var(--c2); }
.c3 { fill: var(--c3); background: var(--c3); } .c4 { fill: var(--c4); background: var(--c4); }
.c5 { fill: var(--c5); background: var(--c5); } .c6 { fill: var(--c6); background: var(--c6); }
.c7 { fill: var(--c7); background: var(--c7); } .c8 { fill: var(--c8); background: var(--c8); }
.screen { max-width: 100%; border: 1px solid var(--line); image-rendering: pixelated; }
summary { cursor: pointer; color: var(--soft); margin-top: 8px; }
@page { margin: 14mm; }
@media print {
  :root { --page: #ffffff; --card: #ffffff; --ink: #000000; --soft: #444444; --line: #bbbbbb;
    --code: #ffffff; --mark: #eeeeee; --zero: #888888; --bar: #cccccc; --good: #1e7a46;
    --bad: #b3261e; --note: #946200; --run: #666666; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 11px; }
  main { max-width: none; padding: 0; }
  section { border-radius: 0; padding: 8px 10px; }
  h1 { font-size: 15px; }
  h3, .numbers b { font-size: 12px; }
  table, .legend, .note, .numbers span, h4 { font-size: 10px; }
  .pair { grid-template-columns: 1fr 1fr; }
  .pair section:only-child { grid-column: 1 / 3; }
  .two > div { flex-basis: 240px; }
  pre { font-size: 8px; border: 1px solid var(--line); white-space: pre-wrap; }
  .scroll { display: block; max-height: none; }
  .console { background: #ffffff; color: #000000; }
  h2, h3 { break-after: avoid; }
  svg, .screen, tr { break-inside: avoid; }
  summary { display: none; }
}
]]
