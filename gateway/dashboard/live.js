// Listens for what happens, by server-sent events, and says when a page should look again.

import { endpoint } from "./api.js";

const AT_MOST_EVERY_MS = 4_000;
const WAITS_MS = [1_000, 5_000, 15_000, 60_000];

/**
 * Call `onNews` when the totals have moved, at most every four seconds, `onBeat` whenever they
 * are told, and `onState` with live, paused or lost. The stream is opened again after a while
 * when it breaks. The first totals count as news: a page may have been read just before them.
 */
export function follow({ onNews, onBeat, onState }) {
  let source = null;
  let known = null;
  let lastAt = Date.now();
  let failures = 0;
  let opening = 0;
  let telling = 0; // not ended by a stream that breaks: what was heard is still to be told
  let isPaused = false;

  function open() {
    source = new EventSource(endpoint("reports/live"));
    source.onopen = () => {
      failures = 0;
      onState("live");
    };
    source.onmessage = ({ data }) => hear(data);
    source.addEventListener("totals", ({ data }) => hear(data));
    source.onerror = () => {
      shut();
      if (failures > 0) onState("lost"); // the gateway ends a stream from time to time: that alone is no loss
      opening = setTimeout(open, WAITS_MS[Math.min(failures, WAITS_MS.length - 1)]);
      failures += 1;
    };
  }

  function hear(data) {
    const told = stamp(data);
    onBeat();
    if (told === known) return;
    known = told;
    const wait = lastAt + AT_MOST_EVERY_MS - Date.now();
    clearTimeout(telling);
    telling = setTimeout(() => {
      lastAt = Date.now();
      onNews();
    }, Math.max(0, wait));
  }

  function shut() {
    clearTimeout(opening);
    source?.close();
    source = null;
  }

  function close() {
    clearTimeout(telling);
    shut();
  }

  onState("lost");
  open();
  return {
    close,
    toggle() {
      isPaused = !isPaused;
      close();
      if (isPaused) onState("paused");
      else {
        onNews();
        open();
      }
    },
  };
}

/** What of an event tells that something happened: all but the time it was sent. */
function stamp(data) {
  try {
    const { at, t, now, ...rest } = JSON.parse(data);
    return JSON.stringify(rest);
  } catch {
    return data;
  }
}
