import { METRICS } from './measure.ts'

/**
 * The style sheet inside each SVG. Every rule hangs on `.statechart`, so that a page can inline the
 * SVG. Colours are `--chart-*` properties which the page may set; without them the defaults follow
 * `prefers-color-scheme`. A page lights a state or transition by setting `data-lit` on its group.
 */
export const CHART_STYLE = `
.statechart {
  --bg: var(--chart-bg, #ffffff); --box: var(--chart-box, #ffffff); --line: var(--chart-line, #b8c0cc);
  --text: var(--chart-text, #1c2430); --muted: var(--chart-muted, #5a6676); --edge: var(--chart-edge, #7d8998);
  --active: var(--chart-active, #2563c9);
  --parked: var(--chart-parked, #a86200); --terminal: var(--chart-terminal, #5a6676);
  --lit: var(--chart-lit, #0b7a3e); --lit-box: var(--chart-lit-box, #d9f5e4);
  max-width: 100%; height: auto; font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif;
}
@media (prefers-color-scheme: dark) {
  .statechart {
    --bg: var(--chart-bg, #0f141b); --box: var(--chart-box, #1a212b); --line: var(--chart-line, #465263);
    --text: var(--chart-text, #e8edf4); --muted: var(--chart-muted, #a3afbf); --edge: var(--chart-edge, #7f8da0);
    --active: var(--chart-active, #6ea4ff);
    --parked: var(--chart-parked, #f0b04f); --terminal: var(--chart-terminal, #a3afbf);
    --lit: var(--chart-lit, #4fd58a); --lit-box: var(--chart-lit-box, #12402a);
  }
}
.statechart .canvas { fill: var(--bg); }
.statechart .state { --accent: var(--line); }
.statechart .tag-active { --accent: var(--active); }
.statechart .tag-parked { --accent: var(--parked); }
.statechart .tag-terminal { --accent: var(--terminal); }
.statechart .box { fill: var(--box); stroke: var(--accent); stroke-width: 1.25; }
.statechart .compound > .box { fill: var(--accent); fill-opacity: .05; pointer-events: none; }
.statechart .compound > text { paint-order: stroke; stroke: var(--bg); stroke-width: 4px; stroke-linejoin: round; }
.statechart .label { fill: var(--bg); }
.statechart .label ~ .event { text-anchor: middle; }
.statechart .final > .rim { fill: none; stroke: var(--accent); }
.statechart .name { fill: var(--text); font-size: ${METRICS.title}px; font-weight: 600; }
.statechart .description { fill: var(--muted); font-size: ${METRICS.text}px; }
.statechart .rule { stroke: var(--line); stroke-width: 1; opacity: .6; }
.statechart .event { fill: var(--text); font: ${METRICS.label}px ui-monospace, 'SF Mono', Menlo, Consolas, 'Liberation Mono', monospace; }
.statechart .guard { fill: var(--muted); }
.statechart .path { fill: none; stroke: var(--edge); stroke-width: 1.25; }
.statechart .arrow, .statechart .dot { fill: var(--edge); }
.statechart .transition:hover > .path, .statechart .transition[data-lit] > .path { stroke: var(--lit); stroke-width: 2; }
.statechart .transition:hover > .arrow, .statechart .transition[data-lit] > .arrow { fill: var(--lit); }
.statechart .state[data-lit] > .box { fill: var(--lit-box); stroke: var(--lit); stroke-width: 2.5; }
.statechart .compound[data-lit] > .box { fill: var(--lit); }
.statechart .stay[data-lit] > .event { fill: var(--lit); }
@media (prefers-reduced-motion: no-preference) { .statechart .box, .statechart .path { transition: fill .2s, stroke .2s; } }
`
