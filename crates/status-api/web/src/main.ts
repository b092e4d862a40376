import "uplot/dist/uPlot.min.css";
import "./style.css";

import { get, Refused } from "./api";
import { Controls } from "./controls";
import { Decisions } from "./decisions";
import { byId, element, setAttribute, setText } from "./dom";
import { type Followed, Follower } from "./follow";
import { DocumentClock, isLive, notice } from "./freshness";
import { HistoryChart } from "./history";
import { Instances } from "./instances";
import { NowChart } from "./now";
import { pointOf, Trace } from "./series";
import { Services } from "./services";
import { tones } from "./tones";
import type { History, Latency } from "./wire";
import { duration, headline, latency, sentence } from "./words";

/** The choices of the history chart; the widest is what status-api keeps by default. */
const WINDOWS: readonly (readonly [ms: number, words: string])[] = [
  [60_000, "1 min"],
  [300_000, "5 min"],
  [900_000, "15 min"],
];
/** The chart and the ages move on at this pace; with less motion asked for, once a second. */
const FRAME_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1_000 : 200;
/** What holds shorter than this is not read out: every swap passes through "catching up". */
const ANNOUNCE_AFTER_MS = 1_500;

const controls = new Controls(byId("controls"));
const nowChart = new NowChart(byId("now"), byId("limit"));
const historyChart = new HistoryChart(byId("history"), WINDOWS[0]?.[0] ?? 60_000);
const services = new Services(byId("services"), (name, command) => {
  void controls.command(`${name}: ${command} done`, "POST", `/v1/services/${encodeURIComponent(name)}/${command}`);
});
const instances = new Instances(byId("instances"), (name, command) => {
  void controls.command(`${name}: ${command} done`, "POST", `/v1/instances/${encodeURIComponent(name)}/${command}`);
});
const decisions = new Decisions(byId("decisions"), byId("decisions-trouble"));
const clock = new DocumentClock();

let trace = new Trace();
let shown: Followed = { link: "connecting", snapshot: null, heardAt: null };
let wasLive = false;
/** Before the first history there is no telling where on the chart the present is. */
let placed = false;
let announced = "";
let pendingText = "";
let pendingSince = 0;

async function loadHistory(): Promise<void> {
  const askedAt = trace.points.length;
  try {
    const widest = WINDOWS.at(-1)?.[0] ?? 0;
    const history = await get<History>(`/v1/history?window_ms=${widest}`);
    const last = history.samples.at(-1);
    if (last) clock.observe(Date.parse(last.at), Date.now());
    trace = trace.merged(Trace.of(history), askedAt);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    // The charts then begin with now; the banner says what is wrong.
  }
  placed = true;
  addPoint();
}

/** What is shown, from now on. */
function addPoint(): void {
  const { link, snapshot } = shown;
  if (placed && snapshot) trace.add({ ...pointOf(snapshot, clock.now(Date.now())), live: isLive(link, snapshot) });
}

function follow(state: Followed): void {
  const live = isLive(state.link, state.snapshot);
  const isNew = state.snapshot !== shown.snapshot;
  shown = { ...state };
  if (state.snapshot && isNew) {
    // The first on a connection may have been taken long ago; one that arrives later was taken just now.
    if (live && wasLive) clock.observe(Date.parse(state.snapshot.taken_at), Date.now());
    decisions.changed();
  }
  if (isNew || live !== wasLive) addPoint();
  if (live && !wasLive) {
    // What happened meanwhile is in status-api's history, not in ours.
    void loadHistory();
    void controls.load();
  }
  wasLive = live;
  requestAnimationFrame(render);
}

function latencyWords(name: string, { count, p50_ms, p99_ms, last_ms }: Latency): string {
  if (count === 0) return `${name}: none measured yet`;
  return `${name}: ${latency(p50_ms)} at the median, ${latency(p99_ms)} at p99, last ${latency(last_ms)} (${count} measured)`;
}

function renderNotice(now: number): void {
  const local = shown.heardAt === null ? null : clock.now(shown.heardAt);
  const said = notice(shown.link, shown.snapshot, local);
  const banner = byId("banner");
  banner.hidden = said === null;
  if (!said) return;
  setText(byId("banner-text"), said.text);
  setText(byId("banner-age"), said.since === null ? "" : `For ${duration(now - said.since)}.`);
}

function announce(text: string): void {
  if (text !== pendingText) {
    pendingText = text;
    pendingSince = Date.now();
  } else if (text !== announced && Date.now() - pendingSince >= ANNOUNCE_AFTER_MS) {
    announced = text;
    setText(byId("announcement"), text);
  }
}

function renderTicking(): void {
  const now = clock.now(Date.now());
  renderNotice(now);
  const { snapshot } = shown;
  if (!snapshot) return;
  const live = isLive(shown.link, snapshot);
  const line = headline(live ? snapshot : { ...snapshot, success: null });
  announce(line.text);
  const held = duration(now - Date.parse(snapshot.success_since));
  setText(byId("held"), live ? (snapshot.success ? `Held for ${held}` : `For ${held}`) : "");
  if (!document.hidden) historyChart.show(trace, snapshot.services, tones(snapshot.services), now);
}

function render(): void {
  const { snapshot } = shown;
  const live = isLive(shown.link, snapshot);
  document.body.classList.toggle("stale", !live);
  setText(byId("link"), live ? "live" : shown.link === "connecting" ? "connecting" : "not live");
  setAttribute(byId("link"), "data-live", String(live));
  byId("content").hidden = snapshot === null;
  if (snapshot) {
    const line = headline(live ? snapshot : { ...snapshot, success: null });
    const names = snapshot.services.map(({ name }) => name);
    setAttribute(byId("success"), "data-tone", line.tone);
    setText(byId("headline"), line.text);
    setText(byId("detail"), line.detail);
    setText(byId("summary"), live ? sentence(snapshot.summary, names) : "");
    setText(byId("cluster"), snapshot.cluster);
    document.title = `${line.tone === "good" ? "✓" : line.tone === "bad" ? "✗" : "…"} ${snapshot.cluster} – Force12`;
    const palette = tones(snapshot.services);
    nowChart.show(snapshot, palette);
    instances.show(snapshot, palette, clock.now(Date.now()));
    services.show(snapshot, palette);
    setText(
      byId("latencies"),
      [
        latencyWords("Reaction to a rise in demand", snapshot.reaction),
        latencyWords("Start", snapshot.start),
        latencyWords("Stop", snapshot.stop),
      ].join(" · "),
    );
  }
  renderTicking();
}

function windowChoice(): void {
  const group = byId("windows");
  for (const [ms, words] of WINDOWS) {
    const button = element("button", { type: "button", "aria-pressed": String(ms === historyChart.windowMs) }, words);
    button.addEventListener("click", () => {
      historyChart.windowMs = ms;
      for (const other of group.children) setAttribute(other, "aria-pressed", String(other === button));
      renderTicking();
    });
    group.append(button);
  }
}

windowChoice();
new Follower(follow).start();
setInterval(renderTicking, FRAME_MS);
render();
